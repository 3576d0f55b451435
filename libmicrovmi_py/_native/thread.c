/* SPDX-License-Identifier: Apache-2.0 */
/* What a thread has of its own; see thread.h. */
#include "thread.h"

__thread struct mvi_thread mvi_thread;
