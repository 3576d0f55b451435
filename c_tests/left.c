/* SPDX-License-Identifier: Apache-2.0 */
/*
 * left MODE ARGUMENT: threads that leave the library in the middle of a call. Nothing may wait for ever.
 *   jump IMAGE     a signal handler leaves reads of a file that was cut by siglongjmp(), and the same thread destroys
 *   cancel URI     threads are cancelled while they read, at an address and at the cursors; then the machine is destroyed
 *   late MACHINE   a destructor of the host's reads words after the library's part of the thread has gone, while
 *                  another thread reads and a third one destroys
 *   many IMAGE     thousands of threads read and end: nothing is kept of them
 *   seek IMAGE     threads move one cursor from where it is: no step is lost
 *   fence IMAGE    before a destroyed context's memory goes every thread passes a fence
 *   stuck URI PID  a read does not end: a destroy goes on after some seconds, and the read ends when PID does
 */
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

#include "api.h"

#ifndef ALARM_SECONDS
#define ALARM_SECONDS 60
#endif

#define SIZE (4u << 20)

static void *vm;
static uint8_t *buffers[8];

static void start(pthread_t *thread, void *(*function)(void *), void *argument)
{
    CHECK(pthread_create(thread, NULL, function, argument) == 0);
}

static void pass(long milliseconds)
{
    struct timespec moment = {milliseconds / 1000, milliseconds % 1000 * 1000000};

    nanosleep(&moment, NULL);
}

/* ------------------------------------------------------------------------------------------------ jumps --------- */

static sigjmp_buf back;

static void jump(int number)
{
    siglongjmp(back, number);
}

static void jump_out_of_reads(const char *image)
{
    struct sigaction action = {.sa_handler = jump};
    uint8_t *bytes = malloc(SIZE);
    struct timespec begin, end;
    uint64_t word, count;
    volatile int jumped = 0;

    CHECK(bytes != NULL);
    sigaction(SIGBUS, &action, NULL);
    CHECK(microvmi_read_physical(vm, 0, bytes, SIZE, &count)); /* now all of it is known to be there */
    CHECK(truncate(image, 4096) == 0);
    if (sigsetjmp(back, 1) == 0) {
        (void)microvmi_read_physical(vm, SIZE / 2, (uint8_t *)&word, 8, &count);
    } else {
        jumped++;
    }
    CHECK(microvmi_seek(vm, SIZE / 2, SEEK_SET, NULL));
    if (sigsetjmp(back, 1) == 0) {
        (void)microvmi_read(vm, bytes, 4096, &count);
    } else {
        jumped++;
    }
    CHECK_SAYS(jumped == 2, "%d reads were left: the file is not mapped?", jumped);
    CHECK(microvmi_read_physical(vm, 0, bytes, 4096, &count));
    CHECK(microvmi_seek(vm, 0, SEEK_SET, NULL) && microvmi_read(vm, bytes, 4096, &count) && count == 4096);
    if (sigsetjmp(back, 1) == 0) { /* what is left last is still under way when the context is destroyed */
        (void)microvmi_read_physical(vm, SIZE / 2, bytes, 100, &count);
    }
    clock_gettime(CLOCK_MONOTONIC, &begin);
    microvmi_destroy(vm);
    clock_gettime(CLOCK_MONOTONIC, &end);
    CHECK_SAYS(end.tv_sec - begin.tv_sec < 4, "the destroy waited for its own thread");
    free(bytes);
}

/* ------------------------------------------------------------------------------------------------ cancelled ------ */

static void *read_for_ever(void *number)
{
    int way = (int)(intptr_t)number;
    uint64_t count;

    for (;;) {
        bool read = way % 4 == 0   ? microvmi_read_physical(vm, 0x1000, buffers[way], 8, &count)
                    : way % 4 == 1 ? microvmi_read_physical(vm, 0, buffers[way], 64u << 10, &count)
                    : way % 4 == 2
                        ? microvmi_seek(vm, 0, SEEK_SET, NULL) && microvmi_read(vm, buffers[way], 4096, &count)
                        : microvmi_padded_seek(vm, 0, SEEK_SET, NULL) &&
                              microvmi_padded_read(vm, buffers[way], 64u << 10, &count);

        CHECK_SAYS(read, "way %d: %s", way, microvmi_last_error());
        pthread_testcancel();
    }
    return NULL;
}

