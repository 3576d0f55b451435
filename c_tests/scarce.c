/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scarce MODE [IMAGE]: what the process has run out of is told in words of its own, on no stream, and may pass.
 *   descriptors IMAGE  with 0, 1, 2, ... of them left: an error that says so, until there are enough
 *   memory             with 0, 8, 16, ... MiB of address space left
 *   keys IMAGE         no key for thread-specific data is left: calls work, and the host's keys keep their values
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>

#include "api.h"

#define KEYS 1100 /* more than a process can have */

/* One try with little, in words that a user can act on; true if it worked. */
static bool opens(const char *uri, const char *const *words)
{
    const char *error = NULL;
    void *vm = microvmi_open(uri, &error);
    bool told = false;

    if (vm != NULL) {
        if (strcmp(uri, FAKE) == 0) {
            check_frame(vm, 2);
        }
        microvmi_destroy(vm);
        return true;
    }
    CHECK_SAYS(error != NULL, "no error");
    CHECK_SAYS(microvmi_last_error_code() == MICROVMI_ERROR_STARTUP || microvmi_last_error_code() == MICROVMI_ERROR_IO,
               "code %d: %s", (int)microvmi_last_error_code(), error);
    for (; *words != NULL; words++) {
        told = told || strstr(error, *words) != NULL;
    }
    CHECK_SAYS(told, "not told: %s", error);
    rs_cstring_free((char *)error);
    return false;
}

static void set_limit(__rlimit_resource_t what, rlim_t value)
{
    struct rlimit limit;

    CHECK(getrlimit(what, &limit) == 0);
    limit.rlim_cur = value;
    CHECK(setrlimit(what, &limit) == 0);
}

static void few_descriptors(const char *image)
{
    static const char *const words[] = {"descriptor", "Too many open files", NULL};
    int lowest = open("/dev/null", O_RDONLY), left, failures = 0;

    close(lowest);
    for (left = 0; left <= 64; left++) {
        set_limit(RLIMIT_NOFILE, (rlim_t)(lowest + left));
        if (!opens(FAKE, words)) {
            failures++;
        }
    }
    CHECK_SAYS(failures > 0 && failures < 40, "%d failures", failures);
    set_limit(RLIMIT_NOFILE, 256);
    CHECK(opens(FAKE, words));
    lowest = open("/dev/null", O_RDONLY);
    close(lowest);
    for (left = 0, failures = 0; left <= 64; left++) {
        set_limit(RLIMIT_NOFILE, (rlim_t)(lowest + left));
        failures += !opens(image, words);
    }
    CHECK_SAYS(failures > 0 && failures < 40, "%d failures with a driver that was not loaded yet", failures);
}

static unsigned long address_space(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    unsigned long pages = 0;

    CHECK(file != NULL && fscanf(file, "%lu", &pages) == 1);
    fclose(file);
    return pages * 4096;
}

static void little_memory(void)
{
    static const char *const words[] = {"memory", "Memory", "thread", "temporarily unavailable", NULL};
    unsigned long now = address_space(), left;
    int failures = 0;

    for (left = 0; left <= 512; left += 8) {
        set_limit(RLIMIT_AS, now + (left << 20));
        failures += !opens(FAKE, words);
    }
    CHECK_SAYS(failures > 0 && failures < 40, "%d failures", failures);
    set_limit(RLIMIT_AS, RLIM_INFINITY);
    CHECK(opens(FAKE, words));
}

static void *use_from_a_thread(void *image)
{
    void *vm = open_or_fail(image);
    uint64_t word;
    int i;

    for (i = 0; i < 10; i++) {
        CHECK(microvmi_read_physical(vm, 0x1000, (uint8_t *)&word, sizeof(word), NULL));
        CHECK(!microvmi_read_physical(vm, UINT64_MAX, (uint8_t *)&word, 1, NULL));
        CHECK(microvmi_last_error()[0] != '\0');
    }
    microvmi_destroy(vm);
    return NULL;
}

static void no_keys(char *image)
{
    static pthread_key_t keys[KEYS];
    pthread_t thread;
    int count = 1, i;

    CHECK(pthread_key_create(&keys[0], NULL) == 0 && keys[0] == 0); /* what a variable that nobody set names */
    microvmi_destroy(open_or_fail(FAKE));                           /* Python takes some at its start */
    while (pthread_key_create(&keys[count], NULL) == 0) {
        count++;
    }
    for (i = 0; i < count; i++) {
        CHECK(pthread_setspecific(keys[i], &keys[i]) == 0);
    }
    use_from_a_thread(image);
    CHECK(pthread_create(&thread, NULL, use_from_a_thread, image) == 0 && pthread_join(thread, NULL) == 0);
    for (i = 0; i < count; i++) {
        CHECK_SAYS(pthread_getspecific(keys[i]) == &keys[i], "the host's key %u has another value", keys[i]);
    }
}

int main(int argc, char **argv)
{
    const char *mode = argc >= 2 ? argv[1] : "";

    alarm(80);
    if (strcmp(mode, "descriptors") == 0 && argc == 3) {
        few_descriptors(argv[2]);
    } else if (strcmp(mode, "memory") == 0) {
        little_memory();
    } else if (strcmp(mode, "keys") == 0 && argc == 3) {
        no_keys(argv[2]);
    } else {
        FAIL("usage: scarce descriptors IMAGE|memory|keys IMAGE");
    }
    return 0;
}
