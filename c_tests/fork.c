/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fork MODE: the library and fork().
 *   before   fork before the first call: the child may use the library, and so may the parent
 *   after    in a child after the first call every call fails at once; the parent goes on
 *   direct IMAGE  the same of memory that is read without Python, and of a pointer into it
 *   load     40 children of a process whose other threads are in the library; none hangs
 *   exit URI the child's normal exit does not touch the machine that its parent paused
 *   exec     exec in the child is fine
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "api.h"

#define CHILD_SECONDS 10

static pid_t fork_or_fail(void)
{
    pid_t child = fork();

    CHECK_SAYS(child >= 0, "fork: %s", strerror(errno));
    if (child == 0) {
        alarm(CHILD_SECONDS); /* a child that hangs dies of this */
    }
    return child;
}

static void wait_for(pid_t child)
{
    int status = 0;

    CHECK(waitpid(child, &status, 0) == child);
    CHECK_SAYS(!WIFSIGNALED(status), "the child died of signal %d%s", WTERMSIG(status),
               WTERMSIG(status) == SIGALRM ? ": it hung" : "");
    CHECK_SAYS(WEXITSTATUS(status) == 0, "the child ended with %d", WEXITSTATUS(status));
}

static void before_the_first_call(void)
{
    pid_t child = fork_or_fail();

    if (child == 0) {
        void *vm = open_or_fail(FAKE);

        check_frame(vm, 1);
        microvmi_destroy(vm);
        exit(0);
    }
    check_frame(open_or_fail(FAKE), 2);
    wait_for(child);
    check_frame(open_or_fail(FAKE), 3);
}

