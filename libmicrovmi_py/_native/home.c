/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the Python is that the library starts: its libpython, and from where that lies its standard library.
 *
 * A library in a Python package was built elsewhere: the Python that the package is installed in comes before the one of
 * the build, and after both the system's. One beside our modules comes before all.
 */
#include "boot.h"
#include "facts.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MVI_REASON (PATH_MAX + 256)

/* False: it is too long. */
__attribute__((format(printf, 2, 3))) static bool mvi_home_path(char path[PATH_MAX], const char *format, ...)
{
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(path, PATH_MAX, format, arguments);
    va_end(arguments);
    return length >= 0 && length < PATH_MAX;
}

/* Only one that is there is tried; `reason` is why the first of them did not load. */
static void *mvi_home_open(const char *path, char *reason)
{
    void *python = access(path, R_OK) == 0 ? dlopen(path, RTLD_NOW | RTLD_GLOBAL) : NULL;

    if (python == NULL && reason[0] == '\0' && access(path, R_OK) == 0)
        snprintf(reason, MVI_REASON, "%s", dlerror());
    return python;
}

static void *mvi_home_open_in(const char *directory, const char *folder, char *reason)
{
    char path[PATH_MAX];

    return mvi_home_path(path, "%s/%s" MVI_PYTHON_SONAME, directory, folder) ? mvi_home_open(path, reason) : NULL;
}

static void *mvi_home_open_below(const char *prefix, char *reason)
{
    static const char *const folders[] = {"lib/", "lib/" MVI_PYTHON_MULTIARCH "/", "lib64/"};
    void *python = NULL;
    size_t index;

    for (index = 0; python == NULL && index < sizeof folders / sizeof *folders; index++)
        python = mvi_home_open_in(prefix, folders[index], reason);
    return python;
}

static void mvi_home_parent(char *path)
{
    char *slash = strrchr(path, '/');

    if (slash != NULL)
        *slash = '\0';
}

/*
 * The prefix of the Python that our package is installed in. From PREFIX/lib/python3.11/site-packages it is not far to
 * PREFIX/bin/python3.11; in a virtual environment that is a link to the real one.
 */
static bool mvi_home_of_package(char prefix[PATH_MAX])
{
    char program[PATH_MAX];

    if (!mvi_private_is_package() ||
        !mvi_home_path(program, "%s/../../../bin/python" MVI_PYTHON_VERSION, mvi_private_directory()) ||
        realpath(program, prefix) == NULL)
        return false;
    mvi_home_parent(prefix);
    mvi_home_parent(prefix);
    return true;
}

/* `below`: where our package's Python is, if that has none; else "". */
static void mvi_home_none(const char *below, const char *reason)
{
    mvi_boot_fail(MVI_FOR_NOW,
                  "no Python " MVI_PYTHON_VERSION " to start: %s%s%s%s: install its shared library " MVI_PYTHON_SONAME
                  ", or build libmicrovmi for the Python that is there",
                  below[0] != '\0' ? "none below " : "", below, below[0] != '\0' ? ", " : "",
                  reason[0] != '\0' ? reason : "no " MVI_PYTHON_LIBRARY);
}

void *mvi_home_load(void)
{
    char prefix[PATH_MAX], reason[MVI_REASON] = "";
    void *python = mvi_home_open_in(mvi_private_directory(), "", reason);

    if (!mvi_home_of_package(prefix))
        prefix[0] = '\0';
    if (python == NULL && prefix[0] != '\0')
        python = mvi_home_open_below(prefix, reason);
    if (reason[0] != '\0')
        prefix[0] = '\0'; /* there is one, which cannot be loaded */
    if (python == NULL)
        python = mvi_home_open(MVI_PYTHON_LIBRARY, reason);
    if (python == NULL && mvi_private_is_package()) {
        python = mvi_home_open_below("/usr/local", reason);
        python = python != NULL ? python : mvi_home_open_below("/usr", reason);
    }
    if (python == NULL)
        mvi_home_none(prefix, reason);
    return python;
}

static bool mvi_home_has_modules(const char *directory)
{
    char probe[PATH_MAX];

    return mvi_home_path(probe, "%s/os.py", directory) && access(probe, R_OK) == 0;
}

/* What else there is by the place of the modules: PREFIX/lib/python3.11 */
static bool mvi_home_around(struct mvi_home *home)
{
    strcpy(home->prefix, home->modules);
    mvi_home_parent(home->prefix);
    mvi_home_parent(home->prefix);
    return mvi_home_path(home->dynload, "%s/lib-dynload", home->modules) &&
           mvi_home_path(home->program, "%s/bin/python" MVI_PYTHON_VERSION, home->prefix);
}

/* From libpython's own directory, which is PREFIX/lib, PREFIX/lib64 or one below PREFIX/lib. A program that is its own
 * libpython may be known by a relative path, which tells nothing. */
static bool mvi_home_beside(const char *libpython, struct mvi_home *home)
{
    static const char *const ways[] = {"", "/..", "/../lib"};
    char directory[PATH_MAX], tried[PATH_MAX];
    size_t index;

    if (libpython[0] != '/' || realpath(libpython, directory) == NULL)
        return false;
    mvi_home_parent(directory);
    for (index = 0; index < sizeof ways / sizeof *ways; index++) {
        if (mvi_home_path(tried, "%s%s/" MVI_PYTHON_FOLDER, directory, ways[index]) && mvi_home_has_modules(tried) &&
            realpath(tried, home->modules) != NULL)
            return mvi_home_around(home);
    }
    return false;
}

static bool mvi_home_is_of_build(const char *libpython)
{
    char there[PATH_MAX], built_for[PATH_MAX];

    return realpath(libpython, there) != NULL && realpath(MVI_PYTHON_LIBRARY, built_for) != NULL &&
           strcmp(there, built_for) == 0;
}

bool mvi_home_find(const char *libpython, struct mvi_home *home)
{
    if (!mvi_home_is_of_build(libpython) && mvi_home_beside(libpython, home))
        return true;
    *home = (struct mvi_home){MVI_PYTHON_HOME, MVI_PYTHON_EXECUTABLE, MVI_PYTHON_STDLIB, MVI_PYTHON_DYNLOAD};
    if (mvi_home_has_modules(home->modules))
        return true;
    mvi_boot_fail(MVI_FOR_NOW,
                  "no Python standard library in %s: install Python " MVI_PYTHON_VERSION
                  ", or build libmicrovmi for the Python that is there",
                  home->modules);
    return false;
}
