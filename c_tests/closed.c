/* SPDX-License-Identifier: Apache-2.0 */
/*
 * closed NUMBERS URI [stops]: a host that has closed some of its standard streams ("1", "012"), does everything there is, and
 * meanwhile reads and writes them from other threads, as a stray printf does. Every try has to fail as on a closed
 * descriptor, each number has to be closed after each call, and the guest's memory has to stay what it was.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>

#include "api.h"

#define AT 0x2000
#define LOOKED_AT 0x4000

static const char *closed;
static int report;
static atomic_bool ended;

/* The program's own standard error may be closed. */
#define MUST(condition, ...) \
    do { \
        if (!(condition)) { \
            dprintf(report, __VA_ARGS__); \
            dprintf(report, "\n"); \
            _exit(1); \
        } \
    } while (0)

static void *stray(void *unused)
{
    char bytes[8] = "stray!!";
    const char *number;
    int fd;

    while (!atomic_load(&ended)) {
        for (number = closed; *number != '\0'; number++) {
            fd = *number - '0';
            MUST(write(fd, bytes, sizeof(bytes)) == -1 && errno == EBADF, "a write to %d, which is closed: %m", fd);
            MUST(read(fd, bytes, sizeof(bytes)) == -1 && errno == EBADF, "a read from %d, which is closed: %m", fd);
        }
    }
    return unused;
}

static void all_closed(const char *after)
{
    const char *number;

    for (number = closed; *number != '\0'; number++) {
        MUST(fcntl(*number - '0', F_GETFD) == -1, "%s left something at %c", after, *number);
    }
}

#define DO(call) \
    do { \
        MUST(call, "%s: %s", #call, microvmi_last_error()); \
        all_closed(#call); \
    } while (0)

static void check_memory(void *vm, const uint8_t *mark, size_t marked)
{
    static uint8_t seen[LOOKED_AT];
    size_t i;

    DO(microvmi_read_physical(vm, 0, seen, sizeof(seen), NULL));
    MUST(memcmp(seen + AT, mark, marked) == 0, "what was written is not there");
    for (i = 0; i < sizeof(seen); i++) {
        MUST((i >= AT && i < AT + marked) || seen[i] == i / PAGE_SIZE % 251, "the byte at 0x%zx is 0x%x", i, seen[i]);
    }
}

static void use(const char *uri)
{
    uint8_t mark[16] = "written on purp", page[PAGE_SIZE];
    const uint8_t *mapped = NULL;
    struct Registers registers;
    const char *error = NULL;
    uint64_t count, position;
    size_t ranges = 0;
    void *vm = microvmi_open(uri, &error);

    MUST(vm != NULL, "%s", error);
    all_closed("microvmi_open");
    DO(microvmi_read_physical(vm, AT, page, sizeof(page), NULL));
    DO(microvmi_write_physical(vm, AT, mark, sizeof(mark)));
    MUST(strchr(closed, '1') == NULL || (printf("stray line\n") < 0 || fflush(stdout) != 0), "a printf succeeded");
    DO(microvmi_pause(vm));
    DO(microvmi_read_registers(vm, 0, &registers));
    DO(microvmi_get_memory_map(vm, NULL, 0, &ranges));
    DO(microvmi_seek(vm, AT, SEEK_SET, &position));
    DO(microvmi_write(vm, mark, sizeof(mark), &count));
    DO(microvmi_padded_read(vm, page, sizeof(page), &count));
    check_memory(vm, mark, sizeof(mark));
    DO(microvmi_resume(vm));
    if (microvmi_map_physical(vm, 0, PAGE_SIZE, &mapped)) {
        DO(microvmi_unmap_physical(mapped));
    }
    DO(microvmi_pause(vm));
    DO(microvmi_write_physical(vm, AT, (uint8_t[16]){2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2}, 16));
    microvmi_destroy(vm);
    all_closed("microvmi_destroy");
    MUST(microvmi_init(NULL, NULL, &error) == NULL, "a machine that nobody named");
    all_closed("microvmi_init");
    rs_cstring_free((char *)error);
}

/* A machine of a driver that opens files of its own whenever it is stopped. */
static void stop_often(const char *uri)
{
    void *vm = microvmi_open(uri, NULL);
    int i;

    MUST(vm != NULL, "%s", microvmi_last_error());
    for (i = 0; i < 300; i++) {
        DO(microvmi_pause(vm));
        DO(microvmi_resume(vm));
    }
    microvmi_destroy(vm);
}

int main(int argc, char **argv)
{
    pthread_t threads[2];
    const char *number;
    int i;

    CHECK_SAYS(argc == 3 || argc == 4, "usage: closed NUMBERS URI [stops]");
    alarm(60);
    closed = argv[1];
    report = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10);
    CHECK(report >= 10);
    for (number = closed; *number != '\0'; number++) {
        close(*number - '0');
    }
    microvmi_envlogger_init();
    for (i = 0; i < 2; i++) {
        MUST(pthread_create(&threads[i], NULL, stray, NULL) == 0, "no thread");
    }
    for (i = 0; i < 3; i++) {
        (argc == 4 ? stop_often : use)(argv[2]);
    }
    atomic_store(&ended, true);
    for (i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    return 0;
}
