/* SPDX-License-Identifier: Apache-2.0 */
/* What build_embed.py adds to the code that cffi generates, so that our files need none of its names. */
#ifndef MVI_GENERATED_H
#define MVI_GENERATED_H

#include <stddef.h>

/* A function written in Python, as cffi knows it. */
struct _cffi_externpy_s;
/* Calls one; after the arguments, which it reads at their address, it puts the result there. */
typedef void mvi_python_caller(struct _cffi_externpy_s *body, char *arguments);

/* cffi's own start, once; other than 0: failed, with a text on Python's standard error. */
int mvi_cffi_start(void);
/* From now on `ours` makes the calls; cffi's own caller is returned. */
mvi_python_caller *mvi_cffi_take_over(mvi_python_caller *ours);
/* How many bytes the result of a function takes. */
size_t mvi_cffi_result_size(const struct _cffi_externpy_s *body);

#endif
