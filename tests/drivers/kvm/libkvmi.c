/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stand-in for libkvmi.so, for tests on machines that have no libkvmi: the functions that the KVM driver calls, under
 * their real names, speaking KVMi's real protocol on the socket. It is not libkvmi, and shares no code with it.
 *
 * As the real one it listens, accepts and shakes hands on a thread of its own, puts requests in order with a lock, queues
 * the events that arrive meanwhile, and gives up after 15 seconds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    ID_REPLY = 0, ID_EVENT = 1, ID_VERSION = 2, ID_GUEST = 5, ID_PAUSE = 7, ID_EVENTS = 9, ID_CR = 10, ID_MSR = 11,
    ID_GET_REGISTERS = 13, ID_SET_REGISTERS = 14, ID_READ = 17, ID_WRITE = 18, ID_ACCESS = 21, ID_RESPONSES = 27,
    ID_MAX_GFN = 29, ID_SINGLESTEP = 63,
};
#ifndef LIMIT_MS
#define LIMIT_MS 15000
#endif
enum { REGS = 144, SREGS = 312, COMMON = 544, DETAIL = 24, LARGEST = 8184 };

struct header { uint16_t id, size; uint32_t seq; };
struct greeting { uint32_t size; unsigned char uuid[16]; uint32_t pad; int64_t start; char name[64]; };
struct vcpu { uint16_t vcpu, pad1; uint32_t pad2; };
struct msr { uint32_t index, reserved; uint64_t data; };
struct msrs { uint32_t count, pad; struct msr entries[]; };

struct event {
    struct event *next;
    unsigned char common[COMMON], detail[DETAIL];
    unsigned char message[LARGEST];
    uint32_t seq;
};

struct dom {
    int fd;
    bool gone;
    pthread_mutex_t lock, queue;
    struct event *first, **last;
    struct greeting peer;
};

typedef int (*guest_fn)(void *dom, unsigned char (*uuid)[16], void *context);
typedef int (*handshake_fn)(const void *peer, void *answer, void *context);

struct listener {
    int fd, wake[2];
    pthread_t thread;
    guest_fn accept;
    handshake_fn handshake;
    void *context;
};

static uint32_t sequence;

static int fail(int error)
{
    errno = error;
    return -1;
}

/* ------------------------------------------------------------------------------------------------------------- bytes */

static int wait_for(struct dom *dom, short what, int ms)
{
    struct pollfd slot = {.fd = dom->fd, .events = what};
    int ready;

    do
        ready = poll(&slot, 1, ms);
    while (ready < 0 && errno == EINTR);
    if (ready == 0)
        return fail(ETIMEDOUT);
    if (ready < 0 || (slot.revents & (POLLHUP | POLLNVAL))) {
        dom->gone = true;
        return fail(EPIPE);
    }
    return 0;
}

static int receive(struct dom *dom, void *buffer, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t got;

        if (wait_for(dom, POLLIN, LIMIT_MS))
            return -1;
        got = recv(dom->fd, (char *)buffer + done, size - done, 0);
        if (got <= 0) {
            dom->gone = true;
            return fail(got ? errno : ENOTCONN);
        }
        done += (size_t)got;
    }
    return 0;
}

static int skip(struct dom *dom, size_t size)
{
    char bin[512];

    for (; size > 0; size -= size < sizeof bin ? size : sizeof bin)
        if (receive(dom, bin, size < sizeof bin ? size : sizeof bin))
            return -1;
    return 0;
}

static int transmit(struct dom *dom, uint16_t id, uint32_t seq, const void *head, size_t head_size, const void *data,
                    size_t size)
{
    struct header header = {id, (uint16_t)(head_size + size), seq};
    struct iovec parts[] = {{&header, sizeof header}, {(void *)head, head_size}, {(void *)data, size}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};
    ssize_t total = (ssize_t)(sizeof header + head_size + size);

    if (wait_for(dom, POLLOUT, LIMIT_MS))
        return -1;
    if (sendmsg(dom->fd, &message, MSG_NOSIGNAL) != total) {
        dom->gone = true;
        return fail(EPIPE);
    }
    return 0;
}

/* ------------------------------------------------------------------------------------------------------------ events */

static int take_event(struct dom *dom, const struct header *header)
{
    struct event *event = calloc(1, sizeof *event);
    uint16_t size;

    if (event == NULL || header->size > LARGEST || header->size < 8 || receive(dom, event->message, header->size)) {
        int error = event == NULL ? ENOMEM : dom->gone ? errno : EINVAL;

        free(event);
        return fail(error);
    }
    memcpy(&size, event->message, sizeof size);
    if (size < 8 || size > header->size || event->message[4] > 13 || event->message[4] == 12) {
        free(event);
        return fail(EINVAL);
    }
    memcpy(event->common, event->message, size < COMMON ? size : COMMON);
    memcpy(event->detail, event->message + size, header->size - size < DETAIL ? header->size - size : DETAIL);
    event->seq = header->seq;
    pthread_mutex_lock(&dom->queue);
    *dom->last = event;
    dom->last = &event->next;
    pthread_mutex_unlock(&dom->queue);
    return 0;
}

