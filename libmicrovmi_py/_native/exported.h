/* SPDX-License-Identifier: Apache-2.0 */
/* The functions of the header are what the library exports, and all that it does. */
#ifndef MVI_EXPORTED_H
#define MVI_EXPORTED_H

#pragma GCC visibility push(default)
#include "libmicrovmi.h"
#pragma GCC visibility pop

#endif
