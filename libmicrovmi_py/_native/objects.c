/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads of Python programs as functions of Python: bytes that are filled while nobody has seen them, without zeros first
 * and a copy afterwards, and batches whose requests are taken apart here.
 *
 * Whoever calls holds what the table or the stream points at. Where a function finds no fault with what it was handed
 * but cannot do with it, it says so by its result; errors are made in Python.
 */
#include <Python.h>

#include "paging.h"

#include "objects.h"

#include <stdlib.h>

/* The limited interface has these from 3.11 on. They were the same before. */
#if defined(Py_LIMITED_API) && Py_LIMITED_API + 0 < 0x030B0000
typedef struct {
    void *buf;
    PyObject *obj;
    Py_ssize_t len, itemsize;
    int readonly, ndim;
    char *format;
    Py_ssize_t *shape, *strides, *suboffsets;
    void *internal;
} Py_buffer;
#define PyBUF_WRITABLE 1
int PyObject_GetBuffer(PyObject *object, Py_buffer *view, int flags);
void PyBuffer_Release(Py_buffer *view);
#endif
#ifndef METH_FASTCALL
#define METH_FASTCALL 0x0080
#endif

/* A size that Python hands in: -1 with an error set. */
static Py_ssize_t mvi_size_of(PyObject *number)
{
    PyObject *whole = PyNumber_Index(number);
    Py_ssize_t size = whole != NULL ? PyLong_AsSsize_t(whole) : -1;

    Py_XDECREF(whole);
    return size;
}

/* take_bytes(stream, size): what a read at the cursor gives. A number is the error, see mvi_stream_failure(). */
static PyObject *mvi_take_bytes(PyObject *self __attribute__((unused)), PyObject *const *arguments, Py_ssize_t count)
{
    const struct mvi_stream *stream = count == 2 ? PyLong_AsVoidPtr(arguments[0]) : NULL;
    Py_ssize_t size = stream != NULL ? mvi_size_of(arguments[1]) : -1;
    PyObject *bytes = size >= 0 ? PyBytes_FromStringAndSize(NULL, size) : NULL, *found;
    uint8_t *buffer;
    int64_t done;

    if (bytes == NULL)
        return PyErr_Occurred() != NULL ? NULL : PyLong_FromLong(MICROVMI_ERROR_INVALID_ARGUMENT);
    buffer = (uint8_t *)PyBytes_AsString(bytes);
    Py_BEGIN_ALLOW_THREADS
    done = mvi_stream_take(stream, buffer, (size_t)size);
    Py_END_ALLOW_THREADS
    if (done == size)
        return bytes;
    found = done >= 0 ? PyBytes_FromStringAndSize((char *)buffer, (Py_ssize_t)done) : PyLong_FromLongLong(-done);
    Py_DECREF(bytes);
    return found;
}

/* read_bytes(table, address, size): all of it, or (error, how much of it there is). */
static PyObject *mvi_read_bytes(PyObject *self __attribute__((unused)), PyObject *const *arguments, Py_ssize_t count)
{
    const struct mvi_table *table = count == 3 ? PyLong_AsVoidPtr(arguments[0]) : NULL;
    Py_ssize_t size = table != NULL ? mvi_size_of(arguments[2]) : -1;
    uint64_t address = size >= 0 ? PyLong_AsUnsignedLongLong(arguments[1]) : 0, done = 0;
    PyObject *bytes = size >= 0 && PyErr_Occurred() == NULL ? PyBytes_FromStringAndSize(NULL, size) : NULL;
    uint8_t *buffer;
    int32_t code;

    if (bytes == NULL)
        return PyErr_Occurred() != NULL ? NULL : Py_BuildValue("(iK)", MICROVMI_ERROR_INVALID_ARGUMENT, 0ULL);
    buffer = (uint8_t *)PyBytes_AsString(bytes);
    Py_BEGIN_ALLOW_THREADS
    code = mvi_table_read(table, false, address, buffer, (size_t)size, &done);
    Py_END_ALLOW_THREADS
    if (code == MICROVMI_OK)
        return bytes;
    Py_DECREF(bytes);
    return Py_BuildValue("(iK)", (int)code, (unsigned long long)done);
}

