/* SPDX-License-Identifier: Apache-2.0 */
/*
 * list: which machines there are.
 *
 *   cc -o list list.c -lmicrovmi
 *   ./list
 *
 * A line a machine: its driver, process, user, state, memory and vCPUs, its name, and the URI that opens it. Below is what is
 * in the way, if anything is. Ends with 1 if there are no machines.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libmicrovmi.h>

#define PROGRAM "list"
#define TRIES 8 /* machines come while they are counted */

/* All machines, to be freed; NULL after an error, which is printed. */
static struct microvmi_machine *list_machines(const char *driver, size_t *count)
{
    static const struct microvmi_machine initial = MICROVMI_MACHINE_INIT;
    struct microvmi_machine *machines = NULL, *more;
    size_t room = 64;
    int tries;

    for (tries = 0; tries < TRIES; tries++) {
        more = realloc(machines, room * sizeof(*machines));
        if (more == NULL) {
            break;
        }
        machines = more;
        machines[0] = initial;
        if (!microvmi_list_vms(driver, machines, room, count)) {
            fprintf(stderr, PROGRAM ": %s\n", microvmi_last_error());
            free(machines);
            return NULL;
        }
        if (*count <= room) {
            return machines;
        }
        room = *count + 64;
    }
    fprintf(stderr, PROGRAM ": no memory, or ever more machines\n");
    free(machines);
    return NULL;
}

/* A number, or - for one that is not known. */
static const char *known(char *text, size_t size, uint64_t number, bool is_known)
{
    if (is_known) {
        snprintf(text, size, "%" PRIu64, number);
    } else {
        snprintf(text, size, "-");
    }
    return text;
}

static void print_machine(const struct microvmi_machine *machine)
{
    static const char *const states[] = {"?", "running", "paused", "other"};
    char process[24], user[24], memory[24], vcpus[24];

    printf("%-10s %8s %6s %-8s %9s %5s  %-24s %s\n", machine->driver,
           known(process, sizeof(process), machine->process_id, machine->process_id != 0),
           known(user, sizeof(user), machine->user_id, machine->user_id != UINT32_MAX),
           states[machine->state < 4 ? machine->state : 0],
           known(memory, sizeof(memory), machine->memory >> 20, machine->memory != 0),
           known(vcpus, sizeof(vcpus), machine->vcpus, machine->vcpus != 0),
           machine->name[0] != '\0' ? machine->name : "-", machine->uri);
    if (machine->reason[0] != '\0') {
        printf("  %s: %s\n", machine->abilities != 0 ? "limited" : "cannot be opened", machine->reason);
    }
}

static int run(const char *driver)
{
    size_t count = 0, i;
    struct microvmi_machine *machines = list_machines(driver, &count);

    if (machines == NULL) {
        return 1;
    }
    if (count > 0) {
        printf("%-10s %8s %6s %-8s %9s %5s  %-24s %s\n", "DRIVER", "PROCESS", "USER", "STATE", "MiB", "VCPUS", "NAME",
               "URI");
    }
    for (i = 0; i < count; i++) {
        print_machine(&machines[i]);
    }
    if (count == 0) {
        fprintf(stderr, PROGRAM ": there are no machines\n");
    }
    free(machines);
    return count == 0;
}

static int usage(FILE *stream, int status)
{
    fputs("usage: list [DRIVER]\n"
          "List the machines that there are, of all drivers or of one, and the URIs that open them.\n",
          stream);
    return status;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    int option;

    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        return option == 'h' ? usage(stdout, 0) : usage(stderr, 2);
    }
    if (argc - optind > 1) {
        return usage(stderr, 2);
    }
    return run(optind < argc ? argv[optind] : NULL);
}