int kvmi_pop_event(void *handle, struct event **event)
{
    struct dom *dom = handle;

    pthread_mutex_lock(&dom->queue);
    *event = dom->first;
    if (*event != NULL) {
        dom->first = (*event)->next;
        if (dom->first == NULL)
            dom->last = &dom->first;
    }
    pthread_mutex_unlock(&dom->queue);
    return *event != NULL ? 0 : fail(EAGAIN);
}

int kvmi_wait_event(void *handle, int ms)
{
    struct dom *dom = handle;
    struct header header;
    int failed;

    pthread_mutex_lock(&dom->queue);
    failed = dom->first == NULL;
    pthread_mutex_unlock(&dom->queue);
    if (!failed)
        return 0;
    if (wait_for(dom, POLLIN, ms))
        return -1;
    pthread_mutex_lock(&dom->lock);
    failed = wait_for(dom, POLLIN, 0) || receive(dom, &header, sizeof header);
    if (!failed)
        failed = header.id == ID_EVENT ? take_event(dom, &header) : fail(EINVAL);
    pthread_mutex_unlock(&dom->lock);
    return failed ? -1 : 0;
}

int kvmi_reply_event(void *handle, unsigned int seq, const void *data, size_t size)
{
    struct dom *dom = handle;
    int failed;

    pthread_mutex_lock(&dom->lock);
    failed = transmit(dom, ID_REPLY, seq, NULL, 0, data, size);
    pthread_mutex_unlock(&dom->lock);
    return failed;
}

/* ---------------------------------------------------------------------------------------------------------- requests */

static int known_error(int32_t error)
{
    static const int same[] = {EPERM, ENOENT, E2BIG, EAGAIN, ENOMEM, EFAULT, EBUSY, EINVAL, EOPNOTSUPP};

    if (error == -1000)
        return ENOSYS;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        if (error == -same[i])
            return same[i];
    return EPROTO;
}

/* Reads up to the data of the reply to `id`, `seq`; their size. */
static int reply_to(struct dom *dom, uint16_t id, uint32_t seq, size_t *size)
{
    struct { int32_t error; uint32_t pad; } status;
    struct header header;

    for (;;) {
        if (receive(dom, &header, sizeof header))
            return -1;
        if (header.id != ID_EVENT)
            break;
        if (take_event(dom, &header))
            return -1;
    }
    if (header.id != id || header.seq != seq)
        return fail(ENOMSG);
    if (header.size < sizeof status)
        return fail(ENODATA);
    if (receive(dom, &status, sizeof status))
        return -1;
    *size = header.size - sizeof status;
    return status.error ? fail(known_error(status.error)) : 0;
}

static int answered(struct dom *dom, uint16_t id, uint32_t seq, void *reply, size_t wanted)
{
    size_t size, part;

    if (reply_to(dom, id, seq, &size))
        return -1;
    part = size < wanted ? size : wanted;
    if (receive(dom, reply, part))
        return -1;
    if (part < wanted)
        memset((char *)reply + part, 0, wanted - part);
    return skip(dom, size - part);
}

static int ask(struct dom *dom, uint16_t id, const void *head, size_t head_size, const void *data, size_t size,
               void *reply, size_t wanted)
{
    uint32_t seq = __atomic_add_fetch(&sequence, 1, __ATOMIC_RELAXED);
    int failed;

    pthread_mutex_lock(&dom->lock);
    failed = transmit(dom, id, seq, head, head_size, data, size) || answered(dom, id, seq, reply, wanted);
    pthread_mutex_unlock(&dom->lock);
    return failed ? -1 : 0;
}

int kvmi_get_vcpu_count(void *dom, unsigned int *count)
{
    return ask(dom, ID_GUEST, NULL, 0, NULL, 0, count, sizeof *count);
}

int kvmi_get_maximum_gfn(void *dom, unsigned long long *gfn)
{
    return ask(dom, ID_MAX_GFN, NULL, 0, NULL, 0, gfn, sizeof *gfn);
}

int kvmi_read_physical(void *dom, unsigned long long gpa, void *buffer, size_t size)
{
    uint64_t range[] = {gpa, size};

    return ask(dom, ID_READ, range, sizeof range, NULL, 0, buffer, size);
}