/* What a virtual read gave that was not whole: (error, what there is of it, the members of the translation). */
static PyObject *mvi_stopped(int32_t code, PyObject *begun, const struct microvmi_translation *end)
{
    if (begun == NULL)
        return NULL;
    return Py_BuildValue("(iNIKKIIKK)", (int)code, begun, (unsigned)end->failure,
                         (unsigned long long)end->physical_address, (unsigned long long)end->page_size,
                         (unsigned)end->rights, (unsigned)end->level, (unsigned long long)end->entry,
                         (unsigned long long)end->entry_address);
}

/* read_virtual(table, space, address, size): all of it, or as mvi_stopped() has it. */
static PyObject *mvi_read_virtual(PyObject *self __attribute__((unused)), PyObject *const *arguments, Py_ssize_t count)
{
    const struct mvi_table *table = count == 4 ? PyLong_AsVoidPtr(arguments[0]) : NULL;
    const struct mvi_space *space = table != NULL ? PyLong_AsVoidPtr(arguments[1]) : NULL;
    Py_ssize_t size = space != NULL ? mvi_size_of(arguments[3]) : -1;
    uint64_t address = size >= 0 ? PyLong_AsUnsignedLongLong(arguments[2]) : 0, done = 0;
    PyObject *bytes = size >= 0 && PyErr_Occurred() == NULL ? PyBytes_FromStringAndSize(NULL, size) : NULL, *begun;
    struct microvmi_translation end = MICROVMI_TRANSLATION_INIT;
    uint8_t *buffer;
    int32_t code;

    if (bytes == NULL)
        return PyErr_Occurred() != NULL ? NULL : PyLong_FromLong(MICROVMI_ERROR_INVALID_ARGUMENT);
    buffer = (uint8_t *)PyBytes_AsString(bytes);
    Py_BEGIN_ALLOW_THREADS
    code = mvi_virtual_read(table, space, false, address, buffer, (size_t)size, &done, &end);
    Py_END_ALLOW_THREADS
    if (code == MICROVMI_OK)
        return bytes;
    begun = PyBytes_FromStringAndSize((char *)buffer, (Py_ssize_t)done);
    Py_DECREF(bytes);
    return mvi_stopped(code, begun, &end);
}

/* fill_virtual(table, space, padded, address, buffer): 0 if all was filled, or as mvi_stopped() has it. */
static PyObject *mvi_fill_virtual(PyObject *self __attribute__((unused)), PyObject *const *arguments, Py_ssize_t count)
{
    const struct mvi_table *table = count == 5 ? PyLong_AsVoidPtr(arguments[0]) : NULL;
    const struct mvi_space *space = table != NULL ? PyLong_AsVoidPtr(arguments[1]) : NULL;
    uint64_t address = space != NULL ? PyLong_AsUnsignedLongLong(arguments[3]) : 0, done = 0;
    bool padded = space != NULL && PyObject_IsTrue(arguments[2]) == 1;
    struct microvmi_translation end = MICROVMI_TRANSLATION_INIT;
    Py_buffer view;
    int32_t code;

    if (space == NULL || PyErr_Occurred() != NULL || PyObject_GetBuffer(arguments[4], &view, PyBUF_WRITABLE) != 0)
        return PyErr_Occurred() != NULL ? NULL : PyLong_FromLong(MICROVMI_ERROR_INVALID_ARGUMENT);
    Py_BEGIN_ALLOW_THREADS
    code = mvi_virtual_read(table, space, padded, address, view.buf, (size_t)view.len, &done, &end);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&view);
    return code == MICROVMI_OK ? PyLong_FromLong(0) : mvi_stopped(code, PyLong_FromUnsignedLongLong(done), &end);
}

/* ------------------------------------------------------------------------------------------------ batches -------- */

/* A pair of an address and a buffer, which is then held by `view`. False, without an error: something else. */
static bool mvi_take_request(PyObject *pair, struct microvmi_read_request *request, Py_buffer *view)
{
    PyObject *address = PySequence_GetItem(pair, 0), *buffer = address != NULL ? PySequence_GetItem(pair, 1) : NULL;
    bool taken = buffer != NULL && PySequence_Size(pair) == 2 && PyLong_Check(address);

    if (taken) {
        request->physical_address = PyLong_AsUnsignedLongLong(address);
        taken = PyErr_Occurred() == NULL && PyObject_GetBuffer(buffer, view, PyBUF_WRITABLE) == 0;
    }
    if (taken) {
        request->buffer = view->buf;
        request->size = (size_t)view->len;
    }
    PyErr_Clear();
    Py_XDECREF(address);
    Py_XDECREF(buffer);
    return taken;
}

