/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Calls of libvirt's library, which waits without a limit: they are made on a thread of ours, and who wants the answer
 * waits for it as long as it likes. Read by cffi and by the C compiler alike.
 */

/* The addresses of the functions that are called. */
struct mvi_libvirt_functions {
    uint64_t connect;      /* virConnectOpen */
    uint64_t disconnect;   /* virConnectClose */
    uint64_t look_up;      /* virDomainLookupByUUIDString */
    uint64_t forget;       /* virDomainFree */
    uint64_t command;      /* virDomainQemuMonitorCommand */
    uint64_t hand_over;    /* virDomainQemuMonitorCommandWithFiles; 0: a library that does not have it */
    uint64_t suspend;      /* virDomainSuspend */
    uint64_t resume;       /* virDomainResume */
    uint64_t state;        /* virDomainGetState */
    uint64_t error_number; /* virGetLastErrorCode */
    uint64_t error_domain; /* virGetLastErrorDomain */
    uint64_t error_text;   /* virGetLastErrorMessage */
    uint64_t set_handler;  /* virConnSetErrorFunc */
};

/* What is to be done; the first has to be MVI_LIBVIRT_OPEN. */
enum mvi_libvirt_order {
    MVI_LIBVIRT_OPEN, /* connect, and find the domain */
    MVI_LIBVIRT_COMMAND,
    MVI_LIBVIRT_SUSPEND,
    MVI_LIBVIRT_RESUME,
    MVI_LIBVIRT_STATE,
};

/* A connection, to one domain, and the thread that makes its calls; of one caller at a time. */
struct mvi_libvirt;

/* NULL: no memory, or no thread. */
struct mvi_libvirt *mvi_libvirt_new(const struct mvi_libvirt_functions *functions, const char *uri, const char *uuid);

/*
 * Have it done, and wait `limit` ns at the most: 0, or an errno: EREMOTEIO, the library refused; ETIMEDOUT, it is under
 * way still, and nothing else can be done on this connection any more, or it is never done, as the thread had no turn in
 * that time; ENOMEM or EMFILE, nothing was done. `text` is what the monitor is told; with it goes the descriptor `fd` unless
 * that is negative. It stays the caller's.
 */
int32_t mvi_libvirt_do(struct mvi_libvirt *libvirt, uint32_t order, const char *text, int32_t fd, int64_t limit);

/* Of what was done: the monitor's answer, or what the library says of its error. Until the next order. */
const char *mvi_libvirt_text(const struct mvi_libvirt *libvirt);
/* And the state of the domain, its reason in the upper 32 bits; or the number of the library's error, and what part of the
 * library it is of. */
int64_t mvi_libvirt_number(const struct mvi_libvirt *libvirt);

/* Hang up, and wait for that `limit` ns at the most: a call that is under way longer is left to the thread. */
void mvi_libvirt_free(struct mvi_libvirt *libvirt, int64_t limit);

/* How many threads there are whose call of that libvirtd is under way still though nobody waits for it any more. */
uint32_t mvi_libvirt_left(const char *uri);

/*
 * Have the library print nothing of the errors of threads of ours that are not about a connection yet, and those of others
 * as it would: by virSetErrorFunc and virDefaultErrorFunc. Those of our connections nobody hears but us in any case.
 */
void mvi_libvirt_hush(uint64_t set_handler, uint64_t usual_handler);
