/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watcher's part of events: what is placed in the machine by QEMU's stub for debuggers is removed, and the machine runs
 * if it is to. The stub is still connected, as this program has a duplicate of the process's end. It comes first, and the
 * monitor after it: somebody else may use that, and the guest waits.
 */
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "watcher.h"

#define DEVICE "microvmi-events" /* stub.py has that as well */
#define LABEL "\"label\":\"" DEVICE "\""

#define GREETING 150  /* milliseconds for a monitor that may be in use */
#define ANSWER 2000   /* milliseconds for the stub, which answers as soon as QEMU has stopped all vCPUs */
#define UNMARKING 100 /* milliseconds */
#define STALE 50      /* milliseconds in which a stop still comes that was under way before */
#define STOPS 64      /* of those */
#define LOOKS 5       /* for one that comes later still */
#define LOOK_NS 20000000
#define MOST_VCPUS 1024
#define LARGEST (1u << 16)

static char packet[LARGEST + 1];
static unsigned vcpus[MOST_VCPUS];
static size_t vcpu_count;

static long now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static bool is_open(void)
{
    struct pollfd stub = {WATCH_OWN, 0, 0};

    return poll(&stub, 1, 0) == 0;
}

/* A packet of a text. */
struct framed {
    char text[48];
};

static struct framed framed(const char *text)
{
    struct framed whole;
    unsigned char sum = 0;
    const char *byte;

    for (byte = text; *byte != '\0'; byte++)
        sum = (unsigned char)(sum + (unsigned char)*byte);
    snprintf(whole.text, sizeof whole.text, "$%s#%02x", text, sum);
    return whole;
}

static void say(const char *text)
{
    struct framed whole = framed(text);

    (void)send(WATCH_OWN, whole.text, strlen(whole.text), MSG_NOSIGNAL);
}

/* The next byte; -1 if none comes by then. */
static int next(long end)
{
    static unsigned char data[4096];
    static ssize_t size, place;
    struct pollfd stub = {WATCH_OWN, POLLIN, 0};
    long left = end - now();

    if (place == size) {
        place = 0;
        size = poll(&stub, 1, left < 0 ? 0 : (int)left) > 0 ? recv(WATCH_OWN, data, sizeof data, MSG_DONTWAIT) : 0;
        size = size < 0 ? 0 : size;
    }
    return size == 0 ? -1 : data[place++];
}

/* The next packet is in `packet`, or as much of it as there is room for; false if none comes within the milliseconds. */
static bool hear(int milliseconds)
{
    long end = now() + milliseconds;
    size_t size = 0;
    int byte;

    while ((byte = next(end)) != '$')
        if (byte < 0)
            return false;
    while ((byte = next(end)) != '#') {
        if (byte < 0)
            return false;
        if (size < LARGEST)
            packet[size++] = (char)byte;
    }
    packet[size] = '\0';
    return next(end) >= 0 && next(end) >= 0;
}

/* Ask a machine that stands. */
static bool ask(const char *question)
{
    say(question);
    return hear(ANSWER);
}

/*
 * The machine stands, wherever it was, and all that was said before is answered. The interrupt is no byte of a packet then,
 * nor an answer that the last packet waits for. `before`: what QEMU is to take in one go with it.
 */
static bool halt(const char *before)
{
    long end = now() + ANSWER;
    char whole[128];

    snprintf(whole, sizeof whole, "%s+\x03%s", before, framed("qC").text);
    (void)send(WATCH_OWN, whole, strlen(whole), MSG_NOSIGNAL);
    while (hear((int)(end - now())))
        if (strncmp(packet, "QC", 2) == 0)
            return true;
    return false;
}

static bool list_vcpus(void)
{
    const char *question = "qfThreadInfo";

    while (vcpu_count < MOST_VCPUS && ask(question) && packet[0] == 'm') {
        char *item = packet + 1, *end = item;

        for (; vcpu_count < MOST_VCPUS && *item != '\0'; item = *end == ',' ? end + 1 : end) {
            vcpus[vcpu_count] = (unsigned)strtoul(item, &end, 16);
            if (end == item)
                return false;
            vcpu_count++;
        }
        question = "qsThreadInfo";
    }
    return vcpu_count > 0;
}

static void choose(unsigned vcpu)
{
    char text[32];

    snprintf(text, sizeof text, "Hc%x", vcpu);
    ask(text);
}

/* QEMU removes all that is placed when it is asked why a vCPU stands: who asks that begins a session. */
static bool remove_all(void)
{
    size_t index;

    for (index = 0; index < vcpu_count; index++) {
        choose(vcpus[index]);
        if (!ask("?"))
            return false;
    }
    return true;
}

