/* SPDX-License-Identifier: Apache-2.0 */
/* The limits: what the operating system and the C library need for the same read, with nothing around it. */
#define _GNU_SOURCE
#include "bench.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>

/* The least that a read of a word can be: one load and one store. What is asked for is not looked at. */
bool limit_load(void *limit, uint64_t address, uint8_t *buffer, size_t size, uint64_t *done)
{
    memcpy(buffer, ((struct limit *)limit)->bytes + address, 8);
    (void)size;
    *done = 8;
    return true;
}

bool limit_memcpy(void *limit, uint64_t address, uint8_t *buffer, size_t size, uint64_t *done)
{
    memcpy(buffer, ((struct limit *)limit)->bytes + address, size);
    *done = size;
    return true;
}

bool limit_pread(void *limit, uint64_t address, uint8_t *buffer, size_t size, uint64_t *done)
{
    const struct limit *from = limit;
    ssize_t count = pread(from->fd, buffer, size, (off_t)(from->base + address));

    *done = count > 0 ? (uint64_t)count : 0;
    return count == (ssize_t)size;
}

bool limit_readv(void *limit, uint64_t address, uint8_t *buffer, size_t size, uint64_t *done)
{
    const struct limit *from = limit;
    struct iovec local = {buffer, size}, remote = {(void *)(uintptr_t)(from->base + address), size};
    ssize_t count = process_vm_readv(from->pid, &local, 1, &remote, 1, 0);

    *done = count > 0 ? (uint64_t)count : 0;
    return count == (ssize_t)size;
}

bool limit_readv_batch(void *limit, struct microvmi_read_request *requests, size_t count)
{
    const struct limit *from = limit;
    struct iovec local[SCATTERED], remote[SCATTERED];
    size_t i, size = 0;

    for (i = 0; i < count; i++) {
        local[i] = (struct iovec){requests[i].buffer, requests[i].size};
        remote[i] = (struct iovec){(void *)(uintptr_t)(from->base + requests[i].physical_address), requests[i].size};
        size += requests[i].size;
    }
    return process_vm_readv(from->pid, local, count, remote, count, 0) == (ssize_t)size;
}

struct limit limit_map(const char *path, uint64_t size)
{
    struct limit limit = limit_open(path);
    void *bytes = mmap(NULL, size, PROT_READ, MAP_SHARED, limit.fd, 0);

    CHECK_SAYS(bytes != MAP_FAILED, "cannot map %s: %s", path, strerror(errno));
    limit.bytes = bytes;
    return limit;
}

struct limit limit_open(const char *path)
{
    struct limit limit = {.fd = open(path, O_RDONLY | O_CLOEXEC)};

    CHECK_SAYS(limit.fd >= 0, "cannot open %s: %s", path, strerror(errno));
    return limit;
}

struct limit limit_process(const char *pid, const char *base)
{
    char path[64];
    struct limit limit;

    snprintf(path, sizeof(path), "/proc/%s/mem", pid);
    limit = limit_open(path);
    limit.pid = atoi(pid);
    limit.base = strtoull(base, NULL, 0);
    return limit;
}
