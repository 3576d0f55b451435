/* SPDX-License-Identifier: Apache-2.0 */
/* Starting Python, isolated from the host's settings; and the state of the calling thread in it. */
#include "python.h"

#include "boot.h"
#include "facts.h"
#include "internal.h"
#include "take_turns.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static bool mvi_set_string(PyConfig *config, wchar_t **member, const char *text)
{
    return !PyStatus_Exception(PyConfig_SetBytesString(config, member, text));
}

static bool mvi_append(PyConfig *config, const char *directory)
{
    wchar_t *wide = Py_DecodeLocale(directory, NULL);
    bool done = wide != NULL && !PyStatus_Exception(PyWideStringList_Append(&config->module_search_paths, wide));

    PyMem_RawFree(wide);
    return done;
}

static bool mvi_configure(PyConfig *config, const struct mvi_home *home)
{
    config->site_import = 0;
    config->write_bytecode = 0;
    config->pathconfig_warnings = 0;
    config->install_signal_handlers = 0;
    config->module_search_paths_set = 1;
    return mvi_set_string(config, &config->home, home->prefix) &&
           mvi_set_string(config, &config->program_name, home->program) &&
           mvi_set_string(config, &config->executable, home->program) && mvi_append(config, home->modules) &&
           mvi_append(config, home->dynload) && mvi_append(config, mvi_private_directory());
}

/*
 * Python that runs out of something on its way up stays half-started, and says so on standard error. So it is asked for
 * first, in about the amount that start-up takes.
 */
#define MVI_ROOM_DESCRIPTORS 8
#define MVI_ROOM_MEMORY (96u << 20)

bool mvi_interpreter_has_room(void)
{
    int taken[MVI_ROOM_DESCRIPTORS], count, failed = 0;
    void *memory;

    for (count = 0; count < MVI_ROOM_DESCRIPTORS && failed == 0; count++)
        if ((taken[count] = open("/", O_PATH | O_CLOEXEC)) < 0)
            failed = errno;
    while (count-- > 0)
        if (taken[count] >= 0)
            close(taken[count]);
    if (failed != 0) {
        mvi_boot_fail(MVI_FOR_NOW,
                      "the embedded Python needs %d file descriptors to start: %s: close some, or raise "
                      "the limit (ulimit -n)",
                      MVI_ROOM_DESCRIPTORS, strerror(failed));
        return false;
    }
    memory = mmap(NULL, MVI_ROOM_MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        mvi_boot_fail(MVI_FOR_NOW,
                      "the embedded Python needs %u MiB of memory to start: %s: free some, or raise the "
                      "limit (ulimit -v)",
                      MVI_ROOM_MEMORY >> 20, strerror(errno));
        return false;
    }
    munmap(memory, MVI_ROOM_MEMORY);
    return true;
}

/* What stood in for a closed standard stream is none. */
static void mvi_forget_placeholders(void)
{
    static const char *const names[] = {"stdin", "stdout", "stderr"};
    int fd;

    for (fd = 0; fd < 3; fd++)
        if (mvi_standard_is_held(fd))
            (void)PySys_SetObject(names[fd], Py_None);
}

bool mvi_interpreter_start(void)
{
    PyPreConfig before;
    PyConfig config;
    PyStatus status;
    struct mvi_home home;
    bool configured;

    if (!mvi_home_find(mvi_python_file(), &home))
        return false;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    status = Py_PreInitialize(&before);
    if (!PyStatus_Exception(status)) {
        PyConfig_InitIsolatedConfig(&config);
        configured = mvi_configure(&config, &home);
        status = configured ? Py_InitializeFromConfig(&config) : PyStatus_NoMemory();
        PyConfig_Clear(&config);
    }
    if (PyStatus_Exception(status)) {
        mvi_boot_fail(MVI_FOR_GOOD, "the embedded Python could not start: %s (standard library in %s)",
                      status.err_msg != NULL ? status.err_msg : "no reason given", home.modules);
        return false;
    }
    mvi_forget_placeholders();
    (void)PyEval_SaveThread();
    return true;
}

/* ------------------------------------------------------------------------------------------ the calling thread --- */

bool mvi_interpreter_runs(void)
{
    return mvi_python_known() && Py_IsInitialized();
}

static PyThreadState *mvi_current_thread_state(void)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyThreadState_GetUnchecked();
#else
    return _PyThreadState_UncheckedGet();
#endif
}

/* Waiting for a thread of ours with the GIL held would keep that thread from getting it. */
void *mvi_drop_gil(void)
{
    PyThreadState *current;

    if (!mvi_interpreter_runs())
        return NULL;
    current = mvi_current_thread_state();
    return current != NULL && current == PyGILState_GetThisThreadState() ? PyEval_SaveThread() : NULL;
}

void mvi_take_gil(void *dropped)
{
    if (dropped != NULL)
        PyEval_RestoreThread(dropped);
}

bool mvi_await_gil(void)
{
    PyThreadState *own = PyGILState_GetThisThreadState();

    if (own == NULL || own == mvi_current_thread_state())
        return false;
    mvi_turn_wait();
    PyEval_RestoreThread(own);
    mvi_turn_taken();
    return true;
}

void mvi_leave_gil(void)
{
    (void)PyEval_SaveThread();
}

/*
 * Python runs on the main interpreter's behalf. A thread that is in another one may hold a lock that it would wait for.
 * Before Python 3.12 the current thread state may be another thread's, and is looked at only if there are several
 * interpreters.
 */
bool mvi_in_sub_interpreter(void)
{
    PyInterpreterState *main_one;
    PyThreadState *state;

    if (!mvi_interpreter_runs())
        return false;
    main_one = PyInterpreterState_Main();
    if (PyInterpreterState_Head() == main_one)
        return false;
    state = PyGILState_GetThisThreadState();
    if (state != NULL && PyThreadState_GetInterpreter(state) != main_one)
        return true;
    state = mvi_current_thread_state();
#if PY_VERSION_HEX < 0x030C0000
    if (state != NULL && state->thread_id != pthread_self())
        state = NULL;
#endif
    return state != NULL && PyThreadState_GetInterpreter(state) != main_one;
}
