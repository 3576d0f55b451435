/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of another process: two system calls, each where it is the cheaper one. */
#ifndef MVI_PROCESS_H
#define MVI_PROCESS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "direct.h"

#include <errno.h>
#include <poll.h>
#include <sys/uio.h>
#include <unistd.h>

/* From here on process_vm_readv() is cheaper than pread() on /proc/PID/mem: measured, see docs/design.md. */
#define MVI_READV_FROM (16u << 10)

static bool mvi_has_ended(const struct mvi_region *region)
{
    struct pollfd ended = {.fd = region->pidfd, .events = POLLIN};
    uint8_t byte;

    if (region->pidfd >= 0)
        return poll(&ended, 1, 0) > 0;
    return pread(region->fd, &byte, 1, (off_t)region->offset) == 0;
}

static int32_t mvi_errno_code(int error)
{
    switch (error) {
    case EIO:
    case EFAULT:
        return MICROVMI_ERROR_IO;
    case EPERM:
    case EACCES:
    case EBADF: /* no descriptor: the process may not be looked into */
        return MICROVMI_ERROR_PERMISSION;
    case ESRCH:
        return MICROVMI_ERROR_VM_GONE;
    default:
        return MICROVMI_ERROR_IO;
    }
}

/* /proc/PID/mem: cheap for little, and the descriptor belongs to the process for good. 0 bytes mean that it ended. */
static int32_t mvi_process_pread(const struct mvi_region *region, uint64_t offset, uint8_t *buffer, size_t size,
                                 size_t *done)
{
    ssize_t count;

    while (*done < size) {
        count = pread(region->fd, buffer + *done, size - *done, (off_t)(region->offset + offset + *done));
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return mvi_errno_code(errno);
        if (count == 0)
            return MICROVMI_ERROR_VM_GONE;
        *done += (size_t)count;
    }
    return MICROVMI_OK;
}

static int32_t mvi_process_read(const struct mvi_region *region, uint64_t offset, uint8_t *buffer, size_t size,
                                size_t *done)
{
    struct iovec local, remote;
    ssize_t count;

    while (size - *done >= MVI_READV_FROM) {
        local = (struct iovec){buffer + *done, size - *done};
        remote = (struct iovec){(void *)(uintptr_t)(region->offset + offset + *done), size - *done};
        count = process_vm_readv(region->pid, &local, 1, &remote, 1, 0);
        if (count <= 0)
            break;
        if (mvi_has_ended(region)) /* then the number may be another process's by now */
            return MICROVMI_ERROR_VM_GONE;
        *done += (size_t)count;
    }
    return mvi_process_pread(region, offset, buffer, size, done);
}

static int32_t mvi_process_write(const struct mvi_region *region, uint64_t offset, const uint8_t *data, size_t size,
                                 size_t *done)
{
    ssize_t count;

    while (*done < size) {
        count = pwrite(region->write_fd, data + *done, size - *done, (off_t)(region->offset + offset + *done));
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return mvi_errno_code(errno);
        if (count == 0)
            return MICROVMI_ERROR_VM_GONE;
        *done += (size_t)count;
    }
    return MICROVMI_OK;
}

#endif
