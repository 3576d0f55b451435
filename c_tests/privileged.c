/* SPDX-License-Identifier: Apache-2.0 */
/*
 * privileged HOW LIBRARY: a program with more rights than the user who started it, who set MICROVMI_URI to the fake machine,
 * MICROVMI_PLUGIN_PATH to a folder of his with a driver `intruder`, and RUST_LOG to trace: none of them may count.
 *   keeps    it stays as it was started
 *   drops    it has given up its other user, and then uses the library
 *   plain    it has no such rights: all of them count
 * 77: the system did not give it any.
 */
#include <sys/auxv.h>

#include "api.h"

static void opens(bool expected, void *vm, const char *error, const char *what)
{
    CHECK_SAYS((vm != NULL) == expected, "%s: %s", what, error != NULL ? error : "opened");
    microvmi_destroy(vm);
    rs_cstring_free((char *)error);
}

int main(int argc, char **argv)
{
    const char *how = argc == 3 ? argv[1] : "", *error = NULL;
    bool plain = strcmp(how, "plain") == 0;
    void *vm;

    if (getauxval(AT_SECURE) == 0 && !plain) {
        return 77;
    }
    if (strcmp(how, "drops") == 0) {
        CHECK(setuid(getuid()) == 0 && setgid(getgid()) == 0 && geteuid() == getuid());
    }
    use_library(argv[2]);
    microvmi_envlogger_init();
    vm = microvmi_init(NULL, NULL, &error);
    opens(plain, vm, error, "MICROVMI_URI");
    vm = microvmi_open("vmi://intruder/", &error);
    opens(plain, vm, error, "MICROVMI_PLUGIN_PATH");
    return 0;
}
