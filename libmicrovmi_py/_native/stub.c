/* SPDX-License-Identifier: Apache-2.0 */
/* A client of a debugger's stub; see stub.h. */
#include "internal.h"

#include "stub.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define MVI_STUB_TRAP "T05"
#define MVI_STUB_WATCH ";watch:"

/*
 * Nanoseconds for which an answer is looked for before this thread sleeps: a stub has most of them ready sooner, and to be
 * woken takes about as long as to be answered.
 */
#define MVI_STUB_LOOK 150000

static int64_t mvi_stub_nanoseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

/* Milliseconds. */
static int64_t mvi_stub_now(void)
{
    return mvi_stub_nanoseconds() / 1000000;
}

/* Wait until a descriptor is ready, until a time of mvi_stub_now(). `wake`: another, which ends the wait; or -1. */
static int32_t mvi_stub_await(int socket, short events, int wake, int64_t end)
{
    struct pollfd both[] = {{.fd = socket, .events = events}, {.fd = wake, .events = POLLIN}};
    int64_t left = end - mvi_stub_now();
    int ready = poll(both, 2, left > 0 ? (int)left : 0);

    if (ready < 0)
        return errno == EINTR ? 0 : errno; /* who looks again finds nothing, and comes back */
    if (both[1].revents != 0)
        return MVI_STUB_WOKEN;
    return ready == 0 ? MVI_STUB_LATE : 0;
}

int32_t mvi_stub_send(const struct mvi_stub *stub, const uint8_t *bytes, size_t size, int32_t milliseconds)
{
    int64_t end = mvi_stub_now() + milliseconds;
    int32_t failed = 0;

    while (size > 0 && failed == 0) {
        ssize_t sent = send(stub->socket, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent >= 0) {
            bytes += sent;
            size -= (size_t)sent;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            failed = mvi_stub_await(stub->socket, POLLOUT, -1, end);
        } else if (errno != EINTR) {
            failed = errno;
        }
    }
    return failed;
}