int kvmi_write_physical(void *dom, unsigned long long gpa, const void *buffer, size_t size)
{
    uint64_t range[] = {gpa, size};

    return ask(dom, ID_WRITE, range, sizeof range, buffer, size, NULL, 0);
}

int kvmi_get_registers(void *handle, unsigned short vcpu, void *regs, void *sregs, struct msrs *msrs, unsigned int *mode)
{
    struct { struct vcpu vcpu; uint16_t count, pad1; uint32_t pad2, indexes[16]; } request = {{vcpu, 0, 0}, 0, 0, 0, {0}};
    struct { uint32_t mode, pad; unsigned char regs[REGS], sregs[SREGS]; struct msrs msrs; } reply;
    struct dom *dom = handle;
    uint32_t seq = __atomic_add_fetch(&sequence, 1, __ATOMIC_RELAXED);
    size_t size, tail = msrs->count * sizeof *msrs->entries;
    int failed;

    if (msrs->count > 16)
        return fail(E2BIG);
    request.count = (uint16_t)msrs->count;
    for (uint32_t i = 0; i < msrs->count; i++)
        request.indexes[i] = msrs->entries[i].index;
    pthread_mutex_lock(&dom->lock);
    failed = transmit(dom, ID_GET_REGISTERS, seq, &request, 16 + 4 * msrs->count, NULL, 0) ||
             reply_to(dom, ID_GET_REGISTERS, seq, &size);
    if (!failed && size != sizeof reply + tail)
        failed = fail(E2BIG);
    failed = failed || receive(dom, &reply, sizeof reply) || receive(dom, msrs->entries, tail);
    pthread_mutex_unlock(&dom->lock);
    if (failed)
        return -1;
    memcpy(regs, reply.regs, REGS);
    memcpy(sregs, reply.sregs, SREGS);
    *mode = reply.mode;
    return 0;
}

int kvmi_set_registers(void *dom, unsigned short vcpu, const void *regs)
{
    struct vcpu head = {vcpu, 0, 0};

    return ask(dom, ID_SET_REGISTERS, &head, sizeof head, regs, REGS, NULL, 0);
}

int kvmi_set_page_access(void *dom, unsigned long long *gpa, unsigned char *access, unsigned short count,
                         unsigned short view)
{
    struct { uint16_t view, count; uint32_t pad; } head = {view, count, 0};
    struct { uint64_t gpa; unsigned char access, pad[7]; } *pages = calloc(count, 16);
    int failed;

    if (pages == NULL)
        return -1;
    for (unsigned short i = 0; i < count; i++) {
        pages[i].gpa = gpa[i];
        pages[i].access = access[i];
    }
    failed = ask(dom, ID_ACCESS, &head, sizeof head, pages, count * sizeof *pages, NULL, 0);
    free(pages);
    return failed;
}

static int switch_number(void *dom, uint16_t id, unsigned short vcpu, unsigned int number, bool enable)
{
    struct { struct vcpu vcpu; unsigned char enable, pad[3]; uint32_t number; } request = {
        {vcpu, 0, 0}, enable, {0}, number};

    return ask(dom, id, &request, sizeof request, NULL, 0, NULL, 0);
}

int kvmi_control_cr(void *dom, unsigned short vcpu, unsigned int cr, bool enable)
{
    return switch_number(dom, ID_CR, vcpu, cr, enable);
}

int kvmi_control_msr(void *dom, unsigned short vcpu, unsigned int msr, bool enable)
{
    return switch_number(dom, ID_MSR, vcpu, msr, enable);
}

#ifndef WITHOUT_SINGLESTEP
int kvmi_control_singlestep(void *dom, unsigned short vcpu, bool enable)
{
    return switch_number(dom, ID_SINGLESTEP, vcpu, 0, enable);
}
#endif

int kvmi_control_events(void *dom, unsigned short vcpu, int event, bool enable)
{
    struct { struct vcpu vcpu; uint16_t event; unsigned char enable, pad[5]; } request = {
        {vcpu, 0, 0}, (uint16_t)event, enable, {0}};

    return ask(dom, ID_EVENTS, &request, sizeof request, NULL, 0, NULL, 0);
}

