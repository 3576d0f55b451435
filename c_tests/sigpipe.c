/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sigpipe PEER DIRECTORY: a QMP peer that hangs up in the middle is an error, and the host, whose SIGPIPE has its
 * default, lives. PEER is a copy of this program whose name begins with `qemu-system-`, so that it is taken for a QEMU
 * by its process's name and command line: it listens on DIRECTORY/qmp and speaks as far as it is told to.
 */
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "api.h"

#define GREETING \
    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, \"major\": 7}, \"package\": \"\"}, " \
    "\"capabilities\": []}}\r\n"

enum stage {
    DEAF,        /* greet, but take nothing: the first send of the host already fails */
    GREET,       /* greet, then hang up */
    SAY_NOTHING, /* hang up at once */
    HALF_LINE,   /* greet, take a request, answer half a line, hang up */
    STAGES
};

/* ----------------------------------------------------------------------------------------------- the QMP peer ---- */

static void answer(int connection, enum stage stage)
{
    char request[4096];

    if (stage == DEAF) {
        CHECK(shutdown(connection, SHUT_RD) == 0);
    }
    if (stage != SAY_NOTHING) {
        (void)send(connection, GREETING, strlen(GREETING), MSG_NOSIGNAL);
    }
    if (stage == HALF_LINE && recv(connection, request, sizeof(request), 0) > 0) {
        (void)send(connection, "{\"retu", 6, MSG_NOSIGNAL);
    }
    if (stage == DEAF) {
        usleep(300 * 1000); /* stay until the host has sent */
    }
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);

    CHECK(listener >= 0 && strlen(path) < sizeof(address.sun_path));
    strcpy(address.sun_path, path);
    CHECK(bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(listener, 8) == 0);
    return listener;
}

/* One connection, then the end. */
static int serve(const char *path, enum stage stage)
{
    int listener = listen_at(path), connection;

    alarm(20);
    connection = accept(listener, NULL, NULL);
    CHECK(connection >= 0);
    answer(connection, stage);
    return 0;
}

/* --------------------------------------------------------------------------------------------------- the host ---- */

static pid_t start_peer(const char *peer, const char *name, const char *path, int stage)
{
    char option[200], number[16];
    struct stat status;
    pid_t child;
    int i;

    snprintf(option, sizeof(option), "unix:%s,server=on,wait=off", path);
    snprintf(number, sizeof(number), "%d", stage);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        execl(peer, peer, "-name", name, "-qmp", option, path, number, (char *)NULL);
        FAIL("%s: %s", peer, strerror(errno));
    }
    for (i = 0; i < 1000 && stat(path, &status) != 0; i++) {
        usleep(5000);
    }
    return child;
}

static void meet(const char *peer, const char *path, int stage)
{
    enum DriverType driver = MICROVMI_DRIVER_QEMU;
    struct DriverInitParamsFFI params;
    const char *error = NULL;
    char name[32];
    pid_t child;

    snprintf(name, sizeof(name), "sigpipe-%d", (int)getpid());
    child = start_peer(peer, name, path, stage);
    memset(&params, 0, sizeof(params));
    params.common.vm_name = name;
    CHECK_SAYS(microvmi_init(&driver, &params, &error) == NULL, "opened a peer that hangs up");
    CHECK(error != NULL && error[0] != '\0');
    CHECK_SAYS(microvmi_last_error_code() == MICROVMI_ERROR_VM_GONE ||
                   microvmi_last_error_code() == MICROVMI_ERROR_DRIVER_UNAVAILABLE,
               "stage %d: code %d, %s", stage, (int)microvmi_last_error_code(), error);
    rs_cstring_free((char *)error);
    kill(child, SIGKILL);
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK(unlink(path) == 0);
}

int main(int argc, char **argv)
{
    char path[100];
    int stage;

    if (argc == 7) {
        return serve(argv[5], (enum stage)atoi(argv[6]));
    }
    CHECK_SAYS(argc == 3, "usage: sigpipe PEER DIRECTORY");
    CHECK(snprintf(path, sizeof(path), "%s/qmp", argv[2]) < (int)sizeof(path));
    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    for (stage = 0; stage < STAGES; stage++) {
        meet(argv[1], path, stage);
    }
    return 0;
}
