/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting Python inside somebody else's process, once, at the first call that needs it.
 *
 * The host decides nothing: Python gets an isolated configuration whose standard library was fixed at build time and
 * whose other modules are found beside this library. A host that is a Python itself is joined, not started. Errors
 * come back as texts; nothing is printed and nothing ends the process.
 */
#include "internal.h"
#include "readers.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

enum mvi_state { MVI_DOWN, MVI_UP, MVI_FAILED };

static int mvi_state = MVI_DOWN;  /* atomic */
static int mvi_forked;            /* atomic; set in the children of a process that started the library */
static char *mvi_boot_error;      /* why it is not up; NULL until something failed, and when there is no memory for it */
static enum mvi_how mvi_boot_how; /* whether that counts for every later call, too */
static bool mvi_boot_failed;
static bool mvi_boot_begun;       /* start-up was tried */
static pthread_mutex_t mvi_boot_lock = PTHREAD_MUTEX_INITIALIZER;

static char mvi_library[PATH_MAX];      /* this library's file, "" if it is not known */
static char mvi_private[PATH_MAX + 32]; /* the directory with our Python modules, "" if there is none */
static bool mvi_privileged;             /* the process has more rights than the user who started it */
static bool mvi_watches_fork;

void mvi_boot_fail(enum mvi_how how, const char *format, ...)
{
    va_list arguments;

    if (mvi_boot_failed)
        return;
    mvi_boot_failed = true;
    mvi_boot_how = how;
    va_start(arguments, format);
    if (vasprintf(&mvi_boot_error, format, arguments) < 0)
        mvi_boot_error = NULL;
    va_end(arguments);
}

/* ------------------------------------------------------------------------------------------------- at load time -- */

static void mvi_after_fork(void);

static bool mvi_watch_fork(void)
{
    if (!mvi_watches_fork)
        mvi_watches_fork = pthread_atfork(NULL, NULL, mvi_after_fork) == 0;
    return mvi_watches_fork;
}

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
    (void)mvi_watch_fork();
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
static bool mvi_find_private(void)
{
    static const char in_package[] = "/libmicrovmi_py/lib";
    char *slash = strrchr(mvi_library, '/');
    int length = slash != NULL ? (int)(slash - mvi_library) : 0;
    int before = length - (int)strlen(in_package);

    if (before >= 0 && memcmp(mvi_library + before, in_package, strlen(in_package)) == 0) {
        snprintf(mvi_private, sizeof mvi_private, "%.*s", before, mvi_library);
        if (mvi_has_package(mvi_private))
            return true;
    }
    snprintf(mvi_private, sizeof mvi_private, "%.*s/libmicrovmi", length, mvi_library);
    if (mvi_has_package(mvi_private))
        return true;
    mvi_boot_fail(MVI_FOR_NOW, "the Python part of libmicrovmi is not in %s: install the library together with that directory",
                  mvi_private);
    return false;
}

/* ---------------------------------------------------------------------------------------------------- Python ----- */

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

static bool mvi_configure(PyConfig *config)
{
    config->site_import = 0;
    config->write_bytecode = 0;
    config->pathconfig_warnings = 0;
    config->install_signal_handlers = 0;
    config->module_search_paths_set = 1;
    return mvi_set_string(config, &config->home, MVI_PYTHON_HOME) &&
           mvi_set_string(config, &config->program_name, MVI_PYTHON_EXECUTABLE) &&
           mvi_set_string(config, &config->executable, MVI_PYTHON_EXECUTABLE) &&
           mvi_append(config, MVI_PYTHON_STDLIB) && mvi_append(config, MVI_PYTHON_DYNLOAD) &&
           mvi_append(config, mvi_private);
}

/*
 * Python that runs out of something on its way up stays half-started, and says so on standard error. So it is asked for
 * first, in about the amount that start-up takes.
 */
#define MVI_ROOM_DESCRIPTORS 8
#define MVI_ROOM_MEMORY (96u << 20)

