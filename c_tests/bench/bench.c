/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a read of a guest costs, by every way there is, in one process: the calls of all subjects take turns, so that
 * whatever the machine does meanwhile meets all of them alike. What is compared is what one run measured.
 *
 * Arguments, each NAME=VALUE:
 *   library, uri      ours, and what it opens
 *   ram               the guest's RAM file, or
 *   pid, hva          the guest's process and where its RAM is in it
 *   start, end        the guest-physical addresses that are read, and that lie there in one piece
 *   seconds           for each column
 *   vm                the guest's name, for peers
 *   peer=NAME=PATH    another library with the ABI of libmicrovmi 0.4.0; any number
 *   leechcore, device the path of leechcore.so and what it opens
 *
 * Prints, fields separated by tabs:
 *   cell SUBJECT COLUMN MIN MEDIAN   nanoseconds per call; a call of "dump" is one reading of everything
 *   number "rate SUBJECT THREADS" N  reads of 4 KiB per second, median
 *   number "gain SUBJECT" N          two threads' rate over one's
 *   number "cached" N                ns for 8 B on a machine that the context itself paused, median
 *   skipped SUBJECT REASON
 */
#include "bench.h"

#define MOST_SUBJECTS 16
#define MOST_ROUNDS 20000
#define FEWEST_ROUNDS 5
#define MOST_CALLS 1024   /* in one sample */
#define SAMPLE_NS 40000   /* a sample is at least this long */
#define RATE_ROUNDS 15
#define CACHED_ROUNDS 200

enum kind { HOT, RANDOM, SCATTER, DUMP };

static const struct column {
    const char *name;
    enum kind kind;
    size_t size;
} columns[] = {
    {"8 B hot", HOT, 8},          {"8 B random", RANDOM, 8}, {"4 KiB random", RANDOM, PAGE_SIZE},
    {"64 KiB", RANDOM, 64 << 10}, {"1 MiB", RANDOM, MIB},    {"256 pages", SCATTER, PAGE_SIZE},
    {"dump", DUMP, MIB},
};
#define COLUMNS (sizeof(columns) / sizeof(columns[0]))

static struct subject subjects[MOST_SUBJECTS];
static size_t subject_count;
static double samples[MOST_SUBJECTS][MOST_ROUNDS];
static uint64_t start, end, seed = 20;
static uint8_t buffer[MIB] __attribute__((aligned(4096)));

/* ------------------------------------------------------------------------------------------------ one sample ----- */

static void scatter(struct microvmi_read_request *requests)
{
    size_t i;

    for (i = 0; i < SCATTERED; i++) {
        requests[i].physical_address = random_address(&seed, start, end, PAGE_SIZE, PAGE_SIZE);
        requests[i].buffer = buffer + i * PAGE_SIZE;
        requests[i].size = PAGE_SIZE;
    }
}

static bool read_scattered(const struct subject *subject, struct microvmi_read_request *requests)
{
    bool all = true;
    size_t i;

    if (subject->batch != NULL)
        return subject->batch(subject->context, requests, SCATTERED);
    for (i = 0; i < SCATTERED; i++)
        all &= subject->read(subject->context, requests[i].physical_address, requests[i].buffer, PAGE_SIZE,
                             &requests[i].bytes_read);
    return all;
}

static bool read_everything(const struct subject *subject)
{
    uint64_t address, done;
    bool all = true;

    for (address = start; address < end; address += MIB)
        all &= subject->read(subject->context, address, buffer, MIB, &done);
    return all;
}

/* Nanoseconds for each of `calls` calls. */
static double sample(const struct subject *subject, const struct column *column, size_t calls)
{
    static struct microvmi_read_request requests[SCATTERED];
    uint64_t addresses[MOST_CALLS], begin, done;
    size_t alignment = column->size < PAGE_SIZE ? 8 : PAGE_SIZE, i;
    bool all = true;

    for (i = 0; i < calls; i++) {
        addresses[i] = random_address(&seed, start, end, column->size, alignment);
        if (column->kind == HOT)
            addresses[i] = start + (end - start) / 3 / 8 * 8;
    }
    scatter(requests);
    begin = now_ns();
    for (i = 0; i < calls; i++) {
        if (column->kind == SCATTER)
            all &= read_scattered(subject, requests);
        else if (column->kind == DUMP)
            all &= read_everything(subject);
        else
            all &= subject->read(subject->context, addresses[i], buffer, column->size, &done);
    }
    begin = now_ns() - begin;
    CHECK_SAYS(all, "%s: a read failed: %s", subject->name, column->name);
    return (double)begin / (double)calls;
}

