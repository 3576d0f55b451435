/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A libkvmi.so of our own, for tests on machines that have no libkvmi: the functions that the KVM driver calls, under
 * their real names, speaking KVMi's real protocol on the socket. It is not libkvmi, and shares no code with it.
 *
 * As the real one it listens, accepts and shakes hands on a thread of its own, puts requests in order with a lock, queues
 * the events that arrive meanwhile, and gives up after 15 seconds.
 */
#include "libkvmi.h"

static uint32_t sequence;

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

int receive(struct dom *dom, void *buffer, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t got = recv(dom->fd, (char *)buffer + done, size - done, MSG_DONTWAIT);

        if (got < 0 && errno == EAGAIN) {
            if (wait_for(dom, POLLIN, LIMIT_MS))
                return -1;
            continue;
        }
        if (got <= 0) {
            dom->gone = true;
            return fail(got ? errno : ENOTCONN);
        }
        done += (size_t)got;
    }
    return 0;
}

int skip(struct dom *dom, size_t size)
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

int ask(struct dom *dom, uint16_t id, const void *head, size_t head_size, const void *data, size_t size, void *reply,
        size_t wanted)
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
