/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program of its own: it makes calls of the library for a process that cannot, a Python of another version. Started by
 * modules that libmicrovmi_py/stubgen writes, whose part elsewhere.py speaks to it:
 *
 *     microvmi-caller LIBRARY
 *
 * Descriptor 0 is a socket. Each of its messages brings one end of a further socket, on which one thread here makes the
 * calls of one thread there, so that errors stay with their threads. When nobody has the other end any more, this program
 * ends normally, and what was changed in machines is undone. The process at the other end is trusted: it could as well have
 * started any program.
 *
 * An event stops the guest until it is answered, so none may get lost on the way: one byte says that it has arrived.
 */
#include "libmicrovmi.h"

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ARGUMENTS 8
#define IN_ARGUMENTS UINT32_MAX
#define IS_TEXT ((uint64_t)1 << 63)
#define ALIGNED 16u
#define TURN_MS 100 /* after which a thread that waits looks whether its answer is still wanted */

/* A call: then its name, which ends with a zero byte, the sizes of its pieces, `fixes`, and what is in the pieces. */
struct call {
    uint32_t name_size;
    uint32_t pieces;
    uint32_t fixes;
    uint32_t result_is_text;
    uint64_t arguments[ARGUMENTS];
};

/* Where the address of a piece belongs: into another piece, or to the arguments. */
struct fix {
    uint32_t piece;
    uint32_t target;
    uint64_t offset;
};

typedef uint64_t function(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

static void *library;

static bool receive(int fd, void *place, size_t size)
{
    ssize_t done;

    for (; size > 0; size -= (size_t)done, place = (char *)place + done)
        if ((done = recv(fd, place, size, MSG_WAITALL)) <= 0)
            return false;
    return true;
}

static bool deliver(int fd, const void *place, size_t size)
{
    ssize_t done;

    for (; size > 0; size -= (size_t)done, place = (const char *)place + done)
        if ((done = send(fd, place, size, MSG_NOSIGNAL)) <= 0)
            return false;
    return true;
}

/* A text by its length, SIZE_MAX for none. */
static bool deliver_text(int fd, const char *text)
{
    uint64_t size = text == NULL ? UINT64_MAX : strlen(text);

    return deliver(fd, &size, sizeof size) && (text == NULL || deliver(fd, text, size));
}

static size_t size_of(uint64_t size)
{
    return (size_t)(size & ~IS_TEXT);
}

/* Room for every piece, filled. NULL if there is none, or nobody speaks. */
static char **take_pieces(int fd, const uint64_t *sizes, uint32_t count)
{
    size_t total = (count + 1) * sizeof(char *) + ALIGNED;
    uint32_t index;
    char **pieces, *next;

    for (index = 0; index < count; index++)
        total += (size_of(sizes[index]) + 2 * ALIGNED - 1) / ALIGNED * ALIGNED;
    if ((pieces = calloc(1, total)) == NULL)
        return NULL;
    next = (char *)(((uintptr_t)(pieces + count + 1) + ALIGNED - 1) / ALIGNED * ALIGNED);
    for (index = 0; index < count; index++) {
        pieces[index] = next;
        if (!receive(fd, next, size_of(sizes[index]))) {
            free(pieces);
            return NULL;
        }
        next += (size_of(sizes[index]) + 2 * ALIGNED - 1) / ALIGNED * ALIGNED;
    }
    return pieces;
}

static function *find(const char *name)
{
    return (function *)dlsym(library, name);
}

static uint64_t make(function *called, const uint64_t *a)
{
    return called(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]);
}

/* Of a result of type bool, one byte counts. */
static bool is_true(uint64_t result)
{
    return (uint8_t)result != 0;
}

static bool answer(int fd, const struct call *call, uint64_t result, char **pieces, const uint64_t *sizes)
{
    uint32_t index;
    bool good = deliver(fd, &result, sizeof result);

    for (index = 0; good && index < call->pieces; index++)
        good = deliver(fd, pieces[index], size_of(sizes[index]));
    if (good && call->result_is_text)
        good = deliver_text(fd, (const char *)(uintptr_t)result);
    for (index = 0; good && index < call->pieces; index++)
        if ((sizes[index] & IS_TEXT) != 0)
            good = deliver_text(fd, *(const char **)(void *)pieces[index]);
    return good;
}

static int64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static bool is_gone(int fd)
{
    struct pollfd end = {fd, POLLRDHUP, 0};

    return poll(&end, 1, 0) == 1;
}