/* Receive what there is, if there is anything. */
static int32_t mvi_stub_receive(struct mvi_stub *stub)
{
    size_t room = stub->filled < sizeof stub->received ? sizeof stub->received - stub->filled : 0;
    ssize_t size;

    if (room == 0)
        return MVI_STUB_LONG;
    size = recv(stub->socket, stub->received + stub->filled, room, MSG_DONTWAIT);
    if (size == 0)
        return MVI_STUB_ENDED;
    if (size < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : errno;
    stub->filled += (uint32_t)size;
    return 0;
}

int32_t mvi_stub_go(struct mvi_stub *stub, const uint8_t *bytes, size_t size, int32_t milliseconds)
{
    int64_t end = mvi_stub_now() + milliseconds;
    uint32_t before = stub->filled;
    int32_t failed = mvi_stub_send(stub, bytes, size, milliseconds);

    while (failed == 0 && stub->filled == before) {
        failed = mvi_stub_await(stub->socket, POLLIN, -1, end);
        if (failed == 0)
            failed = mvi_stub_receive(stub);
    }
    return failed == MVI_STUB_LATE ? 0 : failed;
}

/* A hexadecimal digit, as a stub writes them; else 16. */
static unsigned mvi_stub_digit(uint8_t byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10u : 16;
}

/* What lies between a place of what was received and the end of the packet that begins there, if it is whole. */
struct mvi_stub_packet {
    const uint8_t *data;
    uint32_t size;
    uint32_t end; /* behind its checksum */
};

/* 0: there is one; LATE: it is not whole yet. */
static int32_t mvi_stub_packet_at(const struct mvi_stub *stub, uint32_t start, struct mvi_stub_packet *packet)
{
    const uint8_t *bytes = stub->received, *hash;
    uint32_t index = start;
    uint8_t sum = 0;

    while (index < stub->filled && bytes[index] == '+')
        index++;
    if (index == stub->filled)
        return MVI_STUB_LATE;
    if (bytes[index] != '$')
        return MVI_STUB_GARBAGE;
    packet->data = bytes + ++index;
    hash = memchr(packet->data, '#', stub->filled - index);
    if (hash == NULL || bytes + stub->filled - hash < 3)
        return MVI_STUB_LATE;
    packet->size = (uint32_t)(hash - packet->data);
    packet->end = (uint32_t)(hash - bytes) + 3;
    for (index = 0; index < packet->size; index++)
        sum += packet->data[index];
    return mvi_stub_digit(hash[1]) << 4 == (sum & 0xf0u) && mvi_stub_digit(hash[2]) == (sum & 0xfu) ? 0
                                                                                                    : MVI_STUB_GARBAGE;
}

/* Add a packet's data, in which a byte may stand behind `}`, changed. */
static int32_t mvi_stub_add(const struct mvi_stub_packet *packet, struct mvi_stub_packets *taken)
{
    uint32_t at = taken->count > 0 ? taken->ends[taken->count - 1] : 0, index;

    if (taken->count >= taken->most || packet->size > taken->capacity - at)
        return MVI_STUB_LONG;
    for (index = 0; index < packet->size; index++) {
        uint8_t byte = packet->data[index];

        if (byte == '}') {
            if (++index == packet->size)
                return MVI_STUB_GARBAGE;
            byte = packet->data[index] ^ 0x20;
        }
        taken->bytes[at++] = byte;
    }
    taken->ends[taken->count++] = at;
    return 0;
}

static bool mvi_stub_tells_stop(const struct mvi_stub_packet *packet)
{
    return packet->size > 0 && (packet->data[0] == 'T' || packet->data[0] == 'S');
}

/* Take the first packet of a kind among those that were received. LATE: there is none. */
static int32_t mvi_stub_find(struct mvi_stub *stub, bool stop, struct mvi_stub_packets *taken)
{
    struct mvi_stub_packet packet;
    uint32_t start = 0;
    int32_t failed;

    while ((failed = mvi_stub_packet_at(stub, start, &packet)) == 0 && mvi_stub_tells_stop(&packet) != stop)
        start = packet.end;
    if (failed != 0)
        return failed;
    failed = mvi_stub_add(&packet, taken);
    memmove(stub->received + start, stub->received + packet.end, stub->filled - packet.end);
    stub->filled -= packet.end - start;
    return failed;
}

/* Look for a while whether more comes; others get the processor meanwhile. */
static int32_t mvi_stub_look(struct mvi_stub *stub)
{
    int64_t end = mvi_stub_nanoseconds() + MVI_STUB_LOOK;
    uint32_t before = stub->filled;
    int32_t failed;

    while ((failed = mvi_stub_receive(stub)) == 0 && stub->filled == before && mvi_stub_nanoseconds() < end)
        sched_yield();
    return failed;
}

/* Receive more. A stop comes when the guest does something, an answer comes soon. */
static int32_t mvi_stub_more(struct mvi_stub *stub, bool stop, int wake, int64_t end)
{
    uint32_t before = stub->filled;
    int32_t failed = stop ? 0 : mvi_stub_look(stub);

    if (failed != 0 || stub->filled != before)
        return failed;
    failed = mvi_stub_await(stub->socket, POLLIN, wake, end);
    return failed != 0 ? failed : mvi_stub_receive(stub);
}

static int32_t mvi_stub_take_until(struct mvi_stub *stub, bool stop, int wake, int64_t end,
                                   struct mvi_stub_packets *taken)
{
    int32_t failed;

    while ((failed = mvi_stub_find(stub, stop, taken)) == MVI_STUB_LATE)
        if ((failed = mvi_stub_more(stub, stop, wake, end)) != 0)
            break;
    return failed;
}

int32_t mvi_stub_take(struct mvi_stub *stub, bool stop, int32_t milliseconds, struct mvi_stub_packets *taken)
{
    return mvi_stub_take_until(stub, stop, -1, mvi_stub_now() + milliseconds, taken);
}

int32_t mvi_stub_ask(struct mvi_stub *stub, const uint8_t *bytes, size_t size, uint32_t answers, int32_t milliseconds,
                     struct mvi_stub_packets *taken)
{
    int64_t end = mvi_stub_now() + milliseconds;
    int32_t failed = mvi_stub_send(stub, bytes, size, milliseconds);

    for (; failed == 0 && answers > 0; answers--)
        failed = mvi_stub_take_until(stub, false, -1, end, taken);
    return failed;
}

static bool mvi_stub_begins(const uint8_t *bytes, size_t size, const char *text)
{
    return size >= strlen(text) && memcmp(bytes, text, strlen(text)) == 0;
}

/* Whether a stop is one at a watchpoint of the plan's places. */
static bool mvi_stub_is_watch(const struct mvi_stub_plan *plan, const uint8_t *stop, uint32_t size)
{
    const uint8_t *found = memmem(stop, size, MVI_STUB_WATCH, strlen(MVI_STUB_WATCH));
    uint64_t address = 0;
    uint32_t index;

    if (found == NULL)
        return false;
    for (found += strlen(MVI_STUB_WATCH); found < stop + size && mvi_stub_digit(*found) < 16; found++)
        address = address << 4 | mvi_stub_digit(*found);
    for (index = 0; index < plan->place_count; index++)
        if (plan->places[index] == address)
            return true;
    return false;
}

/* Whether number n of the plan is told to be what is known of it. */
static bool mvi_stub_is_known(const struct mvi_stub_plan *plan, const struct mvi_stub_packets *taken, uint32_t number)
{
    uint32_t answer = 1 + plan->first + 2 * number, start, index;
    uint64_t value = 0;

    if (answer >= taken->count)
        return false;
    start = taken->ends[answer - 1];
    if (taken->ends[answer] - start != 16)
        return false;
    for (index = 0; index < 16; index++) {
        unsigned digit = mvi_stub_digit(taken->bytes[start + index]);

        if (digit == 16)
            return false;
        value |= (uint64_t)digit << (4 * (index ^ 1)); /* the two digits of a byte have the higher one first */
    }
    return ((value ^ plan->known[number]) & plan->mask) == 0;
}

/* Whether nobody has an interest in a stop, by what was taken of it: its packet first. */
static bool mvi_stub_is_passed(const struct mvi_stub_plan *plan, const struct mvi_stub_packets *taken)
{
    uint32_t number;

    if (plan->again_size == 0 || !mvi_stub_is_watch(plan, taken->bytes, taken->ends[0]))
        return false;
    for (number = 0; number < plan->known_count; number++)
        if (!mvi_stub_is_known(plan, taken, number))
            return false;
    return true;
}

/* As mvi_stub_stand() of one stop; LATE: nobody has an interest in it, and the machine goes on. */
static int32_t mvi_stub_stand_once(struct mvi_stub *stub, struct mvi_stub_plan *plan, int64_t end,
                                   struct mvi_stub_packets *taken)
{
    int32_t failed = mvi_stub_take_until(stub, true, stub->wake, end, taken);

    if (failed != 0 || !mvi_stub_begins(taken->bytes, taken->ends[0], MVI_STUB_TRAP))
        return failed;
    failed = mvi_stub_ask(stub, plan->questions, plan->question_size, plan->answers, plan->patience, taken);
    if (failed != 0 || !mvi_stub_is_passed(plan, taken))
        return failed;
    failed = mvi_stub_send(stub, plan->again, plan->again_size, plan->patience);
    if (failed != 0)
        return failed;
    taken->count = 0;
    plan->passed++;
    return MVI_STUB_LATE;
}

int32_t mvi_stub_stand(struct mvi_stub *stub, struct mvi_stub_plan *plan, int32_t milliseconds,
                       struct mvi_stub_packets *taken)
{
    int64_t end = mvi_stub_now() + milliseconds;
    int32_t failed;

    taken->count = 0;
    do { /* a stub may have sent so much that nothing is waited for: it keeps nobody */
        failed = mvi_stub_await(-1, 0, stub->wake, 0);
        if (failed == MVI_STUB_LATE || failed == 0) /* 0: a signal came */
            failed = mvi_stub_stand_once(stub, plan, end, taken);
    } while (failed == MVI_STUB_LATE && taken->count == 0 && mvi_stub_now() < end);
    return failed;
}