/*
 * QEMU may still be to stop a vCPU after an instruction, for ever one that sleeps; it gives that up for the vCPU that is
 * chosen when the machine is stopped. So it is let go on and stopped in one go, and is paused then, not held by a debugger.
 * Nothing is stepped: a locked instruction may be lost by that in a page with something that is watched.
 */
static bool unmark_all(void)
{
    long end = now() + UNMARKING;
    size_t index;

    for (index = 0; index < vcpu_count && (index == 0 || now() < end); index++) {
        choose(vcpus[index]);
        if (!halt(framed("vCont;c").text))
            return false;
    }
    return true;
}

/* It goes on, whatever stops it once more that was under way; but not if somebody else pauses it. */
static void go(void)
{
    int stops = 0;

    do {
        say("vCont;c");
    } while (hear(STALE) && strncmp(packet, "T05", 3) == 0 && stops++ < STOPS);
}

/* Whether nothing is placed any more, and the machine is as it is to be. `held`: it may stand as by a debugger. */
static bool heal(bool runs, bool held)
{
    if (!halt("") || !list_vcpus() || !remove_all() || ((runs || held) && !unmark_all()))
        return false;
    if (runs)
        go();
    return true;
}

/* Whether the machine is to run: what is paused by somebody else is not. `held`: it may stand as by a debugger. */
static bool is_to_run(int monitor, const struct watch_machine *machine, bool *held)
{
    *held = true;
    if (monitor < 0 || !watch_ask(monitor, WATCH_EXECUTE("query-status")))
        return machine->runs;
    *held = watch_has("\"status\":\"debug\"");
    if (watch_has("\"status\":\"paused\""))
        return machine->runs && machine->interrupted;
    return watch_has("\"status\":\"running\"") || (machine->runs && *held);
}

/* Whether QEMU has connected to the stub. */
static bool is_attached(int monitor)
{
    size_t size;
    const char *device;

    if (monitor < 0 || !watch_ask(monitor, WATCH_EXECUTE("query-chardev")))
        return is_open();
    device = watch_object(LABEL, &size);
    return device != NULL && memmem(device, size, "\"frontend-open\":true", strlen("\"frontend-open\":true")) != NULL;
}

/* Whether somebody else's debugger may hold the machine: a stub that was opened meanwhile. */
static bool is_held_by_others(int monitor)
{
    return !watch_ask(monitor, WATCH_EXECUTE("query-chardev")) || watch_has(LABEL) || watch_has("\"label\":\"gdb");
}

/* What still comes to stop the machine, which nobody hears of any more, does not. */
static void release(int monitor)
{
    const struct timespec pause = {0, LOOK_NS};
    int looks;

    for (looks = 0; looks < LOOKS; looks++) {
        if (!watch_ask(monitor, WATCH_EXECUTE("query-status")))
            return;
        if (watch_has("\"status\":\"debug\"")) {
            if (is_held_by_others(monitor))
                return;
            watch_ask(monitor, WATCH_EXECUTE("cont"));
        }
        nanosleep(&pause, NULL);
    }
}

/* End the stub, which nobody else can have while its socket is open here. The machine may stand by it still. */
static void end(int monitor, bool runs, bool healed)
{
    if (!is_open())
        return;
    if (is_attached(monitor))
        watch_ask(monitor, WATCH_EXECUTE_WITH("human-monitor-command", "\"command-line\":\"gdbserver none\""));
    else if (watch_has(LABEL))
        watch_ask(monitor, WATCH_EXECUTE_WITH("chardev-remove", "\"id\":\"" DEVICE "\""));
    watch_ask(monitor, WATCH_EXECUTE_WITH("closefd", "\"fdname\":\"" DEVICE "\"")); /* if it was not connected yet */
    if (!runs)
        return;
    if (!healed && watch_ask(monitor, WATCH_EXECUTE("query-status")) && watch_has("\"status\":\"paused\""))
        watch_ask(monitor, WATCH_EXECUTE("cont"));
    release(monitor);
}

enum watch_outcome watch_events(const struct watch_machine *machine)
{
    int monitor = watch_connect(machine, GREETING);
    bool held, runs = is_to_run(monitor, machine, &held);
    bool healed = is_attached(monitor) && heal(runs, held);

    if (monitor < 0)
        monitor = watch_connect(machine, WATCH_PATIENCE);
    if (monitor >= 0) {
        end(monitor, runs, healed);
        close(monitor);
    }
    return WATCH_OVER;
}
