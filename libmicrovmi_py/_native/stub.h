/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * A client of a debugger's stub whose machine runs at times: packets of the remote serial protocol, in both directions, and
 * what a stop of the machine costs in one call. Read by cffi and by the C compiler alike. Nothing that comes is trusted.
 */

/* Bytes that may lie there before what is waited for has come: who sends more is no stub. QEMU's packets have 4 KiB. */
#define MVI_STUB_SPACE 65536

/* One connection, by one caller at a time. All zero but for the descriptors, at first. */
struct mvi_stub {
    int32_t socket;  /* the caller's */
    int32_t wake;    /* who waits for a stop comes back when this is readable; -1: nothing wakes him */
    uint32_t filled; /* bytes of `received`: packets in the order they came in, of which the last may not be whole */
    uint8_t received[MVI_STUB_SPACE];
};

/* What a call ends with: 0, a number of errno, or one of these. */
enum mvi_stub_failure {
    MVI_STUB_LATE = -1,    /* nothing came in time */
    MVI_STUB_WOKEN = -2,   /* see `wake` */
    MVI_STUB_ENDED = -3,   /* it hung up */
    MVI_STUB_GARBAGE = -4, /* what is no packet, or has a wrong checksum */
    MVI_STUB_LONG = -5     /* no room for it, here or there */
};

/* Packets that came, each without its frame, one behind the other: that of number n ends at `ends[n]`. */
struct mvi_stub_packets {
    uint8_t *bytes;
    uint32_t *ends;
    uint32_t capacity; /* bytes there is room for */
    uint32_t most;     /* packets there is room for */
    uint32_t count;
};

/* What is to be done at a stop of the machine while it stands, and which stops are of no interest. */
struct mvi_stub_plan {
    const uint8_t *questions; /* framed packets, with so many answers */
    uint32_t question_size;
    uint32_t answers;
    int32_t patience; /* milliseconds that they may take */

    /*
     * At a watchpoint of one of `places` the machine goes on by `again`, a framed packet, as if it had not stopped: unless a
     * number that the answers tell is, in the bits of `mask`, another than that of `known`. Number n stands in answer
     * `first` + 2n: 16 digits, the lowest byte first.
     */
    const uint64_t *places;
    const uint64_t *known;
    const uint8_t *again;
    uint32_t again_size;
    uint32_t place_count; /* 0: all stops are of interest */
    uint32_t known_count;
    uint32_t first;
    uint64_t mask;
    uint64_t passed; /* stops that were of none */
};

/* Send bytes. */
int32_t mvi_stub_send(const struct mvi_stub *stub, const uint8_t *bytes, size_t size, int32_t milliseconds);

/*
 * Send a framed packet with which a machine that stands goes on, and wait until the stub has acknowledged it: what others
 * order then comes behind it. One that does not acknowledge is not waited for any longer than that.
 */
int32_t mvi_stub_go(struct mvi_stub *stub, const uint8_t *bytes, size_t size, int32_t milliseconds);

/* Take the next packet that tells of a stop, or the next that does not; those of the other kind stay. It is added. */
int32_t mvi_stub_take(struct mvi_stub *stub, bool stop, int32_t milliseconds, struct mvi_stub_packets *taken);

/* Send framed packets to a machine that stands, and take so many answers, which are added. */
int32_t mvi_stub_ask(struct mvi_stub *stub, const uint8_t *bytes, size_t size, uint32_t answers, int32_t milliseconds,
                     struct mvi_stub_packets *taken);

/*
 * Wait until a machine that runs has stopped: the packet that tells so, and behind it, if it tells of a trap, the answers to
 * the plan's questions. Nothing else is in `taken` then, which has room for a packet at least. With LATE or WOKEN, and
 * without a packet, the machine runs.
 */
int32_t mvi_stub_stand(struct mvi_stub *stub, struct mvi_stub_plan *plan, int32_t milliseconds,
                       struct mvi_stub_packets *taken);
