/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hammer KIND URI SECONDS: many threads on one context, which do everything at once. What is read is right or a clean
 * error, an error belongs to its thread, and threads that read a stream together get every byte once.
 *   fake      URI is vmi://fake/?size=0x200000&holes=0x180000-0x190000
 *   image     URI is the path of a file that this program makes: 4 MiB with holes
 *   virtualbox  URI names a machine of tests/drivers/virtualbox/machine.c, with that memory
 *   process   URI names a machine of tests/drivers/qemu_program.py
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "api.h"

#define THREADS 6
#define MAX_SIZE (4u << 20)
#define LARGEST (300u << 10) /* of one read: files are searched for holes from 64 KiB on */
#define REQUESTS 40

/* ------------------------------------------------------------------------------------------------ machines ------- */

struct kind {
    const char *name;
    uint64_t max_address, hole, hole_end;
    uint64_t scratch[2]; /* from each a page a thread is its own to write; 0: the machine cannot be written.
                          * A process has the first in private memory, the second in memory that it may share. */
    bool can_pause;
    uint8_t (*byte_at)(uint64_t address); /* outside the hole and the scratch pages */
};

static uint8_t word_byte(uint64_t word, uint64_t address)
{
    return (uint8_t)(word >> address % 8 * 8);
}

static uint8_t fake_byte(uint64_t address)
{
    return word_byte(address / PAGE_SIZE, address);
}

/* Words are their own addresses; every fifth 12 KiB are a hole of the file. */
static uint8_t image_byte(uint64_t address)
{
    return address / (12u << 10) % 5 == 3 ? 0 : word_byte(address / 8 * 8, address);
}

static uint8_t process_byte(uint64_t address)
{
    uint64_t offset = address < 0x100000 ? address : address - 0x100000 + 0x80000;

    return (uint8_t)(offset / PAGE_SIZE % 251);
}

/* Words are their own addresses, but for the program that the guest executes. */
static uint8_t virtualbox_byte(uint64_t address)
{
    static const uint8_t code[] = {0x90, 0x0f, 0x30, 0x0f, 0x22, 0xd8, 0xeb, 0xf8};

    return address - 0x2000 < sizeof code ? code[address - 0x2000] : word_byte(address / 8 * 8, address);
}

static const struct kind kinds[] = {
    {"fake", 0x200000, 0x180000, 0x190000, {0x100000, 0x110000}, true, fake_byte},
    {"image", MAX_SIZE, MAX_SIZE, MAX_SIZE, {0, 0}, false, image_byte},
    {"virtualbox", 0x200000, 0x180000, 0x190000, {0x100000, 0x110000}, true, virtualbox_byte},
    {"process", 0x180000, 0x80000, 0x100000, {0xfd000000, 0x8000000000}, true, process_byte},
};
static const struct kind *kind;
static const char *uri;
static uint8_t expected[MAX_SIZE]; /* of every address below the maximum; zeros in holes */

static void make_expected(void)
{
    uint64_t address;

    for (address = 0; address < kind->max_address; address++) {
        if (address < kind->hole || address >= kind->hole_end) {
            expected[address] = kind->byte_at(address);
        }
    }
}