/* How many calls make a sample long enough to be timed. */
static size_t calibrate(const struct subject *subject, const struct column *column)
{
    size_t calls = 1;

    if (column->kind == DUMP || column->kind == SCATTER)
        return 1;
    while (calls < MOST_CALLS && sample(subject, column, calls) * (double)calls < SAMPLE_NS)
        calls *= 2;
    return calls;
}

/* ------------------------------------------------------------------------------------------------ rounds --------- */

static int ascending(const void *first, const void *second)
{
    double difference = *(const double *)first - *(const double *)second;

    return (difference > 0) - (difference < 0);
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof(*values), ascending);
    return count % 2 == 1 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

/* Every subject takes its turn, another one first in each round. */
static void measure(const struct column *column, double seconds)
{
    size_t calls[MOST_SUBJECTS], rounds = 0, i, which;
    uint64_t stop;
    double middle;

    for (i = 0; i < subject_count; i++)
        calls[i] = calibrate(&subjects[i], column);
    stop = now_ns() + (uint64_t)(seconds * 1e9);
    for (; rounds < FEWEST_ROUNDS || (rounds < MOST_ROUNDS && now_ns() < stop); rounds++) {
        for (i = 0; i < subject_count; i++) {
            which = (rounds + i) % subject_count;
            samples[which][rounds] = sample(&subjects[which], column, calls[which]);
        }
    }
    for (i = 0; i < subject_count; i++) {
        middle = median(samples[i], rounds);
        printf("cell\t%s\t%s\t%.3f\t%.3f\n", subjects[i].name, column->name, samples[i][0], middle);
    }
    fflush(stdout);
}

/* One thread and two, the limit and ours in turn; the gain is the median of each round's own. */
static void measure_threads(const struct subject *measured[2], double seconds)
{
    double rates[2][2][RATE_ROUNDS], gains[2][RATE_ROUNDS];
    int round, i, threads;

    for (round = 0; round < RATE_ROUNDS; round++) {
        for (i = 0; i < 2; i++) {
            for (threads = 1; threads <= 2; threads++)
                rates[i][threads - 1][round] = scale_rate(measured[i]->read, measured[i]->context, threads,
                                                          seconds / RATE_ROUNDS, start, end);
            gains[i][round] = rates[i][1][round] / rates[i][0][round];
        }
    }
    for (i = 0; i < 2; i++) {
        printf("number\trate %s 1\t%.0f\n", measured[i]->name, median(rates[i][0], RATE_ROUNDS));
        printf("number\trate %s 2\t%.0f\n", measured[i]->name, median(rates[i][1], RATE_ROUNDS));
        printf("number\tgain %s\t%.4f\n", measured[i]->name, median(gains[i], RATE_ROUNDS));
    }
}

/* Reads of a machine that this very context paused: the library may keep what it read. */
static void measure_cached(const struct subject *ours)
{
    size_t calls, rounds;

    CHECK(ours->resume(ours->context) && ours->pause(ours->context));
    calls = calibrate(ours, &columns[0]);
    for (rounds = 0; rounds < CACHED_ROUNDS; rounds++)
        samples[0][rounds] = sample(ours, &columns[0], calls);
    printf("number\tcached\t%.3f\n", median(samples[0], rounds));
}

/* ------------------------------------------------------------------------------------------------ truth ---------- */