#define CHECK_FORKED(call) \
    do { \
        CHECK_SAYS(!(call), "%s worked in a child", #call); \
        CHECK_SAYS(microvmi_last_error_code() == MICROVMI_ERROR_FORKED, "%s: code %d, %s", #call, \
                   (int)microvmi_last_error_code(), microvmi_last_error()); \
    } while (0)

static void check_opening_fails(void)
{
    enum DriverType driver = MICROVMI_DRIVER_DUMP;
    struct DriverInitParamsFFI params;
    const char *error = NULL;

    memset(&params, 0, sizeof(params));
    CHECK_FORKED(microvmi_open(FAKE, &error));
    CHECK_SAYS(error != NULL && strstr(error, "fork") != NULL, "init_error: %s", error != NULL ? error : "NULL");
    rs_cstring_free((char *)error);
    error = NULL;
    CHECK_FORKED(microvmi_init(&driver, &params, &error));
    CHECK(error != NULL);
    rs_cstring_free((char *)error);
    CHECK_FORKED(microvmi_init(NULL, NULL, NULL));
}

static void check_everything_fails(void *vm)
{
    struct microvmi_memory_range range;
    struct Registers registers;
    uint8_t buffer[16] = {0};
    uint64_t number = 0;
    uint16_t small = 0;
    size_t count = 0;

    check_opening_fails();
    CHECK_FORKED(microvmi_pause(vm));
    CHECK_FORKED(microvmi_resume(vm));
    CHECK_FORKED(microvmi_read_physical(vm, 0, buffer, sizeof(buffer), &number));
    CHECK_FORKED(microvmi_write_physical(vm, 0, buffer, sizeof(buffer)));
    CHECK_FORKED(microvmi_get_max_physical_addr(vm, &number));
    CHECK_FORKED(microvmi_read_registers(vm, 0, &registers));
    CHECK_FORKED(microvmi_get_driver_type(vm) != MICROVMI_DRIVER_UNKNOWN);
    CHECK_FORKED(microvmi_get_driver_name(vm));
    CHECK_FORKED(microvmi_seek(vm, 0, SEEK_SET, &number));
    CHECK_FORKED(microvmi_tell(vm, &number));
    CHECK_FORKED(microvmi_read(vm, buffer, sizeof(buffer), &number));
    CHECK_FORKED(microvmi_write(vm, buffer, sizeof(buffer), &number));
    CHECK_FORKED(microvmi_padded_seek(vm, 0, SEEK_SET, &number));
    CHECK_FORKED(microvmi_padded_tell(vm, &number));
    CHECK_FORKED(microvmi_padded_read(vm, buffer, sizeof(buffer), &number));
    CHECK_FORKED(microvmi_read_physical_padded(vm, 0, buffer, sizeof(buffer), &number));
    CHECK_FORKED(microvmi_get_memory_map(vm, &range, 1, &count));
    CHECK_FORKED(microvmi_get_vcpu_count(vm, &small));
    microvmi_destroy(vm);
    CHECK(microvmi_last_error_code() == MICROVMI_ERROR_FORKED);
    microvmi_destroy(NULL);
    CHECK(microvmi_version()[0] != '\0' && microvmi_build_info()[0] != '\0');
}

static void after_the_first_call(void)
{
    void *vm = open_or_fail(FAKE);
    pid_t child = fork_or_fail();

    if (child == 0) {
        pid_t grandchild;

        check_everything_fails(vm);
        grandchild = fork_or_fail();
        if (grandchild == 0) {
            check_everything_fails(vm);
            exit(0);
        }
        wait_for(grandchild);
        exit(0);
    }
    wait_for(child);
    check_frame(vm, 5);
    microvmi_destroy(vm);
    CHECK(microvmi_last_error_code() == MICROVMI_OK);
}

/* Every way in C of memory that needs no Python. */
static void check_direct_memory_fails(void *vm, const uint8_t *pointer)
{
    uint8_t buffer[16] = {0};
    struct microvmi_read_request request = {.physical_address = 0, .buffer = buffer, .size = sizeof(buffer)};
    uint64_t number = 0;
    size_t size;

    for (size = 1; size <= sizeof(buffer); size++) {
        CHECK_FORKED(microvmi_read_physical(vm, 0, buffer, size, &number));
        CHECK_FORKED(microvmi_read_physical_padded(vm, 0, buffer, size, &number));
        CHECK_FORKED(microvmi_read(vm, buffer, size, &number));
        CHECK_FORKED(microvmi_padded_read(vm, buffer, size, &number));
        CHECK_FORKED(microvmi_write_physical(vm, 0, buffer, size));
    }
    CHECK_FORKED(microvmi_read_physical_batch(vm, &request, 1));
    CHECK_FORKED(microvmi_seek(vm, 0, SEEK_SET, &number));
    CHECK_FORKED(microvmi_seek(vm, 0, SEEK_DATA, &number));
    CHECK_FORKED(microvmi_padded_seek(vm, 0, SEEK_END, &number));
    CHECK_FORKED(microvmi_unmap_physical(pointer));
    CHECK_FORKED(microvmi_unmap_physical(NULL));
}

static void after_direct_reads(const char *image)
{
    void *vm = open_or_fail(image);
    const uint8_t *pointer = NULL;
    uint64_t word;
    pid_t child;

    CHECK(microvmi_read_physical(vm, 0, (uint8_t *)&word, sizeof(word), NULL));
    CHECK_SAYS(microvmi_map_physical(vm, 0, PAGE_SIZE, &pointer), "%s", microvmi_last_error());
    child = fork_or_fail();
    if (child == 0) {
        check_direct_memory_fails(vm, pointer);
        exit(0);
    }
    wait_for(child);
    CHECK(microvmi_read_physical(vm, 0, (uint8_t *)&word, sizeof(word), NULL));
    CHECK(microvmi_unmap_physical(pointer));
    microvmi_destroy(vm);
}

static atomic_bool ended;

static void *keep_busy(void *vm)
{
    uint64_t frame = 0;

    while (!atomic_load(&ended)) {
        void *own = open_or_fail(FAKE);

        check_frame(vm, frame++ % 256);
        check_frame(own, 7);
        microvmi_destroy(own);
    }
    return NULL;
}

static void under_load(void)
{
    void *vm = open_or_fail(FAKE);
    pthread_t threads[4];
    pid_t children[40];
    int i;

    for (i = 0; i < 4; i++) {
        CHECK(pthread_create(&threads[i], NULL, keep_busy, vm) == 0);
    }
    for (i = 0; i < 40; i++) {
        usleep(2000);
        children[i] = fork_or_fail();
        if (children[i] == 0) {
            check_everything_fails(vm);
            exit(0);
        }
    }
    for (i = 0; i < 40; i++) {
        wait_for(children[i]);
    }
    atomic_store(&ended, true);
    for (i = 0; i < 4; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    check_frame(vm, 9);
    microvmi_destroy(vm);
}

static void child_exits(const char *uri)
{
    void *vm = open_or_fail(uri);
    pid_t child;

    CHECK_SAYS(microvmi_pause(vm), "pause: %s", microvmi_last_error());
    child = fork_or_fail();
    if (child == 0) {
        exit(0);
    }
    wait_for(child);
    _exit(0); /* the parent's own exit handling is not what is looked at */
}

static void exec_in_the_child(char *program)
{
    pid_t child;

    check_frame(open_or_fail(FAKE), 1);
    child = fork_or_fail();
    if (child == 0) {
        execl(program, program, "before", (char *)NULL);
        FAIL("exec: %s", strerror(errno));
    }
    wait_for(child);
}

int main(int argc, char **argv)
{
    const char *mode = argc >= 2 ? argv[1] : "";

    if (strcmp(mode, "before") == 0) {
        before_the_first_call();
    } else if (strcmp(mode, "after") == 0) {
        after_the_first_call();
    } else if (strcmp(mode, "direct") == 0 && argc == 3) {
        after_direct_reads(argv[2]);
    } else if (strcmp(mode, "load") == 0) {
        under_load();
    } else if (strcmp(mode, "exit") == 0 && argc == 3) {
        child_exits(argv[2]);
    } else if (strcmp(mode, "exec") == 0) {
        exec_in_the_child(argv[0]);
    } else {
        FAIL("usage: fork before|after|direct IMAGE|load|exit URI|exec");
    }
    return 0;
}
