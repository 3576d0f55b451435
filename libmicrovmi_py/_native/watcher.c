/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program of its own: it takes back what a snapshot in the background changed in QEMU, if the process that takes the
 * snapshot ends without having done so, by SIGKILL for instance. Started by watching.c:
 *
 *     microvmi-watcher PID ADDRESS
 *
 * with QEMU's process, and its monitor: a path, or an abstract name behind "@". Its descriptors: 0 is a socket on which
 * the word comes that all is done; 1 the monitor's socket in the file system, if ADDRESS leads there; 2 a pidfd of the
 * process that started it, if the system has those. It prints nothing, and asks QEMU nothing while that process lives.
 */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define WORD 0
#define STARTER 2
#define OTHERS 3 /* descriptors from here on are not ours */

/* Texts that orders.py and migration.py have as well. */
#define MARK "microvmi-background-snapshot"
#define STREAM "microvmi-stream"
#define FILE_OF_STREAM "/memfd:microvmi-migration "
#define PROTECTION "anon_inode:[userfaultfd]"

#define LOOK_NS 50000000
#define PATIENCE 600 /* seconds for a monitor that somebody else uses, once QEMU has ended the migration */
#define LARGEST (1u << 20)

struct machine {
    const char *pid;
    const char *address;
};

enum outcome {
    OVER,
    LATER,
    UNKNOWN
};

/* A message of QEMU's, without white space, as some monitors indent theirs. What is longer has no text. */
struct message {
    size_t size;
    int depth;
    bool in_text, escaped;
    char text[LARGEST + 1];
};

static struct message message;

static void close_others(void)
{
    int number;

    if (syscall(SYS_close_range, OTHERS, ~0u, 0) == 0)
        return;
    for (number = OTHERS; number < sysconf(_SC_OPEN_MAX); number++)
        close(number);
}

/* Whether the word came: false once the process has ended, or become another program, without it. */
static bool hear_word(void)
{
    struct pollfd told[] = {{WORD, POLLIN, 0}, {fcntl(STARTER, F_GETFD) < 0 ? -1 : STARTER, POLLIN, 0}};
    char word;

    while (poll(told, 2, -1) <= 0)
        ;
    /* What was said before the end counts; a child of fork() may hold it open. */
    return poll(told, 1, 0) > 0 && read(WORD, &word, 1) == 1;
}

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
    static char data[4096];
    static ssize_t size, place;

    for (;;) {
        message.size = 0;
        message.depth = 0;
        message.in_text = message.escaped = false;
        do {
            if (place == size) {
                place = 0;
                size = recv(monitor, data, sizeof data, 0);
            }
            if (size <= 0) {
                size = place = 0;
                return false;
            }
        } while (!add(data[place++]));
        message.text[message.size] = '\0';
        if (begins("{\"QMP\":") || begins("{\"return\":") || begins("{\"error\":"))
            return message.size < LARGEST;
    }
}

/* Whether QEMU carried out a command; `message` has the answer. */
static bool ask(int monitor, const char *command)
{
    size_t size = strlen(command);

    return send(monitor, command, size, MSG_NOSIGNAL) == (ssize_t)size && receive(monitor) && begins("{\"return\":");
}

#define EXECUTE(command) "{\"execute\":\"" command "\"}\n"
#define EXECUTE_WITH(command, arguments) "{\"execute\":\"" command "\",\"arguments\":{" arguments "}}\n"

static bool has(const char *text)
{
    return strstr(message.text, text) != NULL;
}

static bool migrates(void)
{
    return has("\"status\":") && !has("\"status\":\"none\"") && !has("\"status\":\"completed\"") &&
           !has("\"status\":\"failed\"") && !has("\"status\":\"cancelled\"");
}

/* Whether somebody who lives holds a lock on a stream that QEMU has, and takes a snapshot. */
static bool is_locked(int folder, const char *name)
{
    int file = openat(folder, name, O_RDONLY | O_CLOEXEC);
    bool locked = file >= 0 && flock(file, LOCK_SH | LOCK_NB) != 0;

    if (file >= 0)
        close(file);
    return locked;
}

/* LATER: QEMU has write-protected its RAM, or has a stream of a process that lives. UNKNOWN: it ended, or is not ours. */
static enum outcome look_at_files(const struct machine *machine)
{
    enum outcome outcome = OVER;
    char path[64], link[64];
    const struct dirent *entry;
    DIR *folder;

    snprintf(path, sizeof path, "/proc/%s/fd", machine->pid);
    folder = opendir(path);
    if (folder == NULL)
        return UNKNOWN;
    while (outcome == OVER && (entry = readdir(folder)) != NULL) {
        ssize_t size = readlinkat(dirfd(folder), entry->d_name, link, sizeof link - 1);
        bool busy;

        link[size < 0 ? 0 : size] = '\0';
        busy = strncmp(link, FILE_OF_STREAM, strlen(FILE_OF_STREAM)) == 0 ? is_locked(dirfd(folder), entry->d_name)
                                                                          : strcmp(link, PROTECTION) == 0;
        outcome = busy ? LATER : OVER;
    }
    closedir(folder);
    return outcome;
}

/* On a connection that was made: the capability first, as without the mark it would be taken for somebody else's. */
static enum outcome take_back(int monitor, const struct machine *machine)
{
    if (!receive(monitor) || !ask(monitor, EXECUTE("qmp_capabilities")) || !ask(monitor, EXECUTE("query-chardev")))
        return UNKNOWN;
    if (!has("\"label\":\"" MARK "\""))
        return OVER; /* nothing was ordered, or another process of ours has taken it back */
    if (!ask(monitor, EXECUTE("query-migrate")))
        return UNKNOWN;
    if (migrates() || look_at_files(machine) != OVER ||
        !ask(monitor, EXECUTE_WITH("migrate-set-capabilities",
                                   "\"capabilities\":[{\"capability\":\"background-snapshot\",\"state\":false}]")))
        return LATER;
    ask(monitor, EXECUTE_WITH("chardev-remove", "\"id\":\"" MARK "\""));
    ask(monitor, EXECUTE_WITH("closefd", "\"fdname\":\"" STREAM "\"")); /* if it never began */
    return OVER;
}

/* Connect, look and hang up again: others use the monitor as well. */
static enum outcome ask_monitor(const struct machine *machine)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval limit = {PATIENCE, 0};
    enum outcome outcome = UNKNOWN; /* QEMU has ended, mostly */
    size_t size = strlen(machine->address);
    int monitor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (monitor < 0 || size > sizeof address.sun_path)
        return UNKNOWN;
    memcpy(address.sun_path, machine->address, size);
    if (address.sun_path[0] == '@')
        address.sun_path[0] = '\0';
    setsockopt(monitor, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(monitor, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(monitor, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size)) == 0)
        outcome = take_back(monitor, machine);
    close(monitor);
    return outcome;
}

int main(int count, char **words)
{
    const struct timespec pause = {0, LOOK_NS};
    struct machine machine;
    enum outcome outcome;

    if (count != 3)
        return 2;
    machine = (struct machine){words[1], words[2]};
    close_others();
    signal(SIGTERM, SIG_IGN); /* what ends all processes of a service at once ends the one that is watched */
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    if (chdir("/") != 0 || hear_word())
        return 0;
    do {
        nanosleep(&pause, NULL);
        outcome = look_at_files(&machine);
        if (outcome == OVER)
            outcome = ask_monitor(&machine);
    } while (outcome == LATER);
    return 0;
}
