/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host-state MODE [URI]: what belongs to the host stays as it was, when another machine is opened as well.
 *   process   locale, umask, working directory, environment, rounding, limits
 *   signals   the disposition of every signal, the mask, the pending alarm; SIGINT still kills
 *   fds PATH  a host without stdin, stdout and stderr: the library does not sit down on 0 to 2
 */
#include <fcntl.h>
#include <fenv.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "api.h"

#define SIGNALS 64

extern char **environ;

static const char *another;

/* Everything a host may do, with one failure among it. */
static void use_all(void)
{
    const char *error = NULL;
    void *vm = open_or_fail(FAKE "?holes=0x4000-0x5000");
    uint8_t byte;

    check_frame(vm, 3);
    CHECK(microvmi_pause(vm) && microvmi_resume(vm));
    microvmi_destroy(vm);
    if (another != NULL) {
        vm = open_or_fail(another);
        CHECK_SAYS(microvmi_read_physical(vm, 0, &byte, 1, NULL), "%s", microvmi_last_error());
        microvmi_destroy(vm);
    }
    CHECK(microvmi_open("vmi:///?vm_name=there-is-no-such-machine", &error) == NULL);
    rs_cstring_free((char *)error);
}

/* ---------------------------------------------------------------------------------------------------- process ---- */

struct process {
    char locale[256];
    char directory[4096];
    mode_t mask;
    char **environment;
    size_t variables;
    uint64_t environment_sum;
    int rounding;
    struct rlimit limits[RLIM_NLIMITS];
};

static void sum_environment(struct process *state)
{
    char **variable;
    const char *at;

    state->environment = environ;
    state->environment_sum = 5381;
    for (variable = environ; *variable != NULL; variable++) {
        state->variables++;
        for (at = *variable; *at != '\0'; at++) {
            state->environment_sum = state->environment_sum * 33 + (unsigned char)*at;
        }
        state->environment_sum = state->environment_sum * 33 + (uintptr_t)*variable;
    }
}

static void look(struct process *state)
{
    int i;

    memset(state, 0, sizeof(*state));
    snprintf(state->locale, sizeof(state->locale), "%s", setlocale(LC_ALL, NULL));
    CHECK(getcwd(state->directory, sizeof(state->directory)) != NULL);
    state->mask = umask(0);
    umask(state->mask);
    sum_environment(state);
    state->rounding = fegetround();
    for (i = 0; i < RLIM_NLIMITS; i++) {
        CHECK(getrlimit((__rlimit_resource_t)i, &state->limits[i]) == 0);
    }
}

static void process_is_unchanged(void)
{
    struct process before, after;

    umask(0137);
    CHECK(chdir("/") == 0);
    CHECK(fesetround(FE_UPWARD) == 0);
    look(&before);
    use_all();
    look(&after);
    CHECK_SAYS(strcmp(before.locale, after.locale) == 0, "locale: %s, then %s", before.locale, after.locale);
    CHECK_SAYS(strcmp(before.directory, after.directory) == 0, "directory: %s", after.directory);
    CHECK_SAYS(before.mask == after.mask, "umask: %o, then %o", before.mask, after.mask);
    CHECK_SAYS(before.environment == after.environment && before.variables == after.variables &&
                   before.environment_sum == after.environment_sum,
               "the environment changed");
    CHECK_SAYS(before.rounding == after.rounding, "the rounding mode changed");
    CHECK_SAYS(memcmp(before.limits, after.limits, sizeof(before.limits)) == 0, "a resource limit changed");
}

/* ---------------------------------------------------------------------------------------------------- signals ---- */

struct signals {
    struct sigaction actions[SIGNALS + 1];
    bool known[SIGNALS + 1];
    sigset_t mask;
    stack_t stack;
};

static void on_signal(int number)
{
    (void)number;
}

static void look_at_signals(struct signals *state)
{
    int i;

    memset(state, 0, sizeof(*state));
    for (i = 1; i <= SIGNALS; i++) {
        state->known[i] = sigaction(i, NULL, &state->actions[i]) == 0;
    }
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &state->mask) == 0);
    CHECK(sigaltstack(NULL, &state->stack) == 0);
}

static void compare_signals(const struct signals *before, const struct signals *after)
{
    int i;

    for (i = 1; i <= SIGNALS; i++) {
        CHECK_SAYS(before->known[i] == after->known[i] &&
                       before->actions[i].sa_handler == after->actions[i].sa_handler &&
                       before->actions[i].sa_flags == after->actions[i].sa_flags,
                   "the disposition of signal %d changed", i);
        CHECK_SAYS(sigismember(&before->mask, i) == sigismember(&after->mask, i), "signal %d in the mask changed", i);
    }
    CHECK_SAYS(before->stack.ss_sp == after->stack.ss_sp && before->stack.ss_flags == after->stack.ss_flags,
               "the alternate signal stack changed");
}

static void sigint_still_kills(void)
{
    int status = 0;
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0) {
        signal(SIGINT, SIG_DFL);
        use_all();
        raise(SIGINT);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_SAYS(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT, "SIGINT did not end the host: status 0x%x", status);
}

static void signals_are_unchanged(void)
{
    static const int own[] = {SIGUSR1, SIGCHLD, SIGTERM};
    struct signals before, after;
    struct sigaction action;
    sigset_t blocked;
    size_t i;

    sigint_still_kills();
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    for (i = 0; i < sizeof(own) / sizeof(own[0]); i++) {
        CHECK(sigaction(own[i], &action, NULL) == 0);
    }
    CHECK(signal(SIGHUP, SIG_IGN) != SIG_ERR);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR2);
    sigaddset(&blocked, SIGWINCH);
    CHECK(pthread_sigmask(SIG_BLOCK, &blocked, NULL) == 0);
    look_at_signals(&before);
    use_all();
    look_at_signals(&after);
    compare_signals(&before, &after);
}

/* -------------------------------------------------------------------------------------------- -- no stdio ----- */

static void standard_descriptors_stay_closed(const char *image)
{
    int report = fcntl(STDERR_FILENO, F_DUPFD, 10), fd;
    const char *error = NULL;
    void *vm, *dump;

    CHECK(report >= 10);
    for (fd = 0; fd <= 2; fd++) {
        CHECK(close(fd) == 0);
    }
    vm = microvmi_open(FAKE, &error);
    dump = microvmi_open(image, &error);
    for (fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) != -1) {
            dprintf(report, "the library keeps descriptor %d, which the host may take for a standard stream\n", fd);
            _exit(1);
        }
    }
    CHECK(dup2(report, STDERR_FILENO) == STDERR_FILENO);
    CHECK_SAYS(vm != NULL && dump != NULL, "cannot open without standard streams: %s", error);
    check_frame(vm, 1);
    microvmi_destroy(dump);
    microvmi_destroy(vm);
}

int main(int argc, char **argv)
{
    const char *mode = argc >= 2 ? argv[1] : "";

    another = argc == 3 ? argv[2] : NULL;
    if (strcmp(mode, "process") == 0) {
        process_is_unchanged();
    } else if (strcmp(mode, "signals") == 0) {
        signals_are_unchanged();
    } else if (strcmp(mode, "fds") == 0 && argc == 3) {
        standard_descriptors_stay_closed(argv[2]);
    } else {
        FAIL("usage: host-state process|signals [URI], or host-state fds PATH");
    }
    return 0;
}