/* For each request how much of it was read if that is all, else (error, how much). */
static PyObject *mvi_results(const struct microvmi_read_request *requests, Py_ssize_t count)
{
    PyObject *results = PyList_New(count), *result;
    Py_ssize_t index;

    for (index = 0; results != NULL && index < count; index++) {
        result = requests[index].error == MICROVMI_OK ? PyLong_FromUnsignedLongLong(requests[index].bytes_read)
                                                      : Py_BuildValue("(iK)", (int)requests[index].error,
                                                                      (unsigned long long)requests[index].bytes_read);
        if (result == NULL || PyList_SetItem(results, index, result) != 0)
            Py_CLEAR(results);
    }
    return results;
}

/* read_batch(table, [(address, buffer), ...], space): a list, or the number of the first request that is no such pair. The
 * addresses are virtual ones of the space, which need not be given. */
static PyObject *mvi_read_batch(PyObject *self __attribute__((unused)), PyObject *const *arguments, Py_ssize_t count)
{
    const struct mvi_table *table = count == 2 || count == 3 ? PyLong_AsVoidPtr(arguments[0]) : NULL;
    const struct mvi_space *space = count == 3 ? PyLong_AsVoidPtr(arguments[2]) : NULL;
    PyObject *pairs = table != NULL ? PySequence_List(arguments[1]) : NULL, *results = NULL;
    Py_ssize_t wanted = pairs != NULL ? PyList_Size(pairs) : 0, taken = 0;
    struct microvmi_read_request *requests = calloc((size_t)wanted + 1, sizeof *requests);
    Py_buffer *views = calloc((size_t)wanted + 1, sizeof *views);

    if (pairs != NULL && requests != NULL && views != NULL) {
        while (taken < wanted && mvi_take_request(PyList_GetItem(pairs, taken), &requests[taken], &views[taken]))
            taken++;
        if (taken == wanted) {
            Py_BEGIN_ALLOW_THREADS
            if (space != NULL)
                mvi_virtual_read_batch(table, space, requests, (size_t)wanted);
            else
                mvi_table_read_batch(table, requests, (size_t)wanted);
            Py_END_ALLOW_THREADS
        }
        results = taken == wanted ? mvi_results(requests, wanted) : PyLong_FromSsize_t(taken);
    } else if (pairs != NULL) {
        (void)PyErr_NoMemory();
    }
    while (taken-- > 0)
        PyBuffer_Release(&views[taken]);
    free(views);
    free(requests);
    Py_XDECREF(pairs);
    return results;
}

/* ---------------------------------------------------------------------------------------------------- Python ----- */

bool mvi_object_functions(uintptr_t names)
{
    static PyMethodDef functions[] = {
        {"take_bytes", (PyCFunction)(void (*)(void))mvi_take_bytes, METH_FASTCALL, NULL},
        {"read_bytes", (PyCFunction)(void (*)(void))mvi_read_bytes, METH_FASTCALL, NULL},
        {"read_virtual", (PyCFunction)(void (*)(void))mvi_read_virtual, METH_FASTCALL, NULL},
        {"fill_virtual", (PyCFunction)(void (*)(void))mvi_fill_virtual, METH_FASTCALL, NULL},
        {"read_batch", (PyCFunction)(void (*)(void))mvi_read_batch, METH_FASTCALL, NULL},
    };
    PyGILState_STATE gil = PyGILState_Ensure();
    bool done = true;
    size_t index;

    for (index = 0; index < sizeof functions / sizeof *functions; index++) {
        PyObject *function = PyCFunction_NewEx(&functions[index], NULL, NULL);

        done = function != NULL && PyDict_SetItemString((PyObject *)names, functions[index].ml_name, function) == 0 &&
               done;
        Py_XDECREF(function);
    }
    PyErr_Clear();
    PyGILState_Release(gil);
    return done;
}
