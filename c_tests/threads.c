/* SPDX-License-Identifier: Apache-2.0 */
/*
 * threads MODE [STACK]: which threads the library is used from.
 *   ended         the first call comes from a thread that then ends
 *   small STACK   every call comes from a thread with that many KiB of stack
 *   fiber STACK   the same on a stack that is not a thread's own, where that one has room and where it has not
 *   destroy       threads use machines that another thread destroys; nothing may wait for ever
 *   late IMAGE    a thread calls from a destructor of its own, when the library's part of the thread has gone
 *   underway URI  a slow read is under way when its machine is destroyed: it ends normally
 */
#include <pthread.h>
#include <stdatomic.h>
#include <ucontext.h>

#include "api.h"

#ifndef ALARM_SECONDS /* valgrind takes a minute for what takes half a second without */
#define ALARM_SECONDS 60
#endif

static void *open_read_close(void *unused)
{
    void *vm = open_or_fail(FAKE "?holes=0x4000-0x5000");
    struct Registers registers;
    uint64_t count, position;
    uint8_t byte;

    (void)unused;
    check_frame(vm, 3);
    CHECK(!microvmi_read_physical(vm, 0x4000, &byte, 1, &count));
    CHECK(microvmi_last_error_code() == MICROVMI_ERROR_NOT_MAPPED);
    CHECK(microvmi_seek(vm, 0, SEEK_END, &position) && position == 0x100000);
    CHECK(microvmi_pause(vm) && microvmi_read_registers(vm, 0, &registers));
    microvmi_destroy(vm);
    CHECK(microvmi_open("vmi:///?vm_name=there-is-no-such-machine", NULL) == NULL); /* every driver looks for it */
    CHECK(microvmi_last_error_code() == MICROVMI_ERROR_NO_DRIVER);
    return NULL;
}

