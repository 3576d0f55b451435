/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Turns with Python's lock, read by cffi and by the C compiler alike. Whoever waits for the lock is let in by Python only
 * every five milliseconds, and long loops of Python do not know that somebody waits. Calls of the library do: each says so
 * here, and such a loop looks between its pieces.
 */

/* How many calls wait for Python's lock at this moment. */
extern uint32_t mvi_turns_wanted;

/* Of who let go of the lock for this call: return when one of those who wait has it, or soon. */
void mvi_turns_give(void);
