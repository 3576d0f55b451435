/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which Python: the one that is in the process already, else the libpython that home.c finds: neither PATH nor
 * LD_LIBRARY_PATH has a say.
 */
#include "python.h"

#include "boot.h"
#include "facts.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

struct mvi_python_data mvi_python_data;

static pthread_mutex_t mvi_python_lock = PTHREAD_MUTEX_INITIALIZER;
static int mvi_python_filled; /* atomic: the functions of Python may be called */
static bool mvi_python_tells; /* a failure is start-up's */
static char mvi_python[32];   /* the version of the Python in this process, "3.11.2", once there is one */
static const char *mvi_python_path = "";

bool mvi_python_known(void)
{
    return __atomic_load_n(&mvi_python_filled, __ATOMIC_ACQUIRE) != 0;
}

const char *mvi_python_file(void)
{
    return mvi_python_path;
}

/* Whether `version`, as Py_GetVersion() tells it, is the one that this library was built for, in the same kind. */
static bool mvi_python_fits(const char *version)
{
    static const char built_for[] = MVI_PYTHON_VERSION ".";
#ifdef Py_GIL_DISABLED
    bool without_gil = true;
#else
    bool without_gil = false;
#endif

    snprintf(mvi_python, sizeof mvi_python, "%.*s%s", (int)strcspn(version, " "), version,
             strstr(version, "free-threading") != NULL ? " without GIL" : "");
    return strncmp(version, built_for, strlen(built_for)) == 0 &&
           (strstr(version, "free-threading") != NULL) == without_gil;
}

static bool mvi_python_fill(void *python)
{
    void **const data[] = {(void **)&mvi_python_data.capsule_type, (void **)&mvi_python_data.import_error,
                           (void **)&mvi_python_data.memory_error, (void **)&mvi_python_data.os_error,
                           (void **)&mvi_python_data.none};
    static const char *const names[] = {"PyCapsule_Type", "PyExc_ImportError", "PyExc_MemoryError", "PyExc_OSError",
                                        "_Py_NoneStruct"};
    const char *missing = NULL;
    size_t index;

    for (index = 0; index < sizeof names / sizeof *names; index++)
        if ((*data[index] = dlsym(python, names[index])) == NULL)
            missing = names[index];
    for (index = 0; index < mvi_python_count; index++)
        if ((mvi_python_functions[index] = dlsym(python, mvi_python_names[index])) == NULL)
            missing = mvi_python_names[index];
    if (missing != NULL && mvi_python_tells)
        mvi_boot_fail(MVI_FOR_GOOD, "the Python %s of this process has no %s: libmicrovmi cannot work with it",
                      mvi_python, missing);
    __atomic_store_n(&mvi_python_filled, missing == NULL, __ATOMIC_RELEASE);
    return missing == NULL;
}

/* Before Python 3.12 every call of Py_GetVersion() writes its buffer anew: this is called by one thread at a time, and
 * no more once it has succeeded. */
static bool mvi_python_take(void *python, const char *(*version)(void))
{
    Dl_info info;

    if (dladdr((void *)version, &info) != 0 && info.dli_fname != NULL)
        mvi_python_path = info.dli_fname;
    if (mvi_python_fits(version()))
        return mvi_python_fill(python);
    if (mvi_python_tells)
        mvi_boot_fail(MVI_FOR_GOOD,
                      "this process runs Python %s, and this libmicrovmi.so was built for Python " MVI_PYTHON_VERSION
                      ": build it for that Python, or use it from another process",
                      mvi_python);
    return false;
}

typedef const char *(*mvi_version_function)(void);

/* The host's own symbols come first, as with any library: a Python that is linked statically has no file of its own.
 * Extension modules look up Python's symbols globally, whoever loaded libpython. */
static bool mvi_python_join(bool *there)
{
    void *python = RTLD_DEFAULT;
    mvi_version_function version = (mvi_version_function)dlsym(RTLD_DEFAULT, "Py_GetVersion");

    if (version == NULL && (python = dlopen(MVI_PYTHON_SONAME, RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL)) != NULL)
        version = (mvi_version_function)dlsym(python, "Py_GetVersion");
    *there = version != NULL;
    return version != NULL && mvi_python_take(python, version);
}

static bool mvi_python_load(void)
{
    void *python = mvi_home_load();
    mvi_version_function version = python != NULL ? (mvi_version_function)dlsym(python, "Py_GetVersion") : NULL;

    if (version != NULL)
        return mvi_python_take(python, version);
    mvi_boot_fail(MVI_FOR_NOW, "no Python " MVI_PYTHON_VERSION " to start: what is " MVI_PYTHON_SONAME " is no Python");
    return false;
}

bool mvi_python_find(bool load)
{
    bool there = true, found;

    pthread_mutex_lock(&mvi_python_lock);
    mvi_python_tells = load;
    found = mvi_python_known() || mvi_python_join(&there) || (load && !there && mvi_python_load());
    pthread_mutex_unlock(&mvi_python_lock);
    return found;
}

bool mvi_python_is_idle(void)
{
    bool idle = pthread_mutex_trylock(&mvi_python_lock) == 0;

    if (idle)
        pthread_mutex_unlock(&mvi_python_lock);
    return idle;
}