/* A wait in turns: who has given it up by then is not told the next event in place of who listens later. */
static uint64_t wait_for_event(int fd, function *listen, const uint64_t *asked)
{
    int64_t end = now_us() + (int64_t)(uint32_t)asked[1] * 1000, left;
    uint64_t turn[ARGUMENTS] = {asked[0], 0, asked[2]}, result;

    do {
        left = (end - now_us() + 999) / 1000;
        turn[1] = (uint64_t)(left < 0 ? 0 : left < TURN_MS ? left : TURN_MS);
        result = make(listen, turn);
    } while (!is_true(result) && left > TURN_MS && !is_gone(fd) &&
             (uint32_t)make(find("microvmi_last_error_code"), turn) == MICROVMI_ERROR_TIMEOUT);
    return result;
}

/* The guest does again what nobody was told, so that the next one who listens is; else it goes on. */
static void answer_untold(const uint64_t *asked)
{
    const struct microvmi_reply again = {sizeof again, MICROVMI_REPLY_RETRY, NULL};
    const uint64_t retry[ARGUMENTS] = {asked[0], asked[2], (uintptr_t)&again};
    const uint64_t go_on[ARGUMENTS] = {asked[0], asked[2]};
    function *reply = find("microvmi_reply_event");

    if (!is_true(make(reply, retry)))
        make(reply, go_on);
}

static bool answer_listen(int fd, const struct call *call, function *listen, char **pieces, const uint64_t *sizes)
{
    uint64_t result = wait_for_event(fd, listen, call->arguments);
    bool good = answer(fd, call, result, pieces, sizes);
    char told;

    if (!is_true(result) || (good && receive(fd, &told, sizeof told)))
        return good;
    answer_untold(call->arguments);
    return false;
}

static bool answer_call(int fd, const struct call *call, const char *name, char **pieces, const uint64_t *sizes)
{
    function *called = find(name);

    if (called == NULL)
        return false;
    if (strcmp(name, "microvmi_listen") == 0)
        return answer_listen(fd, call, called, pieces, sizes);
    return answer(fd, call, make(called, call->arguments), pieces, sizes);
}

static bool serve_pieces(int fd, struct call *call, const char *name, const uint64_t *sizes, const struct fix *fixes)
{
    char **pieces = take_pieces(fd, sizes, call->pieces);
    uint32_t index;
    bool good;

    if (pieces == NULL)
        return false;
    for (index = 0; index < call->fixes; index++) {
        const struct fix *fix = &fixes[index];
        char *place = fix->piece == IN_ARGUMENTS ? (char *)call->arguments : pieces[fix->piece];

        memcpy(place + fix->offset, &pieces[fix->target], sizeof(char *));
    }
    good = answer_call(fd, call, name, pieces, sizes);
    free(pieces);
    return good;
}

/* One call; false when there are no more. */
static bool serve_call(int fd)
{
    struct call call;
    char *name = NULL;
    uint64_t *sizes = NULL;
    struct fix *fixes = NULL;
    bool good = receive(fd, &call, sizeof call);

    if (!good)
        return false;
    name = calloc(1, call.name_size + 1);
    sizes = calloc(call.pieces + 1, sizeof *sizes);
    fixes = calloc(call.fixes + 1, sizeof *fixes);
    good = name != NULL && sizes != NULL && fixes != NULL && receive(fd, name, call.name_size) &&
           receive(fd, sizes, call.pieces * sizeof *sizes) && receive(fd, fixes, call.fixes * sizeof *fixes) &&
           serve_pieces(fd, &call, name, sizes, fixes);
    free(name);
    free(sizes);
    free(fixes);
    return good;
}

static void *serve(void *argument)
{
    int fd = (int)(intptr_t)argument;

    while (serve_call(fd))
        continue;
    close(fd);
    return NULL;
}

/* The next end of a socket, -1 if there is no room for one: its thread is told by the end of it. False when nobody has
 * the other end of descriptor 0. */
static bool take_socket(int *fd)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    char byte;
    struct iovec iov = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t size = recvmsg(0, &message, MSG_CMSG_CLOEXEC);

    *fd = -1;
    if (size > 0 && message.msg_controllen >= CMSG_LEN(sizeof *fd))
        memcpy(fd, CMSG_DATA(&control.head), sizeof *fd);
    return size > 0 || (size < 0 && (errno == EINTR || errno == ENOMEM || errno == ENOBUFS));
}

/* As many threads may have a socket as the system allows. */
static void raise_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int main(int argc, char **argv)
{
    pthread_t thread;
    int fd;

    signal(SIGTERM, SIG_IGN); /* what ends all processes of a service at once ends the one that this one works for */
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    raise_limit();
    if (argc != 2 || (library = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL)) == NULL) {
        fprintf(stderr, "microvmi-caller: %s\n", argc == 2 ? dlerror() : "usage: microvmi-caller LIBRARY");
        return 1;
    }
    while (take_socket(&fd))
        if (fd >= 0 && pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd) == 0)
            pthread_detach(thread);
        else if (fd >= 0)
            close(fd);
    return 0;
}
