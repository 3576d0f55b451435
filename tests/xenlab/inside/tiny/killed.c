/* SPDX-License-Identifier: Apache-2.0 */
/* A client that is killed in the middle of an event leaves a domain that the next client can run on. */
#include "domain.h"

#include <signal.h>
#include <sys/wait.h>

#define EVENTS 20
#define ANNOUNCEMENT 'e' /* the victim's word that its event is open */

/* Never answers the event it got. */
static int victim(void)
{
    char word = ANNOUNCEMENT;
    void *vm = open_tiny();

    watch(vm, MICROVMI_EVENT_CR, 3);
    watch(vm, MICROVMI_EVENT_MSR, MSR_SYSENTER_CS);
    (void)next_event(vm);
    CHECK(write(STDOUT_FILENO, &word, 1) == 1);
    pause();
    return 0;
}

static void kill_a_client(const char *program)
{
    int ends[2], status;
    char word = 0;
    pid_t child;

    CHECK(pipe(ends) == 0);
    child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        execl(program, program, "victim", (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    CHECK_SAYS(read(ends[0], &word, 1) == 1 && word == ANNOUNCEMENT, "the victim got no event");
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    close(ends[0]);
}

static void next_client(void)
{
    void *vm = open_domain(TINY);
    int i;

    CHECK_SAYS(!counts(vm, 0.5), "the victim left no open event");
    watch(vm, MICROVMI_EVENT_CR, 3);
    for (i = 0; i < EVENTS; i++) {
        struct microvmi_event event = next_event(vm);

        WORKS(microvmi_reply_event(vm, &event, NULL));
    }
    microvmi_destroy(vm);
}

int main(int argc, char **argv)
{
    void *vm;

    if (argc > 1)
        return victim();
    kill_a_client(argv[0]);
    next_client();
    vm = open_domain(TINY);
    CHECK_SAYS(counts(vm, 10), "the guest stands still after the next client");
    microvmi_destroy(vm);
    return 0;
}
