/* SPDX-License-Identifier: Apache-2.0 */
/* What programs make of the rounds that they measured, and their arguments. */
#include "bench.h"

static int ascending(const void *first, const void *second)
{
    double difference = *(const double *)first - *(const double *)second;

    return (difference > 0) - (difference < 0);
}

double quantile(double *values, size_t count, double part)
{
    double place = part * (double)(count - 1);
    size_t below = (size_t)place;

    qsort(values, count, sizeof(*values), ascending);
    if (below + 1 == count)
        return values[below];
    return values[below] + (place - (double)below) * (values[below + 1] - values[below]);
}

double median(double *values, size_t count)
{
    return quantile(values, count, 0.5);
}

void print_pair(const char *name, double *ours, double *partner, size_t rounds)
{
    double *ratios = calloc(rounds, sizeof(*ratios));
    size_t i;

    CHECK(ratios != NULL);
    for (i = 0; i < rounds; i++)
        ratios[i] = ours[i] / partner[i];
    printf("pair\t%s\t%.3f\t%.3f", name, median(ours, rounds), median(partner, rounds));
    printf("\t%.5f\t%.5f", quantile(ratios, rounds, 0.25), median(ratios, rounds));
    printf("\t%.5f\t%.3f\t%.3f\n", quantile(ratios, rounds, 0.75), ours[0], partner[0]);
    fflush(stdout);
    free(ratios);
}

const char *argument(char **arguments, const char *name)
{
    size_t length = strlen(name);

    for (; *arguments != NULL; arguments++)
        if (strncmp(*arguments, name, length) == 0 && (*arguments)[length] == '=')
            return *arguments + length + 1;
    return NULL;
}

const char *need(char **arguments, const char *name)
{
    const char *value = argument(arguments, name);

    CHECK_SAYS(value != NULL, "missing argument: %s=", name);
    return value;
}
