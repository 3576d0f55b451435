# SPDX-License-Identifier: Apache-2.0
"""Bugs of snapshots: a copy of several instants, machines that do not run again, memory that is taken and kept."""

from __future__ import annotations

from mutants.mutant import Mutant

TAKING, FILLING = "libmicrovmi_py/machine/snapshot.py", "libmicrovmi_py/memory/filling.py"
RUN, COPY = "libmicrovmi_py/machine/runstate.py", "libmicrovmi_py/transport/copy.py"
C_COPY, C_FILL = "libmicrovmi_py/_native/copy.c", "libmicrovmi_py/_native/fill.c"

ALONE = "tests/test_snapshots.py::test_"
CONTRACT = "tests/contract/test_contract_snapshots.py::test_"

MUTANTS = (
    Mutant(
        TAKING,
        "            filling.fill(course, lambda: states.extend(self._states()))\n",
        "            states.extend(self._states())\n",
        "what was copied before the pause is the snapshot",
        (f"{ALONE}all_of_it_is_of_the_time_when_the_machine_stood",),
    ),
    Mutant(
        TAKING,
        "        if tuple(ranges) != copy.ranges:\n",
        "        if False:\n",
        "memory that was plugged in meanwhile is missing",
        (f"{ALONE}a_map_that_changed_meanwhile_is_the_one_that_is_copied",),
    ),
    Mutant(
        TAKING,
        "            if self._copy is not None:\n                self._copy.drop()\n            if isinstance(err",
        "            if isinstance(err",
        "an error that is kept keeps the copy",
        (f"{ALONE}an_error_that_is_kept_keeps_nothing",),
    ),
    Mutant(
        RUN,
        "                with limit():\n                    self._check_stood()\n",
        "",
        "a machine that others let run meanwhile is a snapshot of several instants",
        (f"{ALONE}one_that_others_let_run_meanwhile_is_an_error",),
    ),
    Mutant(
        RUN,
        "        if _moves(state):\n            stand.stopped = True\n",
        "        if state.phase is Phase.RUNS:\n            stand.stopped = True\n",
        "a machine that sleeps is told to stop",
        (f"{ALONE}a_machine_that_stands_is_left_alone",),
    ),
    Mutant(
        RUN,
        "        if self._settling or self._ended:\n",
        "        if self._ended:\n",
        "who wants machines left as they were waits for the whole copy",
        (f"{ALONE}leaving_all_machines_as_they_were_ends_it",),
    ),
    Mutant(
        RUN,
        "        if self._keeper == threading.get_ident():\n",
        "        if False:\n",
        "a pause by who is told of the copying waits for itself",
        (f"{ALONE}who_is_told_in_the_pause_can_neither_pause_nor_close",),
    ),
    Mutant(
        FILLING,
        "                self._copy.clear(offset + begin, end - begin)\n",
        "                pass\n",
        "a frame that went away meanwhile holds what it held before",
        (f"{ALONE}a_frame_that_goes_away_meanwhile_is_none",),
    ),
    Mutant(
        FILLING,
        "                return max(start, address - _MIB)\n",
        "                return address + _MIB\n",
        "the memory behind a long hole is missed",
        (f"{ALONE}frames_behind_a_hole_are_found",),
    ),
    Mutant(
        COPY,
        "        while not lib.mvi_copy_trim(self.pointer, chunk):\n            give_way()\n",
        "",
        "pages that became zeros take memory",
        (f"{ALONE}what_became_zeros_meanwhile_takes_nothing",),
    ),
    Mutant(
        COPY,
        "        for seals in (_SEALS, _NO_WRITES, _LAST):\n",
        "        for seals in (_LAST,):\n",
        "a finished copy can be cut",
        (f"{ALONE}a_copy_is_not_changed_any_more",),
    ),
    Mutant(
        C_COPY,
        "    return mvi_page_is_there(copy, offset >> PAGE_SHIFT) || !mvi_is_zero(bytes, size);\n",
        "    return mvi_page_is_there(copy, offset >> PAGE_SHIFT) || bytes != NULL || size == 0;\n",
        "zeros take memory for a while",
        (f"{ALONE}as_much_as_it_may_take_and_no_more",),
    ),
    Mutant(
        C_COPY,
        "    if (__atomic_add_fetch(&copy->taken, size, __ATOMIC_RELAXED) > copy->limit) {\n",
        "    if (__atomic_add_fetch(&copy->taken, size, __ATOMIC_RELAXED) > UINT64_MAX - copy->limit) {\n",
        "a copy takes more than it may",
        (f"{ALONE}as_much_as_it_may_take_and_no_more",),
    ),
    Mutant(
        C_COPY,
        "size > limit.rlim_cur)",
        "size > RLIM_INFINITY)",
        "a file that may not be so long ends the process by a signal",
        (f"{ALONE}limits_of_the_process_are_errors_and_no_signals",),
    ),
    Mutant(
        C_FILL,
        "            mvi_copy_clear(fill->copy, offset, until - offset);\n",
        "",
        "memory that was given back meanwhile holds what it held before",
        (f"{ALONE}memory_that_becomes_a_hole_meanwhile_is_zero",),
    ),
    Mutant(
        C_FILL,
        "        (void)pthread_join(fill->threads[--fill->running], NULL);\n",
        "        fill->running--;\n",
        "a thread goes on when the snapshot has ended",
        (f"{ALONE}any_number_of_threads_copies_the_same",),
    ),
)
