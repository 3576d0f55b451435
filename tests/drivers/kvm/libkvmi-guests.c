/* SPDX-License-Identifier: Apache-2.0 */
/* The tests' libkvmi, second part: listening, shaking hands, and the end of machines; see libkvmi.c. */
#include "libkvmi.h"

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
