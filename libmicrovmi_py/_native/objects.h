/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The functions that make Python's objects themselves (objects.c), read by cffi and by the C compiler alike.
 */

/* Put them, by their names, into a dictionary of Python, which is at that address. False: no memory. */
bool mvi_object_functions(uintptr_t names);
