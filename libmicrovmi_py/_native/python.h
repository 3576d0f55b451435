/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Python's C API without libpython in our list of needed libraries: included before everything else (by the Makefile
 * into what cffi generates).
 *
 * A function of Python is a jump through a table (pythonnames.py writes both), data is reached through a pointer; python.c
 * fills them from the Python that is in the process, or else from the one that the library was built for.
 */
#ifndef MVI_PYTHON_H
#define MVI_PYTHON_H

#include <Python.h>

/* What of Python is data. A name that is missing here does not get past pythonnames.py. */
struct mvi_python_data {
    PyTypeObject *capsule_type;
    PyObject **import_error;
    PyObject **memory_error;
    PyObject **os_error;
    PyObject *none;
};
extern struct mvi_python_data mvi_python_data;

#define PyCapsule_Type (*mvi_python_data.capsule_type)
#define PyExc_ImportError (*mvi_python_data.import_error)
#define PyExc_MemoryError (*mvi_python_data.memory_error)
#define PyExc_OSError (*mvi_python_data.os_error)
#define _Py_NoneStruct (*mvi_python_data.none)

/* pythonnames.py: the functions, in the order of their names; filled with what the names mean. */
extern const char *const mvi_python_names[];
extern void *mvi_python_functions[];
extern const size_t mvi_python_count;

#endif
