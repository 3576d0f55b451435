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
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The interpreter's start and the first imports need more stack than the thread of a host may have. */
#define MVI_BOOT_STACK (8u << 20)

enum mvi_state { MVI_DOWN, MVI_UP, MVI_FAILED };

static int mvi_state = MVI_DOWN; /* atomic */
static int mvi_forked;           /* atomic; set in the children of a process that started the library */
static char *mvi_boot_error;     /* why the state is MVI_FAILED; kept for every later call */
static pthread_mutex_t mvi_boot_lock = PTHREAD_MUTEX_INITIALIZER;

static char mvi_library[PATH_MAX];         /* this library's file, "" if it is not known */
static char mvi_private[PATH_MAX + 32];    /* the directory with our Python modules, "" if there is none */

static void mvi_boot_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void mvi_boot_fail(const char *format, ...)
{
    va_list arguments;

    if (mvi_boot_error != NULL)
        return;
    va_start(arguments, format);
    if (vasprintf(&mvi_boot_error, format, arguments) < 0)
        mvi_boot_error = NULL;
    va_end(arguments);
}

/* ------------------------------------------------------------------------------------------------ where we are -- */

/* At load time, as a relative path means the working directory of that moment. */
__attribute__((constructor)) static void mvi_find_library(void)
{
    Dl_info info;

    if (dladdr((void *)&microvmi_version, &info) == 0 || info.dli_fname == NULL ||
        realpath(info.dli_fname, mvi_library) == NULL)
        mvi_library[0] = '\0';
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
    mvi_boot_fail("the Python part of libmicrovmi is not in %s: install the library together with that directory",
                  mvi_private);
    return false;
}

/* ---------------------------------------------------------------------------------------------------- Python ----- */

/* Extension modules look up Python's symbols globally, also when the host loaded us with RTLD_LOCAL. */
static void mvi_make_python_global(void)
{
    Dl_info info;

    if (dladdr((void *)&Py_IsInitialized, &info) != 0 && info.dli_fname != NULL)
        (void)dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL);
}

static char mvi_python[32]; /* the version of the Python in this process, "3.11.2" */
static pthread_once_t mvi_python_once = PTHREAD_ONCE_INIT;

/* Before Python 3.12 every call of Py_GetVersion() writes its buffer anew: it is called by one thread, once. */
static void mvi_ask_version(void)
{
    const char *version = Py_GetVersion();

    snprintf(mvi_python, sizeof mvi_python, "%.*s", (int)strcspn(version, " "), version);
}

static bool mvi_same_python(void)
{
    size_t length = strlen(MVI_PYTHON_VERSION);

    pthread_once(&mvi_python_once, mvi_ask_version);
    return strncmp(mvi_python, MVI_PYTHON_VERSION, length) == 0 && mvi_python[length] == '.';
}

/* The host may be, or have loaded, another Python: its functions take the place of ours. */
static bool mvi_check_version(void)
{
    if (mvi_same_python())
        return true;
    mvi_boot_fail("this process runs Python %s, and this libmicrovmi.so was built for Python " MVI_PYTHON_VERSION
                  ": build it for that Python, or use it from another process",
                  mvi_python);
    return false;
}

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

