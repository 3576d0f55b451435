/* SPDX-License-Identifier: Apache-2.0 */
/* The watcher's part of a snapshot in the background: the capability is taken back once QEMU has ended the copy. */
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/types.h>
#include <unistd.h>

#include "watcher.h"

/* Texts that orders.py and migration.py have as well. */
#define MARK "microvmi-background-snapshot"
#define STREAM "microvmi-stream"
#define FILE_OF_STREAM "/memfd:microvmi-migration "
#define PROTECTION "anon_inode:[userfaultfd]"
#define SET_OF "\"opaque\":\"microvmi\""
#define FIRST_SET (1ul << 30) /* ours have such numbers */

#define MOST_SETS 16 /* that are removed at once */

static bool migrates(void)
{
    return watch_has("\"status\":") && !watch_has("\"status\":\"none\"") && !watch_has("\"status\":\"completed\"") &&
           !watch_has("\"status\":\"failed\"") && !watch_has("\"status\":\"cancelled\"");
}

/* Whether somebody who lives holds a lock on a stream that QEMU has, and takes a snapshot. */
static bool is_locked(int folder, const char *name)
{
    int file = openat(folder, name, O_RDONLY | O_CLOEXEC);
    bool locked = file >= 0 && flock(file, LOCK_SH | LOCK_NB) != 0;

    if (file >= 0)
        close(file);
    return locked;
}

/* LATER: QEMU has write-protected its RAM, or has a stream of a process that lives. UNKNOWN: it ended, or is not ours. */
static enum watch_outcome look_at_files(const struct watch_machine *machine)
{
    enum watch_outcome outcome = WATCH_OVER;
    char path[64], link[64];
    const struct dirent *entry;
    DIR *folder;

    snprintf(path, sizeof path, "/proc/%s/fd", machine->pid);
    folder = opendir(path);
    if (folder == NULL)
        return WATCH_UNKNOWN;
    while (outcome == WATCH_OVER && (entry = readdir(folder)) != NULL) {
        ssize_t size = readlinkat(dirfd(folder), entry->d_name, link, sizeof link - 1);
        bool busy;

        link[size < 0 ? 0 : size] = '\0';
        busy = strncmp(link, FILE_OF_STREAM, strlen(FILE_OF_STREAM)) == 0 ? is_locked(dirfd(folder), entry->d_name)
                                                                          : strcmp(link, PROTECTION) == 0;
        outcome = busy ? WATCH_LATER : WATCH_OVER;
    }
    closedir(folder);
    return outcome;
}

/* The next set of descriptors by which QEMU was to open a stream of ours, and never did; 0: there is none. */
static unsigned long next_set(int monitor)
{
    const char *place = NULL;
    unsigned long number;

    if (!watch_ask(monitor, WATCH_EXECUTE("query-fdsets")) || !watch_has(SET_OF))
        return 0;
    while ((number = watch_number("\"fdset-id\":", &place)) > 0 && number < FIRST_SET)
        ;
    return number;
}

/* What it was given before the capability, by either way. */
static void take_stream_back(int monitor)
{
    unsigned long set;
    char text[96];
    int count;

    watch_ask(monitor, WATCH_EXECUTE_WITH("closefd", "\"fdname\":\"" STREAM "\""));
    for (count = 0; count < MOST_SETS && (set = next_set(monitor)) > 0; count++) {
        snprintf(text, sizeof text, WATCH_EXECUTE_WITH("remove-fd", "\"fdset-id\":%lu"), set);
        watch_ask(monitor, text);
    }
}

/* The capability first, as without the mark it would be taken for somebody else's. */
static enum watch_outcome take_capability_back(int monitor, const struct watch_machine *machine)
{
    if (!watch_ask(monitor, WATCH_EXECUTE("query-chardev")))
        return WATCH_UNKNOWN;
    if (!watch_has("\"label\":\"" MARK "\""))
        return WATCH_OVER; /* it was not ordered, or another process of ours has taken it back */
    if (!watch_ask(monitor, WATCH_EXECUTE("query-migrate")))
        return WATCH_UNKNOWN;
    if (migrates() || look_at_files(machine) != WATCH_OVER ||
        !watch_ask(monitor,
                   WATCH_EXECUTE_WITH("migrate-set-capabilities", "\"capabilities\":[{\"capability\":"
                                                                  "\"background-snapshot\",\"state\":false}]")))
        return WATCH_LATER;
    watch_ask(monitor, WATCH_EXECUTE_WITH("chardev-remove", "\"id\":\"" MARK "\""));
    return WATCH_OVER;
}

/* Connect, look and hang up again: others use the monitor as well. */
enum watch_outcome watch_snapshot(const struct watch_machine *machine)
{
    enum watch_outcome outcome = look_at_files(machine);
    int monitor;

    if (outcome != WATCH_OVER)
        return outcome;
    monitor = watch_connect(machine, WATCH_PATIENCE);
    if (monitor < 0)
        return WATCH_UNKNOWN; /* QEMU has ended, mostly */
    outcome = take_capability_back(monitor, machine);
    if (outcome == WATCH_OVER)
        take_stream_back(monitor);
    close(monitor);
    return outcome;
}
