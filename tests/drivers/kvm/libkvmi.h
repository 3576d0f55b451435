/* SPDX-License-Identifier: Apache-2.0 */
/* What the two parts of the tests' libkvmi share; see libkvmi.c. */
#ifndef STAND_IN_LIBKVMI_H
#define STAND_IN_LIBKVMI_H
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    ID_REPLY = 0, ID_EVENT = 1, ID_VERSION = 2, ID_GUEST = 5, ID_PAUSE = 7, ID_EVENTS = 9, ID_CR = 10, ID_MSR = 11,
    ID_GET_REGISTERS = 13, ID_SET_REGISTERS = 14, ID_READ = 17, ID_WRITE = 18, ID_ACCESS = 21, ID_RESPONSES = 27,
    ID_MAX_GFN = 29, ID_SINGLESTEP = 63,
};
#ifndef LIMIT_MS
#define LIMIT_MS 15000
#endif
enum { REGS = 144, SREGS = 312, COMMON = 544, DETAIL = 24, LARGEST = 8184 };

struct header { uint16_t id, size; uint32_t seq; };
struct greeting { uint32_t size; unsigned char uuid[16]; uint32_t pad; int64_t start; char name[64]; };
struct vcpu { uint16_t vcpu, pad1; uint32_t pad2; };
struct msr { uint32_t index, reserved; uint64_t data; };
struct msrs { uint32_t count, pad; struct msr entries[]; };

struct event {
    struct event *next;
    unsigned char common[COMMON], detail[DETAIL];
    unsigned char message[LARGEST];
    uint32_t seq;
};

struct dom {
    int fd;
    bool gone;
    pthread_mutex_t lock, queue;
    struct event *first, **last;
    struct greeting peer;
};

typedef int (*guest_fn)(void *dom, unsigned char (*uuid)[16], void *context);
typedef int (*handshake_fn)(const void *peer, void *answer, void *context);

struct listener {
    int fd, wake[2];
    pthread_t thread;
    guest_fn accept;
    handshake_fn handshake;
    void *context;
};

#pragma GCC visibility push(hidden)

/* 0, or -1 with errno; `size` bytes exactly, within the limit. */
int receive(struct dom *dom, void *buffer, size_t size);
int skip(struct dom *dom, size_t size);

/* One request and its reply: its data go into `wanted` bytes of `reply`, the rest of which is zeroed. */
int ask(struct dom *dom, uint16_t id, const void *head, size_t head_size, const void *data, size_t size, void *reply,
        size_t wanted);

#pragma GCC visibility pop

static inline int fail(int error)
{
    errno = error;
    return -1;
}

#endif