/* Compare what `subject` reads with what `truth` does, everywhere and by every call that is timed. */
static bool agrees(const struct subject *subject, const struct subject *truth)
{
    static uint8_t expected[MIB];
    struct microvmi_read_request requests[SCATTERED];
    uint64_t address, done;
    size_t i, size;

    for (address = start; address < end; address += MIB) {
        if (!subject->read(subject->context, address, buffer, MIB, &done) || done != MIB)
            return false;
        CHECK(truth->read(truth->context, address, expected, MIB, &done));
        if (memcmp(buffer, expected, MIB) != 0)
            return false;
    }
    for (i = 0; i < 400; i++) {
        size = columns[1 + i % 3].size;
        address = random_address(&seed, start, end, size, size < PAGE_SIZE ? 8 : PAGE_SIZE);
        memset(buffer, 0xa5, size);
        if (!subject->read(subject->context, address, buffer, size, &done) || done != size)
            return false;
        CHECK(truth->read(truth->context, address, expected, size, &done));
        if (memcmp(buffer, expected, size) != 0)
            return false;
    }
    scatter(requests);
    memset(buffer, 0xa5, MIB);
    if (!read_scattered(subject, requests))
        return false;
    for (i = 0; i < SCATTERED; i++) {
        CHECK(truth->read(truth->context, requests[i].physical_address, expected, PAGE_SIZE, &done));
        if (memcmp(requests[i].buffer, expected, PAGE_SIZE) != 0)
            return false;
    }
    return true;
}

/* Leave out peers that do not read what is there; a limit, or ours, that does not is the end. */
static void check_all(size_t own)
{
    size_t i, kept = 0;

    for (i = 0; i < subject_count; i++) {
        if (agrees(&subjects[i], &subjects[0])) {
            subjects[kept++] = subjects[i];
            continue;
        }
        CHECK_SAYS(i >= own, "%s does not read what is there", subjects[i].name);
        printf("skipped\t%s\tit does not read what is there\n", subjects[i].name);
    }
    subject_count = kept;
}

/* ------------------------------------------------------------------------------------------------ arguments ------ */

static const char *find(char **arguments, const char *name)
{
    size_t length = strlen(name);

    for (; *arguments != NULL; arguments++)
        if (strncmp(*arguments, name, length) == 0 && (*arguments)[length] == '=')
            return *arguments + length + 1;
    return NULL;
}

static const char *need(char **arguments, const char *name)
{
    const char *value = find(arguments, name);

    CHECK_SAYS(value != NULL, "missing argument: %s=", name);
    return value;
}

static void add(const char *name, struct limit *context, read_function read, batch_function batch)
{
    subjects[subject_count++] = (struct subject){.name = name, .context = context, .read = read, .batch = batch};
}

/* The first one is what the others are compared with. */
static void add_limits(char **arguments)
{
    static struct limit mapping, file, process;
    const char *ram = find(arguments, "ram");

    if (ram != NULL) {
        mapping = limit_map(ram, end);
        file = limit_open(ram);
        add("memcpy", &mapping, limit_memcpy, NULL);
        add("pread", &file, limit_pread, NULL);
    } else {
        process = limit_process(need(arguments, "pid"), need(arguments, "hva"));
        add("pread /proc/PID/mem", &process, limit_pread, NULL);
        add("process_vm_readv", &process, limit_readv, limit_readv_batch);
    }
}

static void add_peer(char *argument, const char *vm_name)
{
    char *path = strchr(argument, '=');

    CHECK_SAYS(path != NULL && subject_count < MOST_SUBJECTS, "not NAME=PATH, or too many: %s", argument);
    *path++ = '\0';
    subject_count += use_upstream(&subjects[subject_count], argument, path, vm_name);
}

static void add_peers(char **arguments)
{
    const char *leechcore = find(arguments, "leechcore"), *vm_name = find(arguments, "vm");

    if (leechcore != NULL)
        subject_count += use_leechcore(&subjects[subject_count], leechcore, need(arguments, "device"));
    for (; *arguments != NULL; arguments++)
        if (strncmp(*arguments, "peer=", 5) == 0)
            add_peer(*arguments + 5, vm_name);
}

int main(int argc, char **argv)
{
    double seconds = atof(need(argv, "seconds"));
    size_t own, c;

    (void)argc;
    start = strtoull(need(argv, "start"), NULL, 0);
    end = strtoull(need(argv, "end"), NULL, 0);
    CHECK(start < end && (end - start) % MIB == 0);
    add_limits(argv);
    CHECK(use_microvmi(&subjects[subject_count], "ours", need(argv, "library"), need(argv, "uri")));
    own = ++subject_count;
    add_peers(argv);
    check_all(own);
    for (c = 0; c < COLUMNS; c++)
        measure(&columns[c], seconds);
    measure_threads((const struct subject *[]){&subjects[0], &subjects[own - 1]}, seconds);
    if (find(argv, "pid") != NULL)
        measure_cached(&subjects[own - 1]);
    return 0;
}
