/* SPDX-License-Identifier: Apache-2.0 */
/* Loading the Python part of the library, and cffi, which stands between the two. */
#include "python.h"

#include "boot.h"
#include "facts.h"
#include "generated.h"

#include <errno.h>

/* Finds modules without touching sys.path, which belongs to the host when the host is a Python. What importlib gives
 * others is taken from where it has it: the package itself would have to be read first. */
static const char mvi_finder[] =
    "import sys\n"
    "from _frozen_importlib import module_from_spec\n"
    "from _frozen_importlib_external import PathFinder\n"
    "def imported(name):\n"
    "    __import__(name)\n"
    "    return sys.modules[name]\n"
    "def load(name, directory, foreign):\n"
    "    if name in sys.modules:\n"
    "        return sys.modules[name]\n"
    "    if foreign:\n"
    "        try:\n"
    "            return imported(name)\n"
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
    "    imported('libmicrovmi_py._capi.entry').mvi_py_exit\n";

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
                  message != NULL && message[0] != '\0' ? message : "no reason given", mvi_private_directory());
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
    started = mvi_cffi_start() == 0;
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
        done = PyObject_CallFunction(PyDict_GetItemString(space, "load_backend"), "s", mvi_private_directory());
    backend = backend || done != NULL;
    Py_CLEAR(done);
    if (ran != NULL && backend && mvi_start_cffi(ours))
        done = PyObject_CallFunction(PyDict_GetItemString(space, "load_package"), "ss", mvi_private_directory(),
                                     MVI_VERSION);
    if (done == NULL)
        mvi_boot_fail_from_exception("the Python part of libmicrovmi could not be loaded");
    Py_XDECREF(done);
    Py_XDECREF(ran);
    Py_XDECREF(space);
    return done != NULL;
}

bool mvi_modules_load(bool ours)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    int collects = ours ? PyGC_Disable() : 0; /* what a module makes stays */
    bool loaded = mvi_import(ours);

    if (collects)
        (void)PyGC_Enable();
    PyGILState_Release(gil);
    return loaded;
}
