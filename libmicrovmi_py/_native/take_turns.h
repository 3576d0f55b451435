/* SPDX-License-Identifier: Apache-2.0 */
/* The side of turns.h that a call from C takes: it waits for Python's lock, and has it. */
#ifndef MVI_TAKE_TURNS_H
#define MVI_TAKE_TURNS_H

#include <stdint.h>

#include "turns.h"

void mvi_turn_wait(void);
void mvi_turn_taken(void);

#endif
