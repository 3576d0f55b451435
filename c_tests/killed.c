/* SPDX-License-Identifier: Apache-2.0 */
/*
 * killed URI PID RAM: the machine's process is killed while eight threads read in every way there is. RAM is `private`:
 * within 0.2 s after its end each of them has the error that the machine is gone, and no success after it. `shared`: reads go on, and
 * every write has that error. `paused` is private, paused before, with all pages kept.
 */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "api.h"

#define LARGE (256u << 10)
#define IN_TIME 0.2

static void *vm;
static const char *ram;
static _Atomic double killed_at;
static atomic_int reading;

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static bool read_batch(uint8_t *buffer)
{
    struct microvmi_read_request requests[4] = {
        {.physical_address = 0x1000, .buffer = buffer, .size = 64},
        {.physical_address = 0x3000, .buffer = buffer + 64, .size = 4096},
        {.physical_address = 0x5000, .buffer = buffer + 8192, .size = 8},
        {.physical_address = 0x8000, .buffer = buffer + 16384, .size = 32768},
    };

    return microvmi_read_physical_batch(vm, requests, 4);
}

static bool read_stream(bool padded, uint8_t *buffer)
{
    uint64_t count;

    return padded ? microvmi_padded_seek(vm, 0x2000, SEEK_SET, NULL) && microvmi_padded_read(vm, buffer, 4096, &count)
                  : microvmi_seek(vm, 0x2000, SEEK_SET, NULL) && microvmi_read(vm, buffer, 4096, &count);
}

/* The ways of reading; each thread has one. */
static bool read_by(int way, uint8_t *buffer)
{
    static const size_t sizes[] = {8, 4096, 64u << 10, LARGE};
    uint64_t count;

    if (way < 4) {
        return microvmi_read_physical(vm, 0x1000, buffer, sizes[way], &count);
    }
    if (way == 4) {
        return microvmi_read_physical_padded(vm, 0x1000, buffer, LARGE, &count);
    }
    return way == 5 ? read_batch(buffer) : read_stream(way == 7, buffer);
}

static bool is_gone(const char *what, int way)
{
    CHECK_SAYS(microvmi_last_error_code() == MICROVMI_ERROR_VM_GONE, "%s, way %d: code %d, %s", what, way,
               (int)microvmi_last_error_code(), microvmi_last_error());
    return true;
}

static void check_again(int way, uint8_t *buffer, bool gone)
{
    int i;

    for (i = 0; i < 1000; i++) {
        bool read = read_by(way, buffer);

        CHECK_SAYS(read != gone, "%s, way %d: %s after the end of the process", ram, way, read ? "read" : "failed");
    }
}

static void *read_on(void *number)
{
    int way = (int)(intptr_t)number;
    uint8_t *buffer = malloc(LARGE);
    bool gone = false;
    double end = 0;

    CHECK(buffer != NULL);
    CHECK_SAYS(read_by(way, buffer), "way %d: %s", way, microvmi_last_error());
    atomic_fetch_add(&reading, 1);
    while (!gone && (end == 0 || now() < end)) {
        gone = !read_by(way, buffer) && is_gone("a read", way);
        if (end == 0 && atomic_load(&killed_at) > 0) {
            end = atomic_load(&killed_at) + IN_TIME;
        }
    }
    CHECK_SAYS(gone != (strcmp(ram, "shared") == 0), "%s, way %d: %s", ram, way, gone ? "gone" : "still reads");
    check_again(way, buffer, gone);
    free(buffer);
    return NULL;
}

/* The kernel's word for the end is what the time counts from: on a busy machine a process may take long to die. */
static void kill_while_they_read(pid_t pid)
{
    struct timespec moment = {0, 20000000};
    struct pollfd process = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};

    CHECK(process.fd >= 0);
    while (atomic_load(&reading) < 8) {
        nanosleep(&moment, NULL);
    }
    nanosleep(&moment, NULL);
    CHECK(kill(pid, SIGKILL) == 0);
    CHECK_SAYS(poll(&process, 1, 20000) == 1, "the process does not end");
    atomic_store(&killed_at, now());
    close(process.fd);
}

static void check_writes(void)
{
    uint8_t bytes[16] = {0};
    uint64_t count = 77;

    CHECK(!microvmi_write_physical(vm, 0x1000, bytes, sizeof(bytes)) && is_gone("a write", 0));
    CHECK(microvmi_seek(vm, 0x1000, SEEK_SET, NULL));
    CHECK(!microvmi_write(vm, bytes, sizeof(bytes), &count) && is_gone("a write at the cursor", 0));
    CHECK(count == 0);
    CHECK(!microvmi_pause(vm) && is_gone("a pause", 0));
}

int main(int argc, char **argv)
{
    pthread_t threads[8];
    uint8_t bytes[16];
    int i;

    CHECK_SAYS(argc == 4, "usage: killed URI PID private|shared|paused");
    ram = argv[3];
    vm = open_or_fail(argv[1]);
    CHECK(strcmp(ram, "paused") != 0 || microvmi_pause(vm));
    CHECK(microvmi_read_physical(vm, 0x1000, bytes, sizeof(bytes), NULL));
    CHECK_SAYS(microvmi_write_physical(vm, 0x1000, bytes, sizeof(bytes)), "%s", microvmi_last_error());
    for (i = 0; i < 8; i++) {
        CHECK(pthread_create(&threads[i], NULL, read_on, (void *)(intptr_t)i) == 0);
    }
    kill_while_they_read(atoi(argv[2]));
    for (i = 0; i < 8; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    check_writes();
    microvmi_destroy(vm);
    return 0;
}
