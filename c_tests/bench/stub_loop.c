/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The least that who listens to a stock QEMU can do: a loop at its debugger's stub, with nothing around it.
 *
 * stub_loop DESCRIPTOR VCPUS COUNT watch ADDRESS...
 *     Watchpoints of 8 bytes each. At a stop CR3 of every vCPU is asked for, which tells who came to another address space.
 * stub_loop DESCRIPTOR VCPUS COUNT break ADDRESS
 *     A breakpoint. At a stop all registers of the vCPU are asked for, and it is led over the breakpoint by a step.
 *
 * The descriptor is a connection to the stub, whose machine stands. When everything is placed a line "ready" is printed. Ends
 * after COUNT events (changes, or stops), or with none in five seconds, and leaves the machine running with nothing placed.
 * Prints how many events and stops there were, and the nanoseconds from the first event to the last one, separated by tabs.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "bench.h"

#define PATIENCE 5000
#define MOST_VCPUS 64
#define CR3 "p1d"

static int connection;
static char received[1 << 16];
static size_t filled;

static void say(const char *packet)
{
    char framed[2048];
    unsigned char sum = 0;
    const char *byte;
    int size;

    for (byte = packet; *byte != '\0'; byte++)
        sum += (unsigned char)*byte;
    size = snprintf(framed, sizeof framed, "+$%s#%02x", packet, sum);
    CHECK(send(connection, framed, (size_t)size, MSG_NOSIGNAL) == size);
}

/* The next packet; NULL: none came in time. Good until the next call. */
static const char *packet(int milliseconds)
{
    static char taken[1 << 16];

    for (;;) {
        char *start = memchr(received, '$', filled),
             *end = start ? memchr(start, '#', filled - (start - received)) : NULL;
        struct pollfd ready = {.fd = connection, .events = POLLIN};
        ssize_t size;

        if (end != NULL && end + 3 <= received + filled) {
            memcpy(taken, start + 1, (size_t)(end - start - 1));
            taken[end - start - 1] = '\0';
            filled -= (size_t)(end + 3 - received);
            memmove(received, end + 3, filled);
            return taken;
        }
        if (poll(&ready, 1, milliseconds) <= 0)
            return NULL;
        size = recv(connection, received + filled, sizeof received - filled, 0);
        CHECK(size > 0);
        filled += (size_t)size;
    }
}

static const char *answer(void)
{
    const char *found = packet(PATIENCE);

    CHECK(found != NULL);
    return found;
}

static void order(const char *text)
{
    say(text);
    CHECK(strcmp(answer(), "OK") == 0);
}

/* Whether a machine that stands at a stop has a vCPU whose CR3 is another than before. */
static bool changed(int vcpus)
{
    static char before[MOST_VCPUS][17];
    char question[32];
    bool found = false;
    int vcpu;

    for (vcpu = 0; vcpu < vcpus; vcpu++) {
        snprintf(question, sizeof question, "Hg%x", vcpu + 1);
        say(question);
        say(CR3);
    }
    for (vcpu = 0; vcpu < vcpus; vcpu++) {
        const char *told;

        CHECK(strcmp(answer(), "OK") == 0);
        told = answer();
        CHECK(strlen(told) == 16);
        found |= memcmp(before[vcpu], told, 16) != 0;
        memcpy(before[vcpu], told, 16);
    }
    return found;
}

/* The vCPU that a stop tells of. */
static int stopped(const char *told)
{
    const char *thread = strstr(told, "thread:");
    unsigned number = 0;

    CHECK(thread != NULL && sscanf(thread, "thread:%x;", &number) == 1);
    return (int)number - 1;
}

static bool led_over(const char *stop)
{
    int vcpu = stopped(stop);
    char step[32];

    say("g");
    CHECK(strlen(answer()) > 500);
    snprintf(step, sizeof step, "vCont;s:%x", vcpu + 1);
    say(step);
    CHECK(answer()[0] == 'T');
    return true;
}

static void place(const char *what, char type, char **addresses, const char *size)
{
    char text[64];

    for (; *addresses != NULL; addresses++) {
        snprintf(text, sizeof text, "%c%c,%s,%s", what[0], type, *addresses, size);
        order(text);
    }
}

static const char *interrupt(void)
{
    static const char byte = 3;
    const char *told;

    CHECK(send(connection, &byte, 1, MSG_NOSIGNAL) == 1);
    told = packet(PATIENCE);
    CHECK(told != NULL);
    return told;
}

/* A vCPU executes an instruction, or sleeps. QEMU has it step on until a stop tells of it: another's may be told first. */
static void step(int vcpu)
{
    const char *told = NULL;
    int tries;

    for (tries = 0; tries < 10 && (told == NULL || stopped(told) != vcpu); tries++) {
        char text[32];

        snprintf(text, sizeof text, "Hc%x", vcpu + 1);
        order(text);
        snprintf(text, sizeof text, "vCont;s:%x", vcpu + 1);
        say(text);
        told = packet(200);
        told = told != NULL ? told : interrupt();
    }
}

/* The machine is stopped; each vCPU steps once, so that QEMU keeps no hit of what is taken away. */
static void stop(int vcpus)
{
    int vcpu;

    interrupt();
    for (vcpu = 0; vcpu < vcpus; vcpu++)
        step(vcpu);
}

/* Registers have numbers as soon as they were described. */
static void begin(void)
{
    const char *told;

    say("qSupported:multiprocess-");
    while ((told = answer())[0] == 'T')
        ;
    say("qXfer:features:read:target.xml:0,ffb");
    CHECK(answer()[0] == 'l');
}

int main(int count, char **arguments)
{
    bool watch = count > 5 && strcmp(arguments[4], "watch") == 0;
    long most, events = 0, stops = 0;
    uint64_t first = 0, last = 0;
    const char *told;
    int vcpus;

    CHECK(count > 5);
    connection = atoi(arguments[1]);
    vcpus = atoi(arguments[2]);
    most = atol(arguments[3]);
    CHECK(vcpus > 0 && vcpus <= MOST_VCPUS);
    begin();
    place("Z", watch ? '2' : '0', arguments + 5, watch ? "8" : "1");
    if (watch)
        changed(vcpus);
    say("vCont;c");
    puts("ready");
    fflush(stdout);
    while (events < most && (told = packet(PATIENCE)) != NULL) {
        stops++;
        if (watch ? changed(vcpus) : led_over(told)) {
            last = now_ns();
            first = events++ == 0 ? last : first;
        }
        say("vCont;c");
    }
    stop(vcpus);
    place("z", watch ? '2' : '0', arguments + 5, watch ? "8" : "1");
    order("D");
    printf("%ld\t%ld\t%llu\n", events, stops, (unsigned long long)(last - first));
    return 0;
}
