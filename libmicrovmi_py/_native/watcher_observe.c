/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watcher's part of observing: it reads what QEMU logs of the writes to control registers, and hands it on. A pipe that
 * is full would have the guest wait, so it is always read, whoever stands or sleeps: what does not go on at once waits in a
 * ring, and what finds that full is counted. Nobody else has the pipe's other end: without it QEMU writes on, to nobody.
 *
 * It is told first, in one line, the mark that is to be removed from QEMU, and the file that its log goes to afterwards. It hands on records of 16 bytes: the value, the number of the register, and how many were lost before it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "watcher.h"

#define ROOM (1u << 20)   /* records that wait; a power of two */
#define CHUNK (64u << 10) /* bytes that are read, or handed on, at once */
#define PAUSE_NS 1000000  /* between two reads, so that a read brings many lines */
#define LONGEST_LINE 4096 /* a longer one is nothing of ours */
#define LONGEST_ORDER 256 /* what is told first */

#define HUMAN(line) WATCH_EXECUTE_WITH("human-monitor-command", "\"command-line\":\"" line "\"")

struct record {
    uint64_t value;
    uint32_t number, lost;
};

static const struct {
    const char *text;
    uint32_t number;
} kinds[] = {{"CR3 update: CR3=", 3}, {"CR0 update: CR0=0x", 0}};

static struct record ring[ROOM];
static uint64_t written, sent; /* records so far */
static size_t part;            /* bytes of the next record that were sent */
static uint32_t lost;
static char order[LONGEST_ORDER + 1]; /* the line */
static size_t length;
static bool told_all;

static void keep(uint64_t value, uint32_t number)
{
    if (written - sent == ROOM) {
        lost += lost < UINT32_MAX;
        return;
    }
    ring[written++ % ROOM] = (struct record){value, number, lost};
    lost = 0;
}

/* A line without its end, which may have something before what counts: the time. */
static void take_line(const char *line)
{
    size_t kind;

    for (kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
        const char *place = strstr(line, kinds[kind].text);

        if (place != NULL) {
            keep(strtoull(place + strlen(kinds[kind].text), NULL, 16), kinds[kind].number);
            return;
        }
    }
}

/* Read what has come; false: the other end is closed. */
static bool take(void)
{
    static char data[CHUNK + 1];
    static size_t size;
    ssize_t more = read(WATCH_OWN, data + size, CHUNK - size);
    char *line = data, *end;

    if (more <= 0)
        return more < 0 && (errno == EAGAIN || errno == EINTR);
    size += (size_t)more;
    while ((end = memchr(line, '\n', size - (size_t)(line - data))) != NULL) {
        *end = '\0';
        take_line(line);
        line = end + 1;
    }
    size -= (size_t)(line - data);
    if (size > LONGEST_LINE)
        size = 0;
    memmove(data, line, size);
    return true;
}

/* Send what waits, as far as there is room for it; false: nobody hears it any more. */
static bool hand_on(void)
{
    while (sent != written) {
        uint64_t first = sent % ROOM, count = written - sent;
        size_t size = (size_t)(count < ROOM - first ? count : ROOM - first) * sizeof *ring - part;
        ssize_t done = send(WATCH_WORD, (const char *)&ring[first] + part, size < CHUNK ? size : CHUNK,
                            MSG_NOSIGNAL | MSG_DONTWAIT);

        if (done < 0)
            return errno == EAGAIN || errno == EINTR;
        part += (size_t)done;
        sent += part / sizeof *ring;
        part %= sizeof *ring;
    }
    return true;
}

/* What has come: the line, then words. 1: all is done; -1: who started it is gone. */
static int hear(const struct pollfd *told)
{
    char word;
    ssize_t size = 0;

    while (told[0].revents != 0 && (size = recv(WATCH_WORD, &word, 1, MSG_DONTWAIT)) == 1) {
        if (told_all)
            return word == WATCH_DONE ? 1 : -1;
        told_all = word == '\n';
        if (!told_all && length < LONGEST_ORDER)
            order[length++] = word;
    }
    if (told[0].revents != 0 && (size == 0 || (errno != EAGAIN && errno != EINTR)))
        return -1;
    return told[1].revents != 0 ? -1 : 0;
}

bool watch_read_log(struct watch_machine *machine)
{
    const struct timespec pause = {0, PAUSE_NS};
    struct pollfd told[] = {{WATCH_WORD, POLLIN, 0},
                            {fcntl(WATCH_STARTER, F_GETFD) < 0 ? -1 : WATCH_STARTER, POLLIN, 0},
                            {WATCH_OWN, POLLIN, 0}};
    int word;

    (void)machine; /* nothing of it is told */
    for (fcntl(WATCH_OWN, F_SETFL, O_NONBLOCK);; nanosleep(&pause, NULL)) {
        told[0].events = (short)(POLLIN | (sent != written ? POLLOUT : 0));
        if (poll(told, 3, -1) <= 0)
            continue;
        word = hear(told);
        if (word > 0)
            return true;
        if (told[2].revents != 0 && !take())
            told[2].fd = -1;
        if (word < 0 || !hand_on())
            break;
        if (told[2].fd < 0 && sent == written)
            (void)shutdown(WATCH_WORD, SHUT_WR); /* nothing more comes */
    }
    close(WATCH_OWN); /* QEMU waits for nobody, while its monitor is another's */
    return false;
}

/* The line is of ours, and has no quotes. */
enum watch_outcome watch_observe(const struct watch_machine *machine)
{
    char back[LONGEST_ORDER * 2], mark[LONGEST_ORDER * 2], *file = strchr(order, ' ');
    int monitor = told_all && file != NULL ? watch_connect(machine, WATCH_PATIENCE) : -1;

    if (monitor < 0)
        return WATCH_UNKNOWN;
    *file++ = '\0';
    snprintf(back, sizeof back, HUMAN("logfile %s"), file);
    snprintf(mark, sizeof mark, WATCH_EXECUTE_WITH("chardev-remove", "\"id\":\"%s\""), order);
    watch_ask(monitor, HUMAN("log none"));
    watch_ask(monitor, back);
    watch_ask(monitor, mark);
    close(monitor);
    return WATCH_OVER;
}
