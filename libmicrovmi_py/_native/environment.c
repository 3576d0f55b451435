/* SPDX-License-Identifier: Apache-2.0 */
/* Where this library is, what belongs to it, and whether the environment has a say. */
#include "boot.h"
#include "internal.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

static char mvi_library[PATH_MAX];      /* this library's file, "" if it is not known */
static char mvi_private[PATH_MAX + 32]; /* the directory with our Python modules, "" if there is none */
static bool mvi_in_package;             /* that is a Python's directory of packages */
static bool mvi_privileged;             /* the process has more rights than the user who started it */

/*
 * What the process is at this moment counts: a relative path means the working directory of now, and a program that
 * was started with more rights than its user has (setuid, setgid, file capabilities) may give up some of them later,
 * and keep what it did with them.
 */
__attribute__((constructor)) static void mvi_look_around(void)
{
    Dl_info info;

    if (dladdr((void *)&microvmi_version, &info) == 0 || info.dli_fname == NULL ||
        realpath(info.dli_fname, mvi_library) == NULL)
        mvi_library[0] = '\0';
    mvi_privileged = getauxval(AT_SECURE) != 0 || geteuid() != getuid() || getegid() != getgid();
}

const char *mvi_variable(const char *name)
{
    return mvi_privileged ? NULL : getenv(name);
}

bool mvi_environment_counts(void)
{
    return !mvi_privileged;
}

static bool mvi_has_package(const char *directory)
{
    char probe[PATH_MAX + 64];

    return snprintf(probe, sizeof probe, "%s/libmicrovmi_py/_capi/entry.py", directory) < (int)sizeof probe &&
           access(probe, R_OK) == 0;
}

/* LIBDIR/libmicrovmi/ beside an installed library; the directory of the package for a library inside the package. */
bool mvi_private_find(void)
{
    static const char in_package[] = "/libmicrovmi_py/lib";
    char *slash = strrchr(mvi_library, '/');
    int length = slash != NULL ? (int)(slash - mvi_library) : 0;
    int before = length - (int)strlen(in_package);

    if (before >= 0 && memcmp(mvi_library + before, in_package, strlen(in_package)) == 0) {
        snprintf(mvi_private, sizeof mvi_private, "%.*s", before, mvi_library);
        mvi_in_package = mvi_has_package(mvi_private);
        if (mvi_in_package)
            return true;
    }
    snprintf(mvi_private, sizeof mvi_private, "%.*s/libmicrovmi", length, mvi_library);
    if (mvi_has_package(mvi_private))
        return true;
    mvi_boot_fail(MVI_FOR_NOW,
                  "the Python part of libmicrovmi is not in %s: install the library together with that directory",
                  mvi_private);
    return false;
}

const char *mvi_private_directory(void)
{
    return mvi_private;
}

bool mvi_private_is_package(void)
{
    return mvi_in_package;
}