static void cancel_readers(void)
{
    pthread_t threads[8];
    void *result;
    int round, i;

    for (round = 0; round < 25; round++) {
        for (i = 0; i < 8; i++) {
            start(&threads[i], read_for_ever, (void *)(intptr_t)i);
        }
        pass(5);
        for (i = 0; i < 8; i++) {
            CHECK(pthread_cancel(threads[i]) == 0);
        }
        for (i = 0; i < 8; i++) {
            CHECK(pthread_join(threads[i], &result) == 0 && result == PTHREAD_CANCELED);
        }
        CHECK(microvmi_read(vm, buffers[0], 16, NULL) && microvmi_padded_read(vm, buffers[0], 16, NULL));
    }
    microvmi_destroy(vm);
}

/* ------------------------------------------------------------------------------------------------ late ----------- */

static pthread_key_t late_key;
static atomic_bool ended, late, busy;
static uint64_t there; /* bytes from address 0 on, SIZE at the most */

static void read_words(void *unused)
{
    uint64_t word;

    (void)unused;
    atomic_store(&late, true);
    while (!atomic_load(&ended)) {
        (void)microvmi_read_physical(vm, 0x1000, (uint8_t *)&word, 8, NULL);
    }
}

static void *become_late(void *unused)
{
    uint64_t word;

    CHECK(microvmi_read_physical(vm, 0x1000, (uint8_t *)&word, 8, NULL));
    CHECK(pthread_setspecific(late_key, &late_key) == 0);
    return unused;
}

static void *read_much(void *unused)
{
    while (!atomic_load(&ended)) {
        if (!microvmi_read_physical(vm, 0, buffers[0], there, NULL)) {
            CHECK(microvmi_last_error_code() == MICROVMI_ERROR_INVALID_CONTEXT);
        } else {
            atomic_store(&busy, true);
        }
    }
    return unused;
}

/* Destructors run in the order of their keys: the library's come first. */
static void read_after_the_end(const char *image)
{
    pthread_t ending, other;
    uint64_t word;
    int round;

    (void)microvmi_read_physical(vm, 0, buffers[0], SIZE, &there);
    CHECK(there >= 0x1000 + sizeof word);
    CHECK(microvmi_read_physical(vm, 0, (uint8_t *)&word, 8, NULL));
    CHECK(pthread_key_create(&late_key, read_words) == 0);
    for (round = 0; round < 40; round++) {
        atomic_store(&ended, false);
        atomic_store(&late, false);
        atomic_store(&busy, false);
        start(&ending, become_late, NULL);
        while (!atomic_load(&late)) {
            pass(1);
        }
        start(&other, read_much, NULL);
        while (!atomic_load(&busy)) {
            pass(1);
        }
        microvmi_destroy(vm);
        atomic_store(&ended, true);
        CHECK(pthread_join(ending, NULL) == 0 && pthread_join(other, NULL) == 0);
        vm = open_or_fail(image);
        CHECK(microvmi_read_physical(vm, 0, (uint8_t *)&word, 8, NULL));
    }
    microvmi_destroy(vm);
}

/* ------------------------------------------------------------------------------------------------ many ----------- */

static void *read_and_end(void *unused)
{
    uint64_t word;

    CHECK(microvmi_read_physical(vm, 0x1000, (uint8_t *)&word, 8, NULL));
    return unused;
}

