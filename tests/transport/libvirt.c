/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the library calls of libvirt's two, by their real names and signatures, for errors that the real ones cannot be
 * brought to. FAKE in the environment says which; a pipe at FAKE_GATE holds calls up until it is closed.
 */
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    FROM_RPC = 7,
    FROM_QEMU = 10
};
enum {
    INTERNAL_ERROR = 1,
    NO_DOMAIN = 42,
    AUTH_UNAVAILABLE = 80,
    OPERATION_INVALID = 55
};

typedef void handler(void *data, void *error);

void virDefaultErrorFunc(void *error);
static handler *handle = NULL, *handle_of_connections = NULL;
static __thread int last_code, last_domain;
static __thread const char *last_text;
static __thread int domain_is_asked; /* by this thread, so that an error is its connection's */
static int connections, domains, suspended;

static int is(const char *what)
{
    const char *asked = getenv("FAKE");

    return asked != NULL && strcmp(asked, what) == 0;
}

static int failed(int domain, int code, const char *text)
{
    last_domain = domain;
    last_code = code;
    last_text = text;
    if (domains > 0 && domain_is_asked && handle_of_connections != NULL)
        handle_of_connections(NULL, &last_code);
    else if (handle != NULL)
        handle(NULL, &last_code);
    else
        virDefaultErrorFunc(&last_code);
    return -1;
}

static void wait_at_gate(void)
{
    struct pollfd gate = {atoi(getenv("FAKE_GATE")), 0, 0};

    while ((gate.revents & POLLHUP) == 0)
        poll(&gate, 1, -1);
}

static int hanging;

/* How many calls hang: one whose thread had no turn yet is left as well, and ends then. */
int fake_hanging(void)
{
    return __atomic_load_n(&hanging, __ATOMIC_SEQ_CST);
}

void virSetErrorFunc(void *data, void *function)
{
    (void)data;
    handle = (handler *)(uintptr_t)function;
}

void virConnSetErrorFunc(void *connection, void *data, void *function)
{
    (void)connection;
    (void)data;
    handle_of_connections = (handler *)(uintptr_t)function;
    domain_is_asked = 1;
}

void virDefaultErrorFunc(void *error)
{
    fprintf(stderr, "libvirt: error %d\n", *(int *)error);
}

int virGetLastErrorCode(void)
{
    return last_code;
}

int virGetLastErrorDomain(void)
{
    return last_domain;
}

const char *virGetLastErrorMessage(void)
{
    return last_text;
}

void *virConnectOpen(const char *uri)
{
    if (is("uri"))
        return failed(FROM_QEMU, OPERATION_INVALID, uri), NULL;
    if (is("auth"))
        return failed(FROM_RPC, AUTH_UNAVAILABLE, "authentication unavailable"), NULL;
    if (is("hang")) {
        __atomic_add_fetch(&hanging, 1, __ATOMIC_SEQ_CST);
        wait_at_gate();
        __atomic_sub_fetch(&hanging, 1, __ATOMIC_SEQ_CST);
    }
    connections++;
    return &connections;
}

int virConnectClose(void *connection)
{
    (void)connection;
    return --connections;
}

void *virDomainLookupByUUIDString(void *connection, const char *uuid)
{
    (void)connection;
    (void)uuid;
    if (is("stranger"))
        return failed(FROM_QEMU, NO_DOMAIN, "Domain not found"), NULL;
    domains++;
    return &domains;
}

int virDomainFree(void *domain)
{
    (void)domain;
    return domains-- > 0 ? 0 : -1;
}

int virDomainSuspend(void *domain)
{
    (void)domain;
    suspended++;
    return is("refuse") ? failed(FROM_QEMU, OPERATION_INVALID, "cannot acquire state change lock") : 0;
}

int virDomainResume(void *domain)
{
    (void)domain;
    return is("broken") ? failed(FROM_RPC, INTERNAL_ERROR, "client socket is closed") : 0;
}

int virDomainGetState(void *domain, int *state, int *reason, unsigned flags)
{
    (void)domain;
    (void)flags;
    *state = 3;
    *reason = 1;
    return 0;
}

int virDomainQemuMonitorCommand(void *domain, const char *text, char **answer, unsigned flags)
{
    (void)domain;
    (void)flags;
    *answer = is("nothing") ? NULL : strdup(text);
    return 0;
}

#ifndef OLD
int virDomainQemuMonitorCommandWithFiles(void *domain, const char *text, unsigned given, int *given_fds,
                                         unsigned *returned, int **returned_fds, char **answer, unsigned flags)
{
    struct stat status;

    (void)domain;
    (void)text;
    (void)flags;
    fstat(given_fds[0], &status);
    *returned_fds = malloc(sizeof(int));
    (*returned_fds)[0] = dup(given_fds[0]); /* a descriptor that nobody asked for */
    *returned = 1;
    return asprintf(answer, "%u %lu", given, (unsigned long)status.st_ino);
}
#endif

/* Of a host that uses the library itself: an error of its own. */
int fake_error(void)
{
    return failed(FROM_QEMU, INTERNAL_ERROR, "the host's");
}

int fake_suspended(void)
{
    return suspended;
}

int fake_open(void)
{
    return connections + domains;
}
