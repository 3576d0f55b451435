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
 *   number "gain SUBJECT" N          two threads' rate over one's; "gain SUBJECT low" and "high" are its quartiles
 *   spread LIMIT COLUMN LOW HIGH     quartiles of ours over that limit, round by round
 *   pair "kept page" ...             8 B of a machine that the context itself paused, beside pread(); see print_pair()
 *   skipped SUBJECT REASON
 */
#include "bench.h"

#define MOST_SUBJECTS 16
#define MOST_ROUNDS 20000
#define FEWEST_ROUNDS 5
#define RATE_ROUNDS 15
#define KEPT_ROUNDS 400

static const struct column columns[] = {
    {"8 B hot", HOT, 8},          {"8 B random", RANDOM, 8}, {"4 KiB random", RANDOM, PAGE_SIZE},
    {"64 KiB", RANDOM, 64 << 10}, {"1 MiB", RANDOM, MIB},    {"256 pages", SCATTER, PAGE_SIZE},
    {"dump", DUMP, MIB},
};
#define COLUMNS (sizeof(columns) / sizeof(columns[0]))

static struct subject subjects[MOST_SUBJECTS];
static size_t subject_count;
static double samples[MOST_SUBJECTS][MOST_ROUNDS];

/* ------------------------------------------------------------------------------------------------ rounds --------- */

/* How far ours was from a limit in half of the rounds. */
static void print_spread(const struct subject *limit, const double *theirs, const double *ours,
                         const struct column *column, size_t rounds)
{
    static double ratios[MOST_ROUNDS];
    size_t i;

    for (i = 0; i < rounds; i++)
        ratios[i] = ours[i] / theirs[i];
    printf("spread\t%s\t%s\t%.5f", limit->name, column->name, quantile(ratios, rounds, 0.25));
    printf("\t%.5f\n", quantile(ratios, rounds, 0.75));
}

static bool can(const struct subject *subject, const struct column *column)
{
    return !subject->words || column->size == 8;
}

/* Every subject takes its turn, another one first in each round; `own` is the place of ours, behind the limits. */
static void measure(const struct column *column, double seconds, size_t own)
{
    size_t calls[MOST_SUBJECTS], rounds = 0, i, which;
    uint64_t stop;
    double middle;

    for (i = 0; i < subject_count; i++)
        calls[i] = can(&subjects[i], column) ? calibrate(&subjects[i], column) : 0;
    stop = now_ns() + (uint64_t)(seconds * 1e9);
    for (; rounds < FEWEST_ROUNDS || (rounds < MOST_ROUNDS && now_ns() < stop); rounds++) {
        for (i = 0; i < subject_count; i++) {
            which = (rounds + i) % subject_count;
            if (calls[which] > 0)
                samples[which][rounds] = sample(&subjects[which], column, calls[which]);
        }
    }
    for (i = 0; i < own; i++)
        if (calls[i] > 0)
            print_spread(&subjects[i], samples[i], samples[own], column, rounds);
    for (i = 0; i < subject_count; i++) {
        if (calls[i] == 0)
            continue;
        middle = median(samples[i], rounds);
        printf("cell\t%s\t%s\t%.3f\t%.3f\n", subjects[i].name, column->name, samples[i][0], middle);
    }
    fflush(stdout);
}

/* One thread and two, the limit and ours in turn; the gain is the median of each round's own. */
static void measure_threads(const struct subject *compared[2], double seconds)
{
    double rates[2][2][RATE_ROUNDS], gains[2][RATE_ROUNDS];
    int round, i, threads;

    for (round = 0; round < RATE_ROUNDS; round++) {
        for (i = 0; i < 2; i++) {
            for (threads = 1; threads <= 2; threads++)
                rates[i][threads - 1][round] = scale_rate(compared[i]->read, compared[i]->context, threads,
                                                          seconds / RATE_ROUNDS, measured.start, measured.end);
            gains[i][round] = rates[i][1][round] / rates[i][0][round];
        }
    }
    for (i = 0; i < 2; i++) {
        printf("number\trate %s 1\t%.0f\n", compared[i]->name, median(rates[i][0], RATE_ROUNDS));
        printf("number\trate %s 2\t%.0f\n", compared[i]->name, median(rates[i][1], RATE_ROUNDS));
        printf("number\tgain %s\t%.4f\n", compared[i]->name, median(gains[i], RATE_ROUNDS));
        printf("number\tgain %s low\t%.4f\n", compared[i]->name, quantile(gains[i], RATE_ROUNDS, 0.25));
        printf("number\tgain %s high\t%.4f\n", compared[i]->name, quantile(gains[i], RATE_ROUNDS, 0.75));
    }
}

/* Reads of a machine that this very context paused: the library may keep what it read. Whoever had stopped it. */
static void measure_kept(const struct subject *ours, const struct subject *partner)
{
    size_t calls[2], round;

    (void)ours->resume(ours->context);
    CHECK(ours->pause(ours->context));
    calls[0] = calibrate(ours, &columns[0]);
    calls[1] = calibrate(partner, &columns[0]);
    for (round = 0; round < KEPT_ROUNDS; round++) {
        samples[0][round] = sample(ours, &columns[0], calls[0]);
        samples[1][round] = sample(partner, &columns[0], calls[1]);
    }
    print_pair("kept page", samples[0], samples[1], KEPT_ROUNDS);
}

/* ------------------------------------------------------------------------------------------------ truth ---------- */

/* Leave out peers that do not read what is there; a limit, or ours, that does not is the end. */
static void check_all(size_t own)
{
    size_t i, kept = 0;

    for (i = 0; i < subject_count; i++) {
        if (agrees(&subjects[i], &subjects[0])) {
            subjects[kept++] = subjects[i];
            continue;
        }
        CHECK_SAYS(i > own, "%s does not read what is there", subjects[i].name);
        printf("skipped\t%s\tit does not read what is there\n", subjects[i].name);
    }
    subject_count = kept;
}

/* ------------------------------------------------------------------------------------------------ arguments ------ */

static void add(const char *name, struct limit *context, read_function read, batch_function batch)
{
    subjects[subject_count++] = (struct subject){.name = name, .context = context, .read = read, .batch = batch};
}

/* The first one is what the others are compared with. */
static void add_limits(char **arguments)
{
    static struct limit mapping, file, process;
    const char *ram = argument(arguments, "ram");

    if (ram != NULL) {
        mapping = limit_map(ram, measured.end);
        file = limit_open(ram);
        add("memcpy", &mapping, limit_memcpy, NULL);
        add("pread", &file, limit_pread, NULL);
        add("a load of 8 bytes", &mapping, limit_load, NULL);
        subjects[subject_count - 1].words = true;
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
    const char *leechcore = argument(arguments, "leechcore"), *vm_name = argument(arguments, "vm");

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
    measured.start = strtoull(need(argv, "start"), NULL, 0);
    measured.end = strtoull(need(argv, "end"), NULL, 0);
    CHECK(measured.start < measured.end && (measured.end - measured.start) % MIB == 0);
    add_limits(argv);
    CHECK(use_microvmi(&subjects[subject_count], "ours", need(argv, "library"), need(argv, "uri")));
    own = subject_count++;
    add_peers(argv);
    check_all(own);
    for (c = 0; c < COLUMNS; c++)
        measure(&columns[c], seconds, own);
    measure_threads((const struct subject *[]){&subjects[0], &subjects[own]}, seconds);
    if (argument(argv, "pid") != NULL)
        measure_kept(&subjects[own], &subjects[0]);
    return 0;
}
