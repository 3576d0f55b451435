/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watcher's words with QEMU's monitor. That may answer here what the client before asked, who hung up: in front of its
 * greeting, or behind it. So each command has an id, and only what carries it is the answer.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/un.h>
#include <time.h>
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

/* The id of the last command, as QEMU repeats it, and the number in it, which begins elsewhere in each connection. */
static char id[48];
static unsigned long long number;

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

static bool begins(const char *whole, const char *text)
{
    return strncmp(whole, text, strlen(text)) == 0;
}

/* The next message; false: none comes. */
static bool receive(int monitor)
{
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
    return true;
}

/* Before it nothing is said: QEMU would carry that out whenever another client leaves the monitor, and we have left. */
static bool receive_greeting(int monitor)
{
    while (receive(monitor))
        if (begins(message.text, "{\"QMP\":"))
            return true;
    return false;
}

/* What the message has beside our id, which QEMU writes behind a result and in front of an error; NULL: it is not there. */
static const char *answered(void)
{
    const char *first = message.text + 1, *found = strstr(message.text, id);

    if (found == NULL)
        return NULL;
    return found == first ? first + strlen(id) + 1 : first;
}

static bool say(int monitor, const char *text)
{
    size_t size = strlen(text);

    return send(monitor, text, size, MSG_NOSIGNAL) == (ssize_t)size;
}

bool watch_ask(int monitor, const char *command)
{
    const char *answer;

    snprintf(id, sizeof id, "\"id\":\"%llu\"", ++number);
    if (!say(monitor, "{") || !say(monitor, id) || !say(monitor, ",") || !say(monitor, command + 1))
        return false;
    while (receive(monitor) && message.size < LARGEST)
        if ((answer = answered()) != NULL)
            return begins(answer, "\"return\":");
    return false;
}

/* Leave negotiation mode, which QEMU may have done for the client before. */
static bool negotiate(int monitor)
{
    return watch_ask(monitor, WATCH_EXECUTE("qmp_capabilities")) || watch_has("\"class\":\"CommandNotFound\"");
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

/* In nanoseconds since the system began; no connection before had it. */
static unsigned long long moment(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (unsigned long long)now.tv_sec * 1000000000 + (unsigned long long)now.tv_nsec;
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
    number = moment();
    limit(monitor, milliseconds);
    if (connect(monitor, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size)) !=
            0 ||
        !receive_greeting(monitor) || !negotiate(monitor)) {
        close(monitor);
        return -1;
    }
    limit(monitor, WATCH_PATIENCE);
    return monitor;
}
