/* SPDX-License-Identifier: Apache-2.0 */
/* The watcher's part of a pause: the machine runs again. */
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "watcher.h"

#define LOOKS 40 /* two seconds */

/* Whether a debugger's stub of ours is open; who listened to events may be the one that is watched over here. */
static bool is_listened_to(void)
{
    size_t size;
    const char *device = watch_object("\"label\":\"microvmi-events\"", &size);

    return device != NULL && memmem(device, size, "\"disconnected:", strlen("\"disconnected:")) == NULL;
}

/* Another watcher may have to remove first what is placed in the machine. */
static enum watch_outcome let_run(int monitor)
{
    static int looks;

    if (!watch_ask(monitor, WATCH_EXECUTE("query-chardev")))
        return WATCH_UNKNOWN;
    if (is_listened_to() && looks++ < LOOKS)
        return WATCH_LATER;
    if (!watch_ask(monitor, WATCH_EXECUTE("query-status")))
        return WATCH_UNKNOWN;
    if (watch_has("\"status\":\"paused\""))
        watch_ask(monitor, WATCH_EXECUTE("cont"));
    return WATCH_OVER;
}

enum watch_outcome watch_pause(const struct watch_machine *machine)
{
    int monitor = watch_connect(machine, WATCH_PATIENCE);
    enum watch_outcome outcome;

    if (monitor < 0)
        return WATCH_UNKNOWN;
    outcome = let_run(monitor);
    close(monitor);
    return outcome;
}
