/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls of libvirt's library with a time limit.
 *
 * A connection has a thread, which alone calls the library: it takes an order, carries it out and says so, all under the
 * lock but for the call itself. What the call needs and what it leaves belongs to the connection, not to the caller. So
 * a caller may go at any time: the last of the two, the caller and the thread, frees everything.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "thread.h"

#include "libvirt.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Of the thread's stack: the library parses and packs on it. */
#define MVI_LIBVIRT_STACK (1u << 20)

typedef void *mvi_libvirt_connect(const char *uri);
typedef void *mvi_libvirt_look_up(void *connection, const char *uuid);
typedef int mvi_libvirt_plain(void *object);
typedef int mvi_libvirt_command(void *domain, const char *text, char **answer, unsigned flags);
typedef int mvi_libvirt_hand_over(void *domain, const char *text, unsigned given, int *given_fds, unsigned *returned,
                                  int **returned_fds, char **answer, unsigned flags);
typedef int mvi_libvirt_state(void *domain, int *state, int *reason, unsigned flags);
typedef int mvi_libvirt_error_number(void);
typedef const char *mvi_libvirt_error_text(void);
typedef void mvi_libvirt_handler(void *data, void *error);
typedef void mvi_libvirt_default(void *error);
typedef void mvi_libvirt_set_handler(void *data, mvi_libvirt_handler *handler);
typedef void mvi_libvirt_set_its_handler(void *connection, void *data, mvi_libvirt_handler *handler);

enum mvi_libvirt_phase {
    MVI_LIBVIRT_IDLE,
    MVI_LIBVIRT_ORDERED,
    MVI_LIBVIRT_TAKEN, /* the thread is at it */
    MVI_LIBVIRT_DONE,
    MVI_LIBVIRT_OVER, /* the thread has hung up */
};

struct mvi_libvirt {
    struct mvi_libvirt_functions call;
    char *uri, *uuid;
    void *connection, *domain; /* the thread's */

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum mvi_libvirt_phase phase;
    bool ended;  /* the caller wants no more */
    bool left;   /* and did not wait for what is under way */
    pid_t owner; /* the process, of whose child after a fork() the thread is none */
    struct mvi_libvirt *next_left;

    uint32_t order;
    char *question;
    int fd;
    int32_t result;
    char *text;
    int64_t number;
};

static pthread_mutex_t mvi_libvirt_left_lock = PTHREAD_MUTEX_INITIALIZER;
static struct mvi_libvirt *mvi_libvirt_all_left;
static mvi_libvirt_default *mvi_libvirt_usual;

/* ------------------------------------------------------------------------------------------------ errors --------- */

static void mvi_libvirt_handle(void *data, void *error)
{
    (void)data;
    if (!mvi_thread.hushed)
        mvi_libvirt_usual(error);
}

static void mvi_libvirt_ignore(void *data, void *error)
{
    (void)data;
    (void)error;
}

void mvi_libvirt_hush(uint64_t set_handler, uint64_t usual_handler)
{
    mvi_libvirt_usual = (mvi_libvirt_default *)(uintptr_t)usual_handler;
    ((mvi_libvirt_set_handler *)(uintptr_t)set_handler)(NULL, mvi_libvirt_handle);
}

static int64_t mvi_libvirt_pair(int low, int high)
{
    return (int64_t)(uint32_t)high << 32 | (uint32_t)low;
}

/* The library keeps its last error by threads. */
static int32_t mvi_libvirt_failed(struct mvi_libvirt *libvirt)
{
    const char *text = ((mvi_libvirt_error_text *)(uintptr_t)libvirt->call.error_text)();
    int number = ((mvi_libvirt_error_number *)(uintptr_t)libvirt->call.error_number)();
    int part = ((mvi_libvirt_error_number *)(uintptr_t)libvirt->call.error_domain)();

    free(libvirt->text);
    libvirt->text = strdup(text != NULL ? text : "");
    libvirt->number = mvi_libvirt_pair(number, part);
    return EREMOTEIO;
}

/* ------------------------------------------------------------------------------------------------ the thread ----- */

static int32_t mvi_libvirt_open(struct mvi_libvirt *libvirt)
{
    libvirt->connection = ((mvi_libvirt_connect *)(uintptr_t)libvirt->call.connect)(libvirt->uri);
    if (libvirt->connection == NULL)
        return mvi_libvirt_failed(libvirt);
    ((mvi_libvirt_set_its_handler *)(uintptr_t)libvirt->call.set_handler)(libvirt->connection, NULL,
                                                                          mvi_libvirt_ignore);
    libvirt->domain = ((mvi_libvirt_look_up *)(uintptr_t)libvirt->call.look_up)(libvirt->connection, libvirt->uuid);
    return libvirt->domain != NULL ? 0 : mvi_libvirt_failed(libvirt);
}

