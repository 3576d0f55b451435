/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * What frames seem to hold, told by looking at their bytes, read by cffi and by the C compiler alike.
 */

/* The numbers are those of `Content` in libmicrovmi_py/tools/picture/contents.py. */
#define MVI_CONTENT_ZERO 1
#define MVI_CONTENT_DATA 2
#define MVI_CONTENT_TEXT 3
#define MVI_CONTENT_CODE 4
#define MVI_CONTENT_POINTERS 5
#define MVI_CONTENT_RANDOM 6

/* Look at `count` frames at `bytes`, and put a number for each at `contents`. `aarch64`: whose code it would be. */
void mvi_contents(const uint8_t *bytes, size_t count, bool aarch64, uint8_t *contents);
