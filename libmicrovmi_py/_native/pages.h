/* SPDX-License-Identifier: Apache-2.0 */
/* What the C files of packed pages share. */
#ifndef MVI_PAGES_H
#define MVI_PAGES_H

#include "internal.h"

#include "packed.h"

#endif