/* Without replies up to the last command, which says that there are replies again. */
int kvmi_pause_all_vcpus(void *handle, unsigned int count)
{
    struct { unsigned char enable, now, pad[6]; } off = {0, 1, {0}}, on = {1, 1, {0}};
    struct { struct vcpu vcpu; unsigned char wait, pad[7]; } one = {{0, 0, 0}, 1, {0}};
    uint32_t seq = __atomic_add_fetch(&sequence, count + 2, __ATOMIC_RELAXED);
    struct dom *dom = handle;
    int failed;

    pthread_mutex_lock(&dom->lock);
    failed = transmit(dom, ID_RESPONSES, seq - count - 1, &off, sizeof off, NULL, 0);
    for (unsigned int i = 0; i < count && !failed; i++) {
        one.vcpu.vcpu = (uint16_t)i;
        failed = transmit(dom, ID_PAUSE, seq - count + i, &one, sizeof one, NULL, 0);
    }
    failed = failed || transmit(dom, ID_RESPONSES, seq, &on, sizeof on, NULL, 0) ||
             answered(dom, ID_RESPONSES, seq, NULL, 0);
    pthread_mutex_unlock(&dom->lock);
    return failed ? -1 : 0;
}

/* ----------------------------------------------------------------------------------------------------------- machines */

bool kvmi_domain_is_connected(const void *dom)
{
    return !((const struct dom *)dom)->gone;
}

int kvmi_connection_fd(const void *dom)
{
    return ((const struct dom *)dom)->fd;
}

void kvmi_domain_name(const void *dom, char *name, size_t size)
{
    if (size > 0) {
        strncpy(name, ((const struct dom *)dom)->peer.name, size - 1);
        name[size - 1] = 0;
    }
}

void kvmi_domain_close(void *handle, bool shut_down)
{
    struct dom *dom = handle;

    if (shut_down)
        shutdown(dom->fd, SHUT_RDWR);
    close(dom->fd);
    while (dom->first != NULL) {
        struct event *next = dom->first->next;

        free(dom->first);
        dom->first = next;
    }
    free(dom);
}

static int meet(struct listener *listener, struct dom *dom)
{
    struct { uint32_t size; unsigned char hash[20]; } answer = {sizeof answer, {0}};
    struct { uint32_t version, pad; unsigned char features[8]; } version;
    size_t rest = sizeof dom->peer - sizeof dom->peer.size, part;

    if (receive(dom, &dom->peer.size, sizeof dom->peer.size))
        return -1;
    if (dom->peer.size < sizeof dom->peer - sizeof dom->peer.name || dom->peer.size > 65536)
        return fail(EINVAL);
    part = dom->peer.size - sizeof dom->peer.size;
    if (receive(dom, dom->peer.uuid, part < rest ? part : rest) || skip(dom, part < rest ? 0 : part - rest))
        return -1;
    dom->peer.name[sizeof dom->peer.name - 1] = 0;
    if (listener->handshake != NULL && listener->handshake(&dom->peer, &answer, listener->context) < 0)
        return -1;
    if (send(dom->fd, &answer, sizeof answer, MSG_NOSIGNAL) != sizeof answer)
        return -1;
    return ask(dom, ID_VERSION, NULL, 0, NULL, 0, &version, sizeof version) || version.version < 1;
}

static void *listen_thread(void *arg)
{
    struct listener *listener = arg;

    for (;;) {
        struct pollfd slots[] = {{listener->fd, POLLIN, 0}, {listener->wake[0], POLLIN, 0}};
        struct dom *dom;
        int fd;

        if (poll(slots, 2, -1) < 0 || slots[1].revents || (fd = accept(listener->fd, NULL, NULL)) < 0)
            return NULL;
        dom = calloc(1, sizeof *dom);
        dom->fd = fd;
        dom->last = &dom->first;
        pthread_mutex_init(&dom->lock, NULL);
        pthread_mutex_init(&dom->queue, NULL);
        if (meet(listener, dom) || listener->accept(dom, &dom->peer.uuid, listener->context) != 0)
            kvmi_domain_close(dom, true);
    }
}

void kvmi_uninit(void *handle)
{
    struct listener *listener = handle;

    shutdown(listener->fd, SHUT_RDWR);
    if (write(listener->wake[1], "", 1) == 1)
        pthread_join(listener->thread, NULL);
    close(listener->fd);
    close(listener->wake[0]);
    close(listener->wake[1]);
    free(listener);
}

void *kvmi_init_unix_socket(const char *path, guest_fn accept_guest, handshake_fn handshake, void *context)
{
    struct listener *listener = calloc(1, sizeof *listener);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat found;

    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    listener->accept = accept_guest;
    listener->handshake = handshake;
    listener->context = context;
    listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if ((stat(path, &found) == 0 && unlink(path)) || bind(listener->fd, (struct sockaddr *)&address, sizeof address) ||
        listen(listener->fd, 0) || pipe(listener->wake) ||
        pthread_create(&listener->thread, NULL, listen_thread, listener)) {
        int error = errno;

        close(listener->fd);
        free(listener);
        errno = error;
        return NULL;
    }
    return listener;
}