static bool mvi_initialize_python(void)
{
    PyPreConfig before;
    PyConfig config;
    PyStatus status;
    bool configured;

    if (access(MVI_PYTHON_STDLIB "/os.py", R_OK) != 0) {
        mvi_boot_fail("no Python standard library in " MVI_PYTHON_STDLIB ": install Python " MVI_PYTHON_VERSION
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
        mvi_boot_fail("the embedded Python could not start: %s (standard library in " MVI_PYTHON_STDLIB ")",
                      status.err_msg != NULL ? status.err_msg : "no reason given");
        return false;
    }
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

static void mvi_boot_fail_from_exception(const char *what)
{
    PyObject *type, *value, *traceback, *text = NULL;
    const char *message = NULL;

    PyErr_Fetch(&type, &value, &traceback);
    if (value != NULL)
        text = PyObject_Str(value);
    if (text != NULL)
        message = PyUnicode_AsUTF8(text);
    mvi_boot_fail("%s (%s): %s; is the directory %s whole?", what,
                  type != NULL ? ((PyTypeObject *)type)->tp_name : "no exception",
                  message != NULL ? message : "no reason given", mvi_private);
    PyErr_Clear();
    Py_XDECREF(text);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

static bool mvi_import(void)
{
    static const char failed[] = "the Python part of libmicrovmi could not be loaded";
    PyObject *space = PyDict_New(), *ran = NULL, *done = NULL;
    bool backend;

    if (space != NULL && PyDict_SetItemString(space, "__builtins__", PyEval_GetBuiltins()) == 0)
        ran = PyRun_String(mvi_finder, Py_file_input, space, space);
    if (ran != NULL)
        done = PyObject_CallFunction(PyDict_GetItemString(space, "load_backend"), "s", mvi_private);
    backend = done != NULL;
    Py_CLEAR(done);
    if (backend) {
        /* cffi's lock wants this type without a version tag before 3.12; held under the GIL, it stays without. */
        PyType_Modified(&PyCapsule_Type);
        if (cffi_start_python() != 0)
            PyErr_SetString(PyExc_ImportError, "cffi could not set up its module");
        else
            done = PyObject_CallFunction(PyDict_GetItemString(space, "load_package"), "ss", mvi_private,
                                         MVI_VERSION);
    }
    if (done == NULL)
        mvi_boot_fail_from_exception(failed);
    Py_XDECREF(done);
    Py_XDECREF(ran);
    Py_XDECREF(space);
    return done != NULL;
}

static void *mvi_boot_thread(void *unused)
{
    PyGILState_STATE gil;

    (void)unused;
    if (!mvi_find_private() || !mvi_check_version())
        return NULL;
    mvi_make_python_global();
    if (!Py_IsInitialized()) {
        if (!mvi_initialize_python())
            return NULL;
        (void)PyEval_SaveThread();
    }
    gil = PyGILState_Ensure();
    if (!mvi_import())
        mvi_boot_fail("the Python part of libmicrovmi could not be loaded");
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
    if (pthread_mutex_trylock(&mvi_boot_lock) != 0 || mvi_state != MVI_DOWN)
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
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    int failed;

    (void)pthread_atfork(NULL, NULL, mvi_after_fork);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, MVI_BOOT_STACK);
    failed = pthread_create(&thread, &attributes, mvi_boot_thread, NULL);
    pthread_attr_destroy(&attributes);
    if (failed == 0)
        pthread_join(thread, NULL);
    else
        mvi_boot_fail("no thread to start the embedded Python on: %s", strerror(failed));
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (mvi_boot_error == NULL)
        (void)atexit(mvi_at_exit);
    __atomic_store_n(&mvi_state, mvi_boot_error == NULL ? MVI_UP : MVI_FAILED, __ATOMIC_RELEASE);
}

static PyThreadState *mvi_current_thread_state(void)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyThreadState_GetUnchecked();
#else
    return _PyThreadState_UncheckedGet();
#endif
}

/* Waiting for start-up with the GIL held would keep the starting thread from getting it. */
static PyThreadState *mvi_drop_gil(void)
{
    PyThreadState *current;

    if (!Py_IsInitialized() || !mvi_same_python())
        return NULL;
    current = mvi_current_thread_state();
    return current != NULL && current == PyGILState_GetThisThreadState() ? PyEval_SaveThread() : NULL;
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

bool mvi_start(void)
{
    PyThreadState *dropped;

    if (mvi_is_forked())
        return false;
    if (__atomic_load_n(&mvi_state, __ATOMIC_ACQUIRE) == MVI_DOWN) {
        dropped = mvi_drop_gil();
        pthread_mutex_lock(&mvi_boot_lock);
        if (mvi_state == MVI_DOWN)
            mvi_boot();
        pthread_mutex_unlock(&mvi_boot_lock);
        if (mvi_is_up())
            mvi_log_apply();
        if (dropped != NULL)
            PyEval_RestoreThread(dropped);
    }
    if (mvi_is_up())
        return true;
    mvi_set_error(MICROVMI_ERROR_STARTUP,
                  mvi_boot_error != NULL ? mvi_boot_error : "the process's Python has ended: nothing works any more");
    return false;
}