static int32_t mvi_libvirt_ask(struct mvi_libvirt *libvirt)
{
    const struct mvi_libvirt_functions *call = &libvirt->call;
    unsigned returned = 0, index;
    int *descriptors = NULL, code;

    if (libvirt->fd < 0) {
        code = ((mvi_libvirt_command *)(uintptr_t)call->command)(libvirt->domain, libvirt->question, &libvirt->text, 0);
    } else {
        code = ((mvi_libvirt_hand_over *)(uintptr_t)call->hand_over)(
            libvirt->domain, libvirt->question, 1, &libvirt->fd, &returned, &descriptors, &libvirt->text, 0);
        for (index = 0; descriptors != NULL && index < returned; index++)
            close(descriptors[index]); /* none of our commands returns any */
        free(descriptors);
    }
    return code >= 0 ? 0 : mvi_libvirt_failed(libvirt);
}

static int32_t mvi_libvirt_tell_state(struct mvi_libvirt *libvirt)
{
    int state = 0, reason = 0;

    if (((mvi_libvirt_state *)(uintptr_t)libvirt->call.state)(libvirt->domain, &state, &reason, 0) < 0)
        return mvi_libvirt_failed(libvirt);
    libvirt->number = mvi_libvirt_pair(state, reason);
    return 0;
}

static int32_t mvi_libvirt_carry_out(struct mvi_libvirt *libvirt)
{
    uint64_t function = libvirt->order == MVI_LIBVIRT_SUSPEND ? libvirt->call.suspend : libvirt->call.resume;

    switch (libvirt->order) {
    case MVI_LIBVIRT_OPEN:
        return mvi_libvirt_open(libvirt);
    case MVI_LIBVIRT_COMMAND:
        return mvi_libvirt_ask(libvirt);
    case MVI_LIBVIRT_STATE:
        return mvi_libvirt_tell_state(libvirt);
    default:
        return ((mvi_libvirt_plain *)(uintptr_t)function)(libvirt->domain) >= 0 ? 0 : mvi_libvirt_failed(libvirt);
    }
}

static void mvi_libvirt_hang_up(struct mvi_libvirt *libvirt)
{
    if (libvirt->domain != NULL)
        (void)((mvi_libvirt_plain *)(uintptr_t)libvirt->call.forget)(libvirt->domain);
    if (libvirt->connection != NULL)
        (void)((mvi_libvirt_plain *)(uintptr_t)libvirt->call.disconnect)(libvirt->connection);
}

static void mvi_libvirt_forget_order(struct mvi_libvirt *libvirt)
{
    if (libvirt->fd >= 0)
        close(libvirt->fd);
    libvirt->fd = -1;
    free(libvirt->question);
    free(libvirt->text);
    libvirt->question = libvirt->text = NULL;
}

static void mvi_libvirt_destroy(struct mvi_libvirt *libvirt)
{
    mvi_libvirt_forget_order(libvirt);
    pthread_cond_destroy(&libvirt->changed);
    pthread_mutex_destroy(&libvirt->lock);
    free(libvirt->uri);
    free(libvirt->uuid);
    free(libvirt);
}

/* It is left, or is not any more. */
static void mvi_libvirt_count(struct mvi_libvirt *libvirt, bool left)
{
    struct mvi_libvirt **link = &mvi_libvirt_all_left;

    pthread_mutex_lock(&mvi_libvirt_left_lock);
    while (*link != NULL && *link != libvirt)
        link = &(*link)->next_left;
    *link = left ? libvirt : libvirt->next_left; /* a new one is the last, and has no next */
    pthread_mutex_unlock(&mvi_libvirt_left_lock);
}

static void mvi_libvirt_serve(struct mvi_libvirt *libvirt)
{
    int32_t result;

    while (!libvirt->ended) {
        if (libvirt->phase != MVI_LIBVIRT_ORDERED) {
            pthread_cond_wait(&libvirt->changed, &libvirt->lock);
            continue;
        }
        libvirt->phase = MVI_LIBVIRT_TAKEN;
        pthread_mutex_unlock(&libvirt->lock);
        result = mvi_libvirt_carry_out(libvirt);
        pthread_mutex_lock(&libvirt->lock);
        libvirt->result = result;
        libvirt->phase = MVI_LIBVIRT_DONE;
        pthread_cond_broadcast(&libvirt->changed);
    }
}

static void *mvi_libvirt_thread(void *argument)
{
    struct mvi_libvirt *libvirt = argument;
    bool left;

    mvi_thread.hushed = true;
    pthread_mutex_lock(&libvirt->lock);
    mvi_libvirt_serve(libvirt);
    pthread_mutex_unlock(&libvirt->lock);
    mvi_libvirt_hang_up(libvirt);
    pthread_mutex_lock(&libvirt->lock);
    libvirt->phase = MVI_LIBVIRT_OVER;
    left = libvirt->left;
    pthread_cond_broadcast(&libvirt->changed);
    pthread_mutex_unlock(&libvirt->lock);
    if (left) {
        mvi_libvirt_count(libvirt, false);
        mvi_libvirt_destroy(libvirt);
    }
    return NULL;
}