static bool mvi_has_room(void)
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
        mvi_boot_fail(MVI_FOR_NOW, "the embedded Python needs %d file descriptors to start: %s: close some, or raise "
                      "the limit (ulimit -n)", MVI_ROOM_DESCRIPTORS, strerror(failed));
        return false;
    }
    memory = mmap(NULL, MVI_ROOM_MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        mvi_boot_fail(MVI_FOR_NOW, "the embedded Python needs %u MiB of memory to start: %s: free some, or raise the "
                      "limit (ulimit -v)", MVI_ROOM_MEMORY >> 20, strerror(errno));
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

static bool mvi_initialize_python(void)
{
    PyPreConfig before;
    PyConfig config;
    PyStatus status;
    bool configured;

    if (access(MVI_PYTHON_STDLIB "/os.py", R_OK) != 0) {
        mvi_boot_fail(MVI_FOR_NOW, "no Python standard library in " MVI_PYTHON_STDLIB ": install Python " MVI_PYTHON_VERSION
                      ", or build libmicrovmi for the Python that is there");
        return false;
    }
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    status = Py_PreInitialize(&before);
    if (!PyStatus_Exception(status)) {
        PyConfig_InitIsolatedConfig(&config);
        configured = mvi_configure(&config);
        status = configured ? Py_InitializeFromConfig(&config) : PyStatus_NoMemory();
        PyConfig_Clear(&config);
    }
    if (PyStatus_Exception(status)) {
        mvi_boot_fail(MVI_FOR_GOOD, "the embedded Python could not start: %s (standard library in " MVI_PYTHON_STDLIB ")",
                      status.err_msg != NULL ? status.err_msg : "no reason given");
        return false;
    }
    mvi_forget_placeholders();
    return true;
}

/* ----------------------------------------------------------------------------------------------- our modules ----- */

/* Finds modules without touching sys.path, which belongs to the host when the host is a Python. */
static const char mvi_finder[] =
    "import sys, importlib\n"
    "from importlib.machinery import PathFinder\n"
    "from importlib.util import module_from_spec\n"
    "def load(name, directory, foreign):\n"
    "    if name in sys.modules:\n"
    "        return sys.modules[name]\n"
    "    if foreign:\n"
    "        try:\n"
    "            return importlib.import_module(name)\n"
    "        except ImportError:\n"
    "            pass\n"
    "    spec = PathFinder.find_spec(name, [directory])\n"
    "    if spec is None:\n"
    "        raise ImportError('no module ' + name + ' in ' + directory)\n"
    "    module = module_from_spec(spec)\n"
    "    sys.modules[name] = module\n"
    "    try:\n"
    "        spec.loader.exec_module(module)\n"
    "    except BaseException:\n"
    "        sys.modules.pop(name, None)\n"
    "        raise\n"
    "    return module\n"
    "def load_backend(directory):\n"
    "    if '_libmicrovmi' in sys.modules:\n"
    "        raise ImportError('another libmicrovmi.so is in use in this process, and there can be one')\n"
    "    load('_cffi_backend', directory, True)\n"
    "def load_package(directory, version):\n"
    "    package = load('libmicrovmi_py', directory, False)\n"
    "    if package.__version__ != version:\n"
    "        raise ImportError('libmicrovmi_py %s is imported already, and the library is %s' % (\n"
    "            package.__version__, version))\n"
    "    importlib.import_module('libmicrovmi_py._capi.entry').mvi_py_exit\n";

/* Whether an exception tells of a shortage, which may pass. */
static bool mvi_may_pass(PyObject *type, PyObject *value)
{
    PyObject *number;
    long code = 0;

    if (type != NULL && PyErr_GivenExceptionMatches(type, PyExc_MemoryError))
        return true;
    if (type != NULL && PyErr_GivenExceptionMatches(type, PyExc_ImportError))
        return true; /* what the loader of a module runs out of has no number */
    if (type == NULL || value == NULL || !PyErr_GivenExceptionMatches(type, PyExc_OSError))
        return false;
    number = PyObject_GetAttrString(value, "errno");
    if (number != NULL)
        code = PyLong_AsLong(number);
    PyErr_Clear();
    Py_XDECREF(number);
    return code == EMFILE || code == ENFILE || code == ENOMEM || code == EAGAIN;
}

static void mvi_boot_fail_from_exception(const char *what)
{
    PyObject *type, *value, *traceback, *text = NULL;
    const char *message = NULL, *name;
    bool may_pass;

    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (value != NULL)
        text = PyObject_Str(value);
    if (text != NULL)
        message = PyUnicode_AsUTF8(text);
    may_pass = mvi_may_pass(type, value);
    name = type != NULL ? ((PyTypeObject *)type)->tp_name : "no exception";
    mvi_boot_fail(may_pass ? MVI_FOR_NOW : MVI_FOR_GOOD, "%s (%s): %s; is the directory %s whole?", what, name,
                  message != NULL && message[0] != '\0' ? message : "no reason given", mvi_private);
    PyErr_Clear();
    Py_XDECREF(text);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

/* cffi's own start, which is done once and for all, and tells on standard error what went wrong with it. */
static bool mvi_start_cffi(bool quiet)
{
    static bool started;
    PyObject *before = NULL;

    if (started)
        return true;
    if (quiet) {
        before = PySys_GetObject("stderr");
        Py_XINCREF(before);
        (void)PySys_SetObject("stderr", Py_None);
    }
    /* cffi's lock wants this type without a version tag before 3.12; held under the GIL, it stays without. */
    PyType_Modified(&PyCapsule_Type);
    started = cffi_start_python() == 0;
    if (before != NULL)
        (void)PySys_SetObject("stderr", before);
    Py_XDECREF(before);
    if (!started)
        PyErr_SetString(PyExc_ImportError, "cffi could not set up its module");
    return started;
}

/* `ours`: nobody else runs Python in this process. What was done is not done again by a second try. */
static bool mvi_import(bool ours)
{
    static bool backend;
    PyObject *space = PyDict_New(), *ran = NULL, *done = NULL;

    if (space != NULL && PyDict_SetItemString(space, "__builtins__", PyEval_GetBuiltins()) == 0)
        ran = PyRun_String(mvi_finder, Py_file_input, space, space);
    if (ran != NULL && !backend)
        done = PyObject_CallFunction(PyDict_GetItemString(space, "load_backend"), "s", mvi_private);
    backend = backend || done != NULL;
    Py_CLEAR(done);
    if (ran != NULL && backend && mvi_start_cffi(ours))
        done = PyObject_CallFunction(PyDict_GetItemString(space, "load_package"), "ss", mvi_private, MVI_VERSION);
    if (done == NULL)
        mvi_boot_fail_from_exception("the Python part of libmicrovmi could not be loaded");
    Py_XDECREF(done);
    Py_XDECREF(ran);
    Py_XDECREF(space);
    return done != NULL;
}

static void *mvi_boot_thread(void *unused)
{
    static bool ours;
    bool running = mvi_python_find(false) && Py_IsInitialized();
    PyGILState_STATE gil;

    (void)unused;
    if (!mvi_find_private() || !(running || mvi_has_room()) || !mvi_python_find(true))
        return NULL;
    if (!running) {
        if (!mvi_initialize_python())
            return NULL;
        ours = true;
        (void)PyEval_SaveThread();
    }
    gil = PyGILState_Ensure();
    if (mvi_import(ours))
        mvi_calls_begin();
    PyGILState_Release(gil);
    return NULL;
}

/* ------------------------------------------------------------------------------------------------------ calls ---- */

/* In a child nothing works any more: the fast way has to find out as well. */
static void mvi_set_forked(void)
{
    __atomic_store_n(&mvi_forked, 1, __ATOMIC_RELEASE);
    mvi_thread.fast = NULL; /* the child's only thread */
}

static void mvi_after_fork(void)
{
    if (pthread_mutex_trylock(&mvi_boot_lock) != 0 || mvi_boot_begun || !mvi_python_is_idle() || !mvi_standard_is_idle())
        mvi_set_forked();
    else
        pthread_mutex_unlock(&mvi_boot_lock);
}

/* Machines that a context paused run again when the process ends by itself. */
static void mvi_at_exit(void)
{
    if (__atomic_load_n(&mvi_forked, __ATOMIC_ACQUIRE) == 0 && mvi_is_up() && mvi_context_any())
        (void)mvi_py_exit();
}

/* Runs start-up on a thread of ours: enough stack, no signal handlers of the host on it, nobody's main thread. */
static void mvi_boot(void)
{
    bool held = mvi_standard_enter();
    int failed;

    free(mvi_boot_error);
    mvi_boot_error = NULL;
    mvi_boot_failed = false;
    mvi_boot_begun = true;
    failed = mvi_watch_fork() ? mvi_run_apart(mvi_boot_thread, NULL) : ENOMEM;
    if (failed != 0)
        mvi_boot_fail(MVI_FOR_NOW, "no thread to start the embedded Python on: %s", strerror(failed));
    mvi_standard_leave(held);
    if (!mvi_boot_failed)
        (void)atexit(mvi_at_exit);
    if (!mvi_boot_failed || mvi_boot_how == MVI_FOR_GOOD)
        __atomic_store_n(&mvi_state, mvi_boot_failed ? MVI_FAILED : MVI_UP, __ATOMIC_RELEASE);
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
PyThreadState *mvi_drop_gil(void)
{
    PyThreadState *current;

    if (!mvi_python_known() || !Py_IsInitialized())
        return NULL;
    current = mvi_current_thread_state();
    return current != NULL && current == PyGILState_GetThisThreadState() ? PyEval_SaveThread() : NULL;
}

/*
 * Python runs on the main interpreter's behalf. A thread that is in another one may hold a lock that it would wait for.
 * Before Python 3.12 the current thread state may be another thread's, and is looked at only if there are several
 * interpreters.
 */
static bool mvi_in_sub_interpreter(void)
{
    PyInterpreterState *main_one;
    PyThreadState *state;

    if (!mvi_python_known() || !Py_IsInitialized())
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

bool mvi_is_forked(void)
{
    if (__atomic_load_n(&mvi_forked, __ATOMIC_ACQUIRE) == 0)
        return false;
    mvi_set_error(MICROVMI_ERROR_FORKED,
                  "libmicrovmi cannot be used in a child after fork(): use it in the parent, or exec a program");
    return true;
}

bool mvi_is_up(void)
{
    return __atomic_load_n(&mvi_state, __ATOMIC_ACQUIRE) == MVI_UP && Py_IsInitialized();
}

/* The error is the same for every later call unless what it tells of may pass. */
static void mvi_tell_boot_error(void)
{
    if (mvi_boot_failed)
        mvi_set_error(MICROVMI_ERROR_STARTUP,
                      mvi_boot_error != NULL ? mvi_boot_error : "no memory to start the embedded Python");
    else
        mvi_set_error(MICROVMI_ERROR_STARTUP, "the process's Python has ended: nothing works any more");
}

/* False with the error set: not up. */
static bool mvi_start_once(void)
{
    PyThreadState *dropped;
    bool up;
    int cancel;

    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    dropped = mvi_drop_gil();
    pthread_mutex_lock(&mvi_boot_lock);
    if (mvi_state == MVI_DOWN)
        mvi_boot();
    up = mvi_is_up();
    if (!up)
        mvi_tell_boot_error();
    pthread_mutex_unlock(&mvi_boot_lock);
    if (up)
        mvi_log_apply();
    if (dropped != NULL)
        PyEval_RestoreThread(dropped);
    (void)pthread_setcancelstate(cancel, NULL);
    return up;
}

/* The host's Python, if there is one: this thread may have its lock. */
static void mvi_find_host_python(void)
{
    bool held = mvi_standard_enter();

    (void)mvi_python_find(false);
    mvi_standard_leave(held);
}

bool mvi_start(void)
{
    bool down = __atomic_load_n(&mvi_state, __ATOMIC_ACQUIRE) == MVI_DOWN;

    if (mvi_is_forked())
        return false;
    if (down)
        mvi_find_host_python();
    if (mvi_in_sub_interpreter()) {
        mvi_set_error(MICROVMI_ERROR_NOT_SUPPORTED,
                      "this thread is in a sub-interpreter of the process's Python, where libmicrovmi does not work: "
                      "call from the main interpreter, or from a thread of its own");
        return false;
    }
    if (down)
        return mvi_start_once();
    if (mvi_is_up())
        return true;
    mvi_tell_boot_error();
    return false;
}
