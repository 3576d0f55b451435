/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host may have closed its standard streams. Nothing that the library opens may get their numbers, or the host reads
 * from it and prints to it. While a call that may open something is under way, each of 0 to 2 that is closed is held by
 * a placeholder that refuses reads and writes, as a closed one does; afterwards it is closed again.
 */
#include "boot.h"
#include "internal.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

static pthread_mutex_t mvi_standard_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned mvi_standard_users;   /* calls that want them held */
static unsigned mvi_standard_held;    /* a bit for each number that a placeholder has */
static unsigned mvi_standard_changes; /* atomic; odd while there are users */

static bool mvi_standard_open(void)
{
    return fcntl(STDERR_FILENO, F_GETFD) != -1 && fcntl(STDOUT_FILENO, F_GETFD) != -1 &&
           fcntl(STDIN_FILENO, F_GETFD) != -1;
}

/* Not the root directory where there is something else: Python does not start with a directory for a stream. */
static int mvi_standard_placeholder(void)
{
    int fd = open("/dev/null", O_PATH | O_CLOEXEC);

    return fd >= 0 ? fd : open("/", O_PATH | O_CLOEXEC);
}

/* The lowest free number is what a descriptor gets, so this fills those of the standard streams, and takes no other. */
static void mvi_standard_fill(void)
{
    int fd;

    while (!mvi_standard_open() && (fd = mvi_standard_placeholder()) >= 0) {
        if (fd > STDERR_FILENO) { /* the host has opened one at this moment */
            close(fd);
            continue;
        }
        mvi_standard_held |= 1u << fd;
    }
}

/* Not if the host has put something else there meanwhile. */
static void mvi_standard_drop(int fd)
{
    int flags = (mvi_standard_held & 1u << fd) != 0 ? fcntl(fd, F_GETFL) : -1;

    if (flags != -1 && (flags & O_PATH) != 0)
        close(fd);
}

bool mvi_standard_enter(void)
{
    unsigned before = __atomic_load_n(&mvi_standard_changes, __ATOMIC_SEQ_CST);

    /* Open by the host, and not by a placeholder that another call is about to close. */
    if (before % 2 == 0 && mvi_standard_open() && __atomic_load_n(&mvi_standard_changes, __ATOMIC_SEQ_CST) == before)
        return false;
    pthread_mutex_lock(&mvi_standard_lock);
    if (mvi_standard_users++ == 0)
        __atomic_add_fetch(&mvi_standard_changes, 1, __ATOMIC_SEQ_CST);
    mvi_standard_fill();
    pthread_mutex_unlock(&mvi_standard_lock);
    return true;
}

void mvi_standard_leave(bool entered)
{
    int fd;

    if (!entered)
        return;
    pthread_mutex_lock(&mvi_standard_lock);
    if (--mvi_standard_users == 0) {
        for (fd = 0; fd <= STDERR_FILENO; fd++)
            mvi_standard_drop(fd);
        mvi_standard_held = 0;
        __atomic_add_fetch(&mvi_standard_changes, 1, __ATOMIC_SEQ_CST);
    }
    pthread_mutex_unlock(&mvi_standard_lock);
}

bool mvi_standard_is_held(int fd)
{
    return (mvi_standard_held & 1u << fd) != 0;
}

bool mvi_standard_is_idle(void)
{
    return __atomic_load_n(&mvi_standard_changes, __ATOMIC_SEQ_CST) % 2 == 0;
}