static void run_thread_with(void *(*function)(void *), size_t stack, void *argument)
{
    pthread_attr_t attributes;
    pthread_t thread;

    CHECK(pthread_attr_init(&attributes) == 0);
    if (stack > 0) {
        CHECK(pthread_attr_setstacksize(&attributes, stack) == 0);
    }
    CHECK(pthread_create(&thread, &attributes, function, argument) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    pthread_attr_destroy(&attributes);
}

static void run_thread(void *(*function)(void *), size_t stack)
{
    run_thread_with(function, stack, NULL);
}

static ucontext_t outside, inside;

static void run_fiber(void)
{
    open_read_close(NULL);
}

/* What a runtime of coroutines does. */
static void *on_a_fiber(void *size)
{
    char *stack = malloc(*(size_t *)size);

    CHECK(stack != NULL && getcontext(&inside) == 0);
    inside.uc_stack.ss_sp = stack;
    inside.uc_stack.ss_size = *(size_t *)size;
    inside.uc_link = &outside;
    makecontext(&inside, run_fiber, 0);
    CHECK(swapcontext(&outside, &inside) == 0);
    free(stack);
    return NULL;
}

static void on_fibers(size_t stack)
{
    on_a_fiber(&stack);
    open_read_close(NULL);
    run_thread_with(on_a_fiber, 0, &stack);
    run_thread_with(on_a_fiber, 64 * 1024, &stack);
}

static void from_an_ended_thread(void)
{
    int i;

    for (i = 0; i < 4; i++) {
        run_thread(open_read_close, 0);
    }
    open_read_close(NULL);
    run_thread(open_read_close, 0);
}

#define MACHINES 60

static _Atomic(void *) current;
static atomic_bool ended;

/* A call on a machine that is being destroyed either ends normally or is an invalid-context error. */
static void use_current(uint8_t *buffer, size_t size)
{
    void *vm = atomic_load(&current);
    uint64_t count = 0, position;

    if (microvmi_read_physical(vm, 0, buffer, size, &count)) {
        CHECK(count == size);
    } else {
        CHECK_SAYS(microvmi_last_error_code() == MICROVMI_ERROR_INVALID_CONTEXT, "%d: %s",
                   (int)microvmi_last_error_code(), microvmi_last_error());
    }
    if (!microvmi_read(vm, buffer, 16, &count) || !microvmi_seek(vm, 0, SEEK_SET, &position)) {
        CHECK_SAYS(microvmi_last_error_code() == MICROVMI_ERROR_INVALID_CONTEXT, "%d: %s",
                   (int)microvmi_last_error_code(), microvmi_last_error());
    }
    if (!microvmi_pause(vm)) {
        CHECK_SAYS(microvmi_last_error_code() == MICROVMI_ERROR_INVALID_CONTEXT, "%d: %s",
                   (int)microvmi_last_error_code(), microvmi_last_error());
    }
}

static void *use_until_the_end(void *unused)
{
    static const size_t size = 256 * 1024;
    uint8_t *buffer = malloc(size);

    (void)unused;
    CHECK(buffer != NULL);
    while (!atomic_load(&ended)) {
        use_current(buffer, size);
    }
    free(buffer);
    return NULL;
}

static void destroyed_under_use(void)
{
    pthread_t threads[4];
    int i;

    atomic_store(&current, open_or_fail(FAKE));
    for (i = 0; i < 4; i++) {
        CHECK(pthread_create(&threads[i], NULL, use_until_the_end, NULL) == 0);
    }
    for (i = 0; i < MACHINES; i++) {
        void *old = atomic_exchange(&current, open_or_fail(FAKE));

        microvmi_destroy(old);
        CHECK(microvmi_last_error_code() == MICROVMI_OK);
    }
    atomic_store(&ended, true);
    for (i = 0; i < 4; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    microvmi_destroy(atomic_load(&current));
}

static pthread_key_t late_key;
static _Atomic(int) late_calls;

static void fail_and_succeed(void *vm)
{
    uint8_t byte;

    CHECK(!microvmi_read_physical(vm, UINT64_MAX, &byte, 1, NULL));
    CHECK(microvmi_last_error_code() == MICROVMI_ERROR_NOT_MAPPED && microvmi_last_error()[0] != '\0');
    CHECK(microvmi_read_physical(vm, 0x1000, &byte, 1, NULL) && byte == 1);
    CHECK(microvmi_last_error_code() == MICROVMI_OK);
}

static void call_late(void *vm)
{
    CHECK(microvmi_last_error()[0] == '\0');
    fail_and_succeed(vm);
    atomic_fetch_add(&late_calls, 1);
}

static void *leave_with_an_error(void *vm)
{
    uint8_t byte;

    fail_and_succeed(vm);
    CHECK(!microvmi_read_physical(vm, UINT64_MAX, &byte, 1, NULL));
    CHECK(pthread_setspecific(late_key, vm) == 0);
    return NULL;
}

/* Destructors run in the order of their keys: the library's come first. */
static void called_at_the_end_of_a_thread(const char *image)
{
    pthread_t threads[4];
    void *vm = open_or_fail(image);
    int i;

    fail_and_succeed(vm);
    CHECK(pthread_key_create(&late_key, call_late) == 0);
    for (i = 0; i < 4; i++) {
        CHECK(pthread_create(&threads[i], NULL, leave_with_an_error, vm) == 0);
    }
    for (i = 0; i < 4; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    CHECK(atomic_load(&late_calls) == 4);
    microvmi_destroy(vm);
}

#define SLOW_SIZE (16 * PAGE_SIZE)

static void *read_slowly(void *vm)
{
    uint8_t *buffer = malloc(SLOW_SIZE);
    uint64_t count = 0;

    CHECK(buffer != NULL);
    CHECK_SAYS(microvmi_read_physical(vm, 0, buffer, SLOW_SIZE, &count), "after %" PRIu64 " bytes: %s", count,
               microvmi_last_error());
    CHECK(count == SLOW_SIZE);
    free(buffer);
    return NULL;
}

static void destroyed_under_a_slow_read(const char *uri)
{
    void *vm = open_or_fail(uri);
    pthread_t thread;
    uint8_t byte;

    CHECK(pthread_create(&thread, NULL, read_slowly, vm) == 0);
    usleep(100 * 1000);
    microvmi_destroy(vm);
    CHECK(microvmi_last_error_code() == MICROVMI_OK);
    CHECK(!microvmi_read_physical(vm, 0, &byte, 1, NULL));
    CHECK(microvmi_last_error_code() == MICROVMI_ERROR_INVALID_CONTEXT);
    CHECK(pthread_join(thread, NULL) == 0);
}

int main(int argc, char **argv)
{
    const char *mode = argc >= 2 ? argv[1] : "";

    alarm(ALARM_SECONDS); /* a deadlock ends here, by a signal */
    if (strcmp(mode, "ended") == 0) {
        from_an_ended_thread();
    } else if (strcmp(mode, "small") == 0 && argc == 3) {
        run_thread(open_read_close, (size_t)atoi(argv[2]) * 1024);
        run_thread(open_read_close, (size_t)atoi(argv[2]) * 1024);
    } else if (strcmp(mode, "fiber") == 0 && argc == 3) {
        on_fibers((size_t)atoi(argv[2]) * 1024);
    } else if (strcmp(mode, "destroy") == 0) {
        destroyed_under_use();
    } else if (strcmp(mode, "late") == 0 && argc == 3) {
        called_at_the_end_of_a_thread(argv[2]);
    } else if (strcmp(mode, "underway") == 0 && argc == 3) {
        destroyed_under_a_slow_read(argv[2]);
    } else {
        FAIL("usage: threads ended|small STACK|fiber STACK|destroy|late IMAGE|underway URI");
    }
    return 0;
}
