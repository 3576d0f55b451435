/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads of a driver of frames, each beside what it cannot do without, in turns.
 *
 * Arguments, each NAME=VALUE:
 *   library, uri      ours, and what it opens
 *   size              bytes of memory from address 0 on
 *   seconds           for each column
 *   name              what the results are called
 *   empty             a library with an empty call into Python, or
 *   kvmi, socket      a libkvmi, and where another machine with the same memory connects, or
 *   fdp, machine      a libFDP, and the machine's name
 *   uri2, socket2     second machines, for two threads: nothing else is measured then
 *
 * Prints pairs (see print_pair()): NAME COLUMN, in ns per call; NAME "two threads", reads of 4 KiB a second.
 */
#include "bench.h"

#define MOST_ROUNDS 20000
#define FEWEST_ROUNDS 5
#define RATE_ROUNDS 15

static const struct column columns[] = {{"8 B", RANDOM, 8}, {"1 MiB", RANDOM, MIB}, {"256 pages", SCATTER, PAGE_SIZE}};
#define COLUMNS (sizeof(columns) / sizeof(columns[0]))

static void measure(const char *name, const struct subject *ours, const struct subject *partner,
                    const struct column *column, double seconds)
{
    static double samples[2][MOST_ROUNDS];
    const struct subject *subjects[] = {ours, partner};
    size_t calls[] = {calibrate(ours, column), calibrate(partner, column)}, rounds = 0, i, which;
    uint64_t stop = now_ns() + (uint64_t)(seconds * 1e9);
    char text[100];

    for (; rounds < FEWEST_ROUNDS || (rounds < MOST_ROUNDS && now_ns() < stop); rounds++) {
        for (i = 0; i < 2; i++) {
            which = (rounds + i) % 2;
            samples[which][rounds] = sample(subjects[which], column, calls[which]);
        }
    }
    snprintf(text, sizeof(text), "%s %s", name, column->name);
    print_pair(text, samples[0], samples[1], rounds);
}

/* Two threads, each on a machine of its own. */
static void measure_threads(const char *name, const struct subject *ours, const struct subject *partner, double seconds)
{
    double rates[2][RATE_ROUNDS];
    char text[100];
    int round, i;

    for (round = 0; round < RATE_ROUNDS; round++) {
        for (i = 0; i < 2; i++) {
            const struct subject *both = i == 0 ? ours : partner;
            void *contexts[] = {both[0].context, both[1].context};

            rates[i][round] =
                scale_rates(both->read, contexts, 2, seconds / RATE_ROUNDS / 2, measured.start, measured.end);
        }
    }
    snprintf(text, sizeof(text), "%s two threads", name);
    print_pair(text, rates[0], rates[1], RATE_ROUNDS);
}

static void open_partner(char **arguments, struct subject *subject, const char *socket)
{
    const char *empty = argument(arguments, "empty"), *kvmi = argument(arguments, "kvmi");

    if (empty != NULL)
        use_empty(subject, empty);
    else if (kvmi != NULL)
        use_kvmi(subject, kvmi, need(arguments, socket));
    else
        use_fdp(subject, need(arguments, "fdp"), need(arguments, "machine"));
}

int main(int argc, char **argv)
{
    double seconds = atof(need(argv, "seconds"));
    const char *name = need(argv, "name"), *second = argument(argv, "uri2");
    struct subject ours[2], partner[2];
    size_t c, most = argument(argv, "empty") != NULL ? 1 : COLUMNS;

    (void)argc;
    measured.end = strtoull(need(argv, "size"), NULL, 0);
    CHECK(measured.end > 0 && measured.end % MIB == 0);
    CHECK(use_microvmi(&ours[0], "ours", need(argv, "library"), need(argv, "uri")));
    open_partner(argv, &partner[0], "socket");
    if (argument(argv, "empty") == NULL)
        CHECK_SAYS(agrees(&ours[0], &partner[0]), "%s: ours does not read what is there", name);
    for (c = 0; c < most && second == NULL; c++)
        measure(name, &ours[0], &partner[0], &columns[c], seconds);
    if (second != NULL) {
        CHECK(use_microvmi(&ours[1], "ours", need(argv, "library"), second));
        open_partner(argv, &partner[1], "socket2");
        measure_threads(name, ours, partner, seconds);
    }
    return 0;
}
