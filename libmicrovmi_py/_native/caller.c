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
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ARGUMENTS 8
#define IN_ARGUMENTS UINT32_MAX
#define IS_TEXT ((uint64_t)1 << 63)
#define ALIGNED 16u

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

static uint64_t make(const char *name, const uint64_t *a)
{
    typedef uint64_t function(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
    function *called = (function *)dlsym(library, name);

    return called == NULL ? 0 : called(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]);
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
    good = answer(fd, call, make(name, call->arguments), pieces, sizes);
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

/* The next end of a socket; -1 when nobody has the other end of descriptor 0. */
static int take_socket(void)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    char byte;
    struct iovec iov = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    int fd = -1;

    if (recvmsg(0, &message, MSG_CMSG_CLOEXEC) > 0 && message.msg_controllen >= sizeof control.head)
        memcpy(&fd, CMSG_DATA(&control.head), sizeof fd);
    return fd;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    int fd;

    if (argc != 2 || (library = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL)) == NULL) {
        fprintf(stderr, "microvmi-caller: %s\n", argc == 2 ? dlerror() : "usage: microvmi-caller LIBRARY");
        return 1;
    }
    while ((fd = take_socket()) >= 0)
        if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd) == 0)
            pthread_detach(thread);
        else
            close(fd);
    return 0;
}
