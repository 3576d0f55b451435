/* SPDX-License-Identifier: Apache-2.0 */
/* Accesses to another process's memory; see process.h. */
#include "process.h"

#include "look.h"

#include <errno.h>
#include <sys/uio.h>

/* From here on process_vm_readv() is cheaper than pread() on /proc/PID/mem: measured, see docs/design.md. */
#define MVI_READV_FROM (16u << 10)

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

/* What a system call that moved no byte means: a process without memory ended, a file became shorter. */
static int32_t mvi_nothing(const struct mvi_region *region, ssize_t count)
{
    if (count < 0)
        return mvi_errno_code(errno);
    return region->pid != 0 ? MICROVMI_ERROR_VM_GONE : MICROVMI_ERROR_IO;
}

int32_t mvi_process_pread(const struct mvi_region *region, uint64_t offset, uint8_t *buffer, size_t size, size_t *done)
{
    ssize_t count;

    while (*done < size) {
        count = mvi_pread(region->fd, buffer + *done, size - *done, region->offset + offset + *done);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return mvi_nothing(region, count);
        *done += (size_t)count;
    }
    return MICROVMI_OK;
}

int32_t mvi_process_read(const struct mvi_region *region, uint64_t offset, uint8_t *buffer, size_t size, size_t *done)
{
    struct iovec local, remote;
    ssize_t count;

    while (region->pid != 0 && !region->arriving && size - *done >= MVI_READV_FROM) {
        local = (struct iovec){buffer + *done, size - *done};
        remote = (struct iovec){(void *)(uintptr_t)(region->offset + offset + *done), size - *done};
        count = process_vm_readv(region->pid, &local, 1, &remote, 1, 0);
        if (count <= 0)
            break;
        *done += (size_t)count;
    }
    return mvi_process_pread(region, offset, buffer, size, done);
}

int32_t mvi_process_write(const struct mvi_region *region, uint64_t offset, const uint8_t *data, size_t size,
                          size_t *done)
{
    ssize_t count;

    while (*done < size) {
        count = mvi_pwrite(region->write_fd, data + *done, size - *done, region->offset + offset + *done);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return mvi_nothing(region, count);
        *done += (size_t)count;
    }
    return MICROVMI_OK;
}
