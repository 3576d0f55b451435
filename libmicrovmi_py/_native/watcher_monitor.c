/* SPDX-License-Identifier: Apache-2.0 */
/* The watcher's words with QEMU's monitor. */
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/un.h>
#include <unistd.h>

#include "watcher.h"

#define LARGEST (1u << 20)

/* A message of QEMU's, without white space, as some monitors indent theirs. What is longer has no text. */
static struct {
    size_t size;
    int depth;
    bool in_text, escaped;
    char text[LARGEST + 1];
} message;

/* What was received, and how much of it is in a message already. */
static char data[4096];
static ssize_t received, place;

/* One byte more of the message; whether it is whole now. */
static bool add(char byte)
{
    if (!message.in_text && strchr(" \t\r\n", byte) != NULL)
        return false;
    if (message.size < LARGEST)
        message.text[message.size++] = byte;
    if (message.in_text) {
        message.in_text = byte != '"' || message.escaped;
        message.escaped = byte == '\\' && !message.escaped;
        return false;
    }
    message.in_text = byte == '"';
    message.depth += (byte == '{' || byte == '[') - (byte == '}' || byte == ']');
    return message.depth <= 0;
}

static bool begins(const char *text)
{
    return strncmp(message.text, text, strlen(text)) == 0;
}

/* The next message that is a greeting or an answer; without "id" those have one member. False: none comes. */
static bool receive(int monitor)
{
    for (;;) {
        message.size = 0;
        message.depth = 0;
        message.in_text = message.escaped = false;
        do {
            if (place == received) {
                place = 0;
                received = recv(monitor, data, sizeof data, 0);
            }
            if (received <= 0) {
                received = place = 0;
                message.text[0] = '\0';
                return false;
            }
        } while (!add(data[place++]));
        message.text[message.size] = '\0';
        if (begins("{\"QMP\":") || begins("{\"return\":") || begins("{\"error\":"))
            return message.size < LARGEST;
    }
}

bool watch_ask(int monitor, const char *command)
{
    size_t size = strlen(command);

    return send(monitor, command, size, MSG_NOSIGNAL) == (ssize_t)size && receive(monitor) && begins("{\"return\":");
}

bool watch_has(const char *text)
{
    return strstr(message.text, text) != NULL;
}

const char *watch_object(const char *text, size_t *size)
{
    const char *found = strstr(message.text, text);
    const char *start = found, *end = found == NULL ? NULL : strchr(found, '}');

    if (end == NULL)
        return NULL;
    while (start > message.text && *start != '{')
        start--;
    *size = (size_t)(end - start);
    return start;
}

unsigned long watch_number(const char *text, const char **place)
{
    const char *found = strstr(*place == NULL ? message.text : *place, text);

    *place = found == NULL ? "" : found + strlen(text);
    return strtoul(*place, NULL, 10);
}

static void limit(int monitor, int milliseconds)
{
    struct timeval time = {milliseconds / 1000, milliseconds % 1000 * 1000};

    setsockopt(monitor, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
    setsockopt(monitor, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
}

int watch_connect(const struct watch_machine *machine, int milliseconds)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t size = strlen(machine->address);
    int monitor = size == 0 || size > sizeof address.sun_path ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (monitor < 0)
        return -1;
    memcpy(address.sun_path, machine->address, size);
    if (address.sun_path[0] == '@')
        address.sun_path[0] = '\0';
    received = place = 0;
    limit(monitor, milliseconds);
    if (connect(monitor, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size)) !=
            0 ||
        !receive(monitor) || !watch_ask(monitor, WATCH_EXECUTE("qmp_capabilities"))) {
        close(monitor);
        return -1;
    }
    limit(monitor, WATCH_PATIENCE);
    return monitor;
}