static int mvi_libvirt_start(struct mvi_libvirt *libvirt)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    int failed = pthread_attr_init(&attributes);

    if (failed != 0)
        return failed;
    sigfillset(&all); /* the thread has what its maker has: the host's signals are none of its business */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_attr_setstacksize(&attributes, MVI_LIBVIRT_STACK);
    if (failed == 0)
        failed = pthread_create(&libvirt->thread, &attributes, mvi_libvirt_thread, libvirt);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return failed;
}

/* ------------------------------------------------------------------------------------------------ the caller ----- */

struct mvi_libvirt *mvi_libvirt_new(const struct mvi_libvirt_functions *functions, const char *uri, const char *uuid)
{
    struct mvi_libvirt *libvirt = calloc(1, sizeof *libvirt);
    pthread_condattr_t attributes;

    if (libvirt == NULL)
        return NULL;
    libvirt->call = *functions;
    libvirt->fd = -1;
    libvirt->owner = getpid();
    pthread_mutex_init(&libvirt->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&libvirt->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    libvirt->uri = strdup(uri);
    libvirt->uuid = strdup(uuid);
    if (libvirt->uri != NULL && libvirt->uuid != NULL && mvi_libvirt_start(libvirt) == 0)
        return libvirt;
    mvi_libvirt_destroy(libvirt);
    return NULL;
}

static struct timespec mvi_libvirt_end(int64_t limit)
{
    struct timespec end;

    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += limit / 1000000000;
    end.tv_nsec += limit % 1000000000;
    if (end.tv_nsec >= 1000000000) {
        end.tv_sec++;
        end.tv_nsec -= 1000000000;
    }
    return end;
}

/* Of who has the lock: wait until it comes so far; false if the time is over before. */
static bool mvi_libvirt_await(struct mvi_libvirt *libvirt, enum mvi_libvirt_phase phase, int64_t limit)
{
    struct timespec end = mvi_libvirt_end(limit);

    while (libvirt->phase != phase)
        if (pthread_cond_timedwait(&libvirt->changed, &libvirt->lock, &end) == ETIMEDOUT)
            return libvirt->phase == phase;
    return true;
}

static int32_t mvi_libvirt_put(struct mvi_libvirt *libvirt, uint32_t order, const char *text, int32_t fd)
{
    mvi_libvirt_forget_order(libvirt);
    libvirt->number = 0;
    libvirt->order = order;
    libvirt->question = strdup(text);
    if (libvirt->question == NULL)
        return ENOMEM;
    if (fd >= 0 && (libvirt->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3)) < 0)
        return errno;
    libvirt->phase = MVI_LIBVIRT_ORDERED;
    pthread_cond_broadcast(&libvirt->changed);
    return 0;
}

int32_t mvi_libvirt_do(struct mvi_libvirt *libvirt, uint32_t order, const char *text, int32_t fd, int64_t limit)
{
    int32_t result = ETIMEDOUT;

    pthread_mutex_lock(&libvirt->lock);
    if (limit > 0 && libvirt->phase != MVI_LIBVIRT_TAKEN) /* or a call is under way still that nobody waited for */
        result = mvi_libvirt_put(libvirt, order, text, fd);
    if (result == 0)
        result = mvi_libvirt_await(libvirt, MVI_LIBVIRT_DONE, limit) ? libvirt->result : ETIMEDOUT;
    if (libvirt->phase == MVI_LIBVIRT_ORDERED) /* the thread had no turn: what its caller took for failed is not done */
        libvirt->phase = MVI_LIBVIRT_IDLE;
    pthread_mutex_unlock(&libvirt->lock);
    return result;
}

const char *mvi_libvirt_text(const struct mvi_libvirt *libvirt)
{
    return libvirt->text != NULL ? libvirt->text : "";
}

int64_t mvi_libvirt_number(const struct mvi_libvirt *libvirt)
{
    return libvirt->number;
}

void mvi_libvirt_free(struct mvi_libvirt *libvirt, int64_t limit)
{
    bool over;

    pthread_mutex_lock(&libvirt->lock);
    libvirt->ended = true;
    pthread_cond_broadcast(&libvirt->changed);
    over = mvi_libvirt_await(libvirt, MVI_LIBVIRT_OVER, limit);
    libvirt->left = !over;
    if (!over) {
        mvi_libvirt_count(libvirt, true);
        pthread_detach(libvirt->thread);
    }
    pthread_mutex_unlock(&libvirt->lock);
    if (over) {
        pthread_join(libvirt->thread, NULL);
        mvi_libvirt_destroy(libvirt);
    }
}

uint32_t mvi_libvirt_left(const char *uri)
{
    const struct mvi_libvirt *libvirt;
    uint32_t count = 0;

    pthread_mutex_lock(&mvi_libvirt_left_lock);
    for (libvirt = mvi_libvirt_all_left; libvirt != NULL; libvirt = libvirt->next_left)
        count += libvirt->owner == getpid() && strcmp(libvirt->uri, uri) == 0;
    pthread_mutex_unlock(&mvi_libvirt_left_lock);
    return count;
}