static size_t kept_after(int threads)
{
    pthread_t thread;

    for (; threads > 0; threads--) {
        start(&thread, read_and_end, NULL);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    return mallinfo2().uordblks;
}

static void end_many_threads(void)
{
    size_t before = kept_after(100), after = kept_after(5000);

    CHECK_SAYS(after < before + 20000, "%zu bytes are kept of 5000 threads", after - before);
    microvmi_destroy(vm);
}

/* ------------------------------------------------------------------------------------------------ seeks ---------- */

#define STEPS 300000

static void *step(void *unused)
{
    int i;

    for (i = 0; i < STEPS; i++) {
        CHECK(microvmi_seek(vm, 1, SEEK_CUR, NULL));
    }
    return unused;
}

static void move_one_cursor(void)
{
    pthread_t threads[3];
    uint64_t position = 0;
    int i;

    for (i = 0; i < 3; i++) {
        start(&threads[i], step, NULL);
    }
    for (i = 0; i < 3; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    CHECK(microvmi_tell(vm, &position));
    CHECK_SAYS(position == 3 * STEPS, "%d steps, and the cursor is at %" PRIu64, 3 * STEPS, position);
    microvmi_destroy(vm);
}

/* ------------------------------------------------------------------------------------------------ fences --------- */

static atomic_int fences;

static void count_fence(int number)
{
    (void)number;
    atomic_fetch_add(&fences, 1);
}

static void trap_membarrier(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof(filter) / sizeof(*filter), filter};
    struct sigaction action = {.sa_handler = count_fence};

    sigaction(SIGSYS, &action, NULL);
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

static void count_fences(void)
{
    uint64_t word;

    CHECK(microvmi_read_physical(vm, 0, (uint8_t *)&word, 8, NULL));
    trap_membarrier();
    microvmi_destroy(vm);
    CHECK_SAYS(atomic_load(&fences) > 0, "destroyed without a fence");
}

/* ------------------------------------------------------------------------------------------------ stuck ---------- */

static atomic_bool over;

static void *read_what_never_comes(void *unused)
{
    uint64_t count = 77;

    /* A process that is killed stops withholding its memory a moment before it has ended: either may come first. */
    if (microvmi_read_physical(vm, 0, buffers[0], 64u << 10, &count)) {
        CHECK(count == 64u << 10);
    } else {
        CHECK_SAYS(microvmi_last_error_code() == MICROVMI_ERROR_VM_GONE, "%s", microvmi_last_error());
        CHECK(count == 0);
    }
    atomic_store(&over, true);
    return unused;
}

static void destroy_under_a_stuck_read(pid_t pid)
{
    time_t begin = time(NULL);
    pthread_t thread;

    start(&thread, read_what_never_comes, NULL);
    pass(100);
    microvmi_destroy(vm);
    CHECK(microvmi_last_error_code() == MICROVMI_OK);
    CHECK_SAYS(!atomic_load(&over), "the read ended: it was not stuck");
    CHECK(time(NULL) - begin < 20);
    CHECK(!microvmi_read_physical(vm, 0, buffers[1], 8, NULL));
    CHECK(microvmi_last_error_code() == MICROVMI_ERROR_INVALID_CONTEXT);
    CHECK(kill(pid, SIGKILL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    microvmi_destroy(open_or_fail(FAKE)); /* what was left to the read can go now */
}

int main(int argc, char **argv)
{
    const char *mode = argc >= 3 ? argv[1] : "";
    int i;

    alarm(ALARM_SECONDS); /* what waits for ever ends here, by a signal */
    CHECK_SAYS(argc >= 3, "usage: left MODE ARGUMENT");
    vm = open_or_fail(argv[2]);
    for (i = 0; i < 8; i++) {
        CHECK((buffers[i] = malloc(i == 0 ? SIZE : 64u << 10)) != NULL);
    }
    if (strcmp(mode, "jump") == 0) {
        jump_out_of_reads(argv[2]);
    } else if (strcmp(mode, "cancel") == 0) {
        cancel_readers();
    } else if (strcmp(mode, "late") == 0) {
        read_after_the_end(argv[2]);
    } else if (strcmp(mode, "many") == 0) {
        end_many_threads();
    } else if (strcmp(mode, "seek") == 0) {
        move_one_cursor();
    } else if (strcmp(mode, "fence") == 0) {
        count_fences();
    } else if (strcmp(mode, "stuck") == 0 && argc == 4) {
        destroy_under_a_stuck_read(atoi(argv[3]));
    } else {
        FAIL("left: no mode %s", mode);
    }
    for (i = 0; i < 8; i++) {
        free(buffers[i]);
    }
    return 0;
}