static void make_image(void)
{
    int fd = open(uri, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    uint64_t address, step = 4u << 10;

    CHECK(fd >= 0 && ftruncate(fd, MAX_SIZE) == 0);
    for (address = 0; address < MAX_SIZE; address += step) {
        if (image_byte(address + 8) != 0 || image_byte(address + 0x10) != 0) {
            CHECK(pwrite(fd, expected + address, step, (off_t)address) == (ssize_t)step);
        }
    }
    CHECK(close(fd) == 0);
}

/* Others may write there. */
static bool meets_scratch(uint64_t address, uint64_t size)
{
    uint64_t start = kind->scratch[0], end = kind->scratch[1] + THREADS * PAGE_SIZE;

    return start != 0 && address < end && start < address + size;
}

static uint64_t valid_prefix(uint64_t address, uint64_t size)
{
    uint64_t end = address < kind->hole ? kind->hole : kind->max_address;

    if (address >= kind->max_address || (address >= kind->hole && address < kind->hole_end)) {
        return 0;
    }
    return size < end - address ? size : end - address;
}

/* ------------------------------------------------------------------------------------------------ threads -------- */

struct worker {
    pthread_t thread;
    unsigned number, seed;
    uint8_t *buffer; /* LARGEST bytes */
};

static _Atomic(void *) current;
static atomic_bool stopped, may_be_destroyed;

static uint64_t random_below(struct worker *worker, uint64_t limit)
{
    uint64_t high = (uint64_t)rand_r(&worker->seed) << 31;

    return (high | (uint64_t)rand_r(&worker->seed)) % limit;
}

/* Small ones more often. */
static size_t random_size(struct worker *worker)
{
    return (size_t)random_below(worker, random_below(worker, 8) == 0 ? LARGEST : 64) + 1;
}

/* The call that failed may have: its context was destroyed. Else `code` is what it has to fail with. */
static bool was_destroyed(int code)
{
    int got = (int)microvmi_last_error_code();

    if (got == MICROVMI_ERROR_INVALID_CONTEXT && atomic_load(&may_be_destroyed)) {
        CHECK(strstr(microvmi_last_error(), "not live") != NULL || strstr(microvmi_last_error(), "closed") != NULL);
        return true;
    }
    CHECK_SAYS(got == code, "error %d, not %d: %s", got, code, microvmi_last_error());
    return false;
}

static void check_bytes(const uint8_t *bytes, uint64_t address, uint64_t size)
{
    uint64_t at;

    if (meets_scratch(address, size) || memcmp(bytes, expected + address, size) == 0) {
        return;
    }
    for (at = 0; bytes[at] == expected[address + at]; at++) {
    }
    FAIL("%#" PRIx64 " is %#x, not %#x", address + at, bytes[at], expected[address + at]);
}

static void read_somewhere(struct worker *worker, void *vm)
{
    uint64_t address = random_below(worker, kind->max_address + PAGE_SIZE), count = 1;
    size_t size = random_size(worker);
    uint64_t valid = valid_prefix(address, size);

    worker->buffer[valid] = 0xee;
    if (microvmi_read_physical(vm, address, worker->buffer, size, &count)) {
        CHECK(count == size && valid == size);
    } else if (was_destroyed(MICROVMI_ERROR_NOT_MAPPED)) {
        return;
    } else {
        CHECK_SAYS(count == valid && valid < size, "%" PRIu64 " of %zu bytes at %#" PRIx64, count, size, address);
        CHECK(worker->buffer[valid] == 0xee);
        sched_yield();
        CHECK(microvmi_last_error_code() == MICROVMI_ERROR_NOT_MAPPED);
    }
    check_bytes(worker->buffer, address, valid);
}

static void read_padded(struct worker *worker, void *vm)
{
    size_t size = random_size(worker);
    uint64_t address = random_below(worker, kind->max_address - size), count = 0;

    if (microvmi_read_physical_padded(vm, address, worker->buffer, size, &count)) {
        CHECK(count == size);
        check_bytes(worker->buffer, address, size);
    } else {
        CHECK(was_destroyed(MICROVMI_OK));
    }
}

static void read_batch(struct worker *worker, void *vm)
{
    struct microvmi_read_request requests[REQUESTS] = {{.size = 0}};
    const size_t room = LARGEST / REQUESTS;
    bool whole = true;
    size_t index;

    for (index = 0; index < REQUESTS; index++) {
        requests[index].physical_address = random_below(worker, kind->max_address + PAGE_SIZE);
        requests[index].buffer = worker->buffer + index * room;
        requests[index].size = (size_t)random_below(worker, room);
        whole = whole && valid_prefix(requests[index].physical_address, requests[index].size) == requests[index].size;
    }
    if (microvmi_read_physical_batch(vm, requests, REQUESTS)) {
        CHECK(whole);
    } else if (was_destroyed(MICROVMI_ERROR_NOT_MAPPED)) {
        return;
    }
    for (index = 0; index < REQUESTS; index++) {
        const struct microvmi_read_request *one = &requests[index];

        CHECK(one->bytes_read == valid_prefix(one->physical_address, one->size));
        CHECK(one->error == (one->bytes_read == one->size ? MICROVMI_OK : MICROVMI_ERROR_NOT_MAPPED));
        check_bytes(one->buffer, one->physical_address, one->bytes_read);
    }
}

static void use_streams(struct worker *worker, void *vm)
{
    uint64_t position = 0, count = 0;
    bool padded = random_below(worker, 2) == 0;

    if (!(padded ? microvmi_padded_seek
                 : microvmi_seek)(vm, (int64_t)random_below(worker, 2 * kind->max_address) - (int64_t)kind->max_address,
                                  (int)random_below(worker, 3), &position)) {
        CHECK(was_destroyed(MICROVMI_OK));
        return;
    }
    CHECK(position <= kind->max_address);
    if (!(padded ? microvmi_padded_read : microvmi_read)(vm, worker->buffer, random_size(worker), &count)) {
        CHECK(was_destroyed(MICROVMI_ERROR_NOT_MAPPED) || !padded);
    }
    if (!(padded ? microvmi_padded_tell : microvmi_tell)(vm, &position)) {
        CHECK(was_destroyed(MICROVMI_OK));
    }
    CHECK(position <= kind->max_address);
}

static void write_own_page(struct worker *worker, void *vm)
{
    uint64_t address = kind->scratch[random_below(worker, 2)] + worker->number * PAGE_SIZE;
    uint8_t again[64] = {0}; /* a driver may look at what it is to fill */

    memset(worker->buffer, (int)random_below(worker, 256), sizeof again);
    if (kind->scratch[0] == 0) {
        CHECK(!microvmi_write_physical(vm, 0, worker->buffer, sizeof again));
        (void)was_destroyed(MICROVMI_ERROR_READ_ONLY);
    } else if (!microvmi_write_physical(vm, address, worker->buffer, sizeof again) ||
               !microvmi_read_physical(vm, address, again, sizeof again, NULL)) {
        CHECK(was_destroyed(MICROVMI_OK));
    } else {
        /* another context of this kind of machine, opened meanwhile, has other memory */
        CHECK(atomic_load(&current) != vm || memcmp(again, worker->buffer, sizeof again) == 0);
    }
}

static void ask_for_the_map(void *vm)
{
    struct microvmi_memory_range ranges[8];
    size_t count = 0;

    if (microvmi_get_memory_map(vm, ranges, 8, &count)) {
        CHECK(count >= 1 && count <= 8 && ranges[0].start == 0 && ranges[0].size >= 0x70000);
    } else {
        CHECK(was_destroyed(MICROVMI_OK));
    }
}

/* Pages that are read while it stands still may be kept, but none that was written. */
static void stop_and_go(struct worker *worker, void *vm)
{
    int code = kind->can_pause ? MICROVMI_OK : MICROVMI_ERROR_NOT_SUPPORTED;
    unsigned round;

    if (!microvmi_pause(vm)) {
        (void)was_destroyed(code);
        return;
    }
    for (round = 0; round < 20; round++) {
        read_somewhere(worker, vm);
        write_own_page(worker, vm);
    }
    if (!microvmi_resume(vm)) {
        (void)was_destroyed(code);
    }
}

static void open_another(void)
{
    uint8_t bytes[256] = {0};
    void *vm = open_or_fail(uri);

    CHECK(microvmi_last_error_code() == MICROVMI_OK);
    CHECK(microvmi_read_physical(vm, 0x2000 - 128, bytes, sizeof bytes, NULL));
    check_bytes(bytes, 0x2000 - 128, sizeof bytes);
    CHECK(microvmi_get_driver_name(vm) != NULL);
    microvmi_destroy(vm);
    CHECK(microvmi_last_error_code() == MICROVMI_OK);
    CHECK(!microvmi_read_physical(vm, 0, bytes, 1, NULL));
    CHECK(microvmi_last_error_code() == MICROVMI_ERROR_INVALID_CONTEXT);
}

static void do_something(struct worker *worker)
{
    void *vm = atomic_load(&current);
    uint64_t what = random_below(worker, 200);

    if (what < 80) {
        read_somewhere(worker, vm);
    } else if (what < 120) {
        read_padded(worker, vm);
    } else if (what < 150) {
        read_batch(worker, vm);
    } else if (what < 170) {
        use_streams(worker, vm);
    } else if (what < 185) {
        write_own_page(worker, vm);
    } else if (what < 192) {
        ask_for_the_map(vm);
    } else if (what < 197) {
        stop_and_go(worker, vm);
    } else if (what < 199) {
        (void)microvmi_get_driver_type(vm);
    } else {
        open_another();
    }
}

static void *work(void *argument)
{
    struct worker *worker = argument;

    while (!atomic_load(&stopped)) {
        do_something(worker);
    }
    return NULL;
}

static void start_workers(struct worker *workers, void *(*function)(void *), unsigned seed)
{
    unsigned number;

    atomic_store(&stopped, false);
    for (number = 0; number < THREADS; number++) {
        workers[number] = (struct worker){.number = number, .seed = seed + number, .buffer = calloc(1, LARGEST + 1)};
        CHECK(workers[number].buffer != NULL);
        CHECK(pthread_create(&workers[number].thread, NULL, function, &workers[number]) == 0);
    }
}

static void join_workers(struct worker *workers)
{
    unsigned number;

    for (number = 0; number < THREADS; number++) {
        CHECK(pthread_join(workers[number].thread, NULL) == 0);
        free(workers[number].buffer);
    }
}

/* ------------------------------------------------------------------------------------------------ the parts ------ */

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void everything_on_one(double seconds)
{
    struct worker workers[THREADS];

    start_workers(workers, work, 1000);
    usleep((useconds_t)(seconds * 1e6));
    atomic_store(&stopped, true);
    join_workers(workers);
}

/* The context goes in the middle, another one takes its place, and new threads take the places of ended ones. */
static void destroyed_in_the_middle(double seconds)
{
    struct worker workers[THREADS];
    double end = now() + seconds;
    unsigned round;

    atomic_store(&may_be_destroyed, true);
    for (round = 0; now() < end || round < 2; round++) {
        unsigned destroyed;

        start_workers(workers, work, 2000 + round * THREADS);
        for (destroyed = 0; destroyed < 4; destroyed++) {
            void *old = atomic_load(&current);

            usleep(20 * 1000);
            microvmi_destroy(old);
            CHECK_SAYS(microvmi_last_error_code() == MICROVMI_OK, "%s", microvmi_last_error());
            atomic_store(&current, open_or_fail(uri));
        }
        atomic_store(&stopped, true);
        join_workers(workers);
    }
    atomic_store(&may_be_destroyed, false);
}

static atomic_uint seen[MAX_SIZE / 8]; /* how often a word came, by its value */
static bool together_padded;

static size_t word_at(const uint8_t *bytes)
{
    uint64_t word;

    memcpy(&word, bytes, sizeof word);
    return (size_t)(kind->byte_at == image_byte ? word / 8 : word % 4096);
}

static void *read_together(void *argument)
{
    struct worker *worker = argument;
    uint64_t count = 0, at;

    for (;;) {
        size_t size = (random_size(worker) + 7) / 8 * 8;
        bool read = (together_padded ? microvmi_padded_read : microvmi_read)(atomic_load(&current), worker->buffer,
                                                                             size < LARGEST ? size : LARGEST, &count);

        if (!read) {
            CHECK(microvmi_last_error_code() == MICROVMI_ERROR_NOT_MAPPED && count == 0 && !together_padded);
        }
        if (count == 0) {
            return NULL;
        }
        for (at = 0; at < count; at += 8) {
            atomic_fetch_add_explicit(&seen[word_at(worker->buffer + at)], 1, memory_order_relaxed);
        }
        if (random_below(worker, 64) == 0) {
            ask_for_the_map(atomic_load(&current));
        }
    }
}

static void every_byte_once(bool padded)
{
    struct worker workers[THREADS];
    uint64_t address, end = padded ? kind->max_address : kind->hole, position;
    size_t word;

    together_padded = padded;
    memset(seen, 0, sizeof seen);
    CHECK((padded ? microvmi_padded_seek : microvmi_seek)(atomic_load(&current), 0, SEEK_SET, NULL));
    start_workers(workers, read_together, 3000);
    join_workers(workers);
    CHECK((padded ? microvmi_padded_tell : microvmi_tell)(atomic_load(&current), &position) && position == end);
    for (address = 0; address < end; address += 8) {
        seen[word_at(expected + address)]--;
    }
    for (word = 0; word < MAX_SIZE / 8; word++) {
        CHECK_SAYS(seen[word] == 0, "word %zu came %d times too often", word, (int)seen[word]);
    }
}

/* Of a thread: so many that the threads are at it at the same time; where Python moves the cursor each takes long. */
static uint64_t seeks(void)
{
    return kind->byte_at == fake_byte ? 2000 : 100000;
}

/* Each goes on from where the cursor is: in the end all of them have counted. */
static void *seek_together(void *argument)
{
    const int64_t step = (int64_t)(kind->max_address / (THREADS * seeks()));
    uint64_t round;

    (void)argument;
    for (round = 0; round < seeks(); round++) {
        CHECK((together_padded ? microvmi_padded_seek : microvmi_seek)(atomic_load(&current), step, SEEK_CUR, NULL));
    }
    return NULL;
}

static void every_seek_counts(bool padded)
{
    struct worker workers[THREADS];
    uint64_t position, step = kind->max_address / (THREADS * seeks());

    together_padded = padded;
    CHECK((padded ? microvmi_padded_seek : microvmi_seek)(atomic_load(&current), 0, SEEK_SET, NULL));
    start_workers(workers, seek_together, 4000);
    join_workers(workers);
    CHECK((padded ? microvmi_padded_tell : microvmi_tell)(atomic_load(&current), &position));
    CHECK_SAYS(position == step * seeks() * THREADS, "%" PRIu64 " of %" PRIu64 " seeks counted", position / step,
               seeks() * THREADS);
}

int main(int argc, char **argv)
{
    size_t index;
    double seconds;

    alarm(300); /* a deadlock ends here, by a signal */
    for (index = 0; argc == 4 && index < sizeof kinds / sizeof *kinds; index++) {
        kind = strcmp(kinds[index].name, argv[1]) == 0 ? &kinds[index] : kind;
    }
    CHECK_SAYS(kind != NULL, "usage: hammer fake|image|process URI SECONDS");
    uri = argv[2];
    seconds = atof(argv[3]);
    make_expected();
    if (kind->byte_at == image_byte) {
        make_image();
    }
    atomic_store(&current, open_or_fail(uri));
    every_byte_once(false);
    every_byte_once(true);
    every_seek_counts(false);
    every_seek_counts(true);
    everything_on_one(seconds / 2);
    destroyed_in_the_middle(seconds / 2);
    microvmi_destroy(atomic_load(&current));
    CHECK(microvmi_last_error_code() == MICROVMI_OK);
    return 0;
}
