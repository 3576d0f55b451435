# SPDX-License-Identifier: Apache-2.0
"""Bugs of the walk over everything that page tables map."""

from __future__ import annotations

from mutants.mutant import Mutant

_RUNS = "libmicrovmi_py/_native/runs.c"
_TOLD = "libmicrovmi_py/_native/told.c"
_LIST = "libmicrovmi_py/_native/told.h"
_PYTHON = "libmicrovmi_py/memory/mapped.py"
_C = "tests/capi/test_virtual_map.py"
_PY = "tests/memory/test_mapped.py"

MUTANTS = (
    Mutant(
        _RUNS,
        "        if (first > open.index)\n",
        "",
        "an address that is none begins the upper half with tables of the lower one",
        (f"{_C}::test_a_list_begins_where_the_caller_wants",),
    ),
    Mutant(
        _RUNS,
        "        runs->held[level].count = 0; /* of another walk, or of tables of another size */",
        "        (void)0;",
        "the tables of the walk before are taken for those of now",
        (f"{_PY}::test_the_tables_are_read_as_the_iterator_gets_there",),
    ),
    Mutant(
        _RUNS,
        "half->levels == 0 || half->closed || ",
        "half->levels == 0 || ",
        "a half whose walks are switched off is mapped",
        (f"{_C}::test_a_half_whose_walks_are_switched_off_has_nothing",),
    ),
    Mutant(
        _RUNS,
        "runs->looked >= MVI_RUNS_LIMIT",
        "runs->looked >= UINT64_MAX",
        "a call looks at tables without an end",
        (f"{_C}::test_a_call_ends_early_when_it_has_looked_at_so_many_entries",),
    ),
    Mutant(
        _RUNS,
        "    if ((changing & (~runs->half->frame_bits | runs->half->reserved[runs->level - 1])) != 0)\n",
        "    if (changing == 0)\n",
        "pages beyond the physical addresses that there are go on as those before",
        (f"{_C}::test_pages_whose_addresses_run_into_reserved_bits_end_there",),
    ),
    Mutant(
        _RUNS,
        "noted = runs->space.aarch64 ? 0 : 0x60;",
        "noted = runs->space.aarch64 ? 0 : 0x62;",
        "a read-only page among writable ones is writable",
        (f"{_C}::test_pages_differ_in_what_their_rights_are_and_not_in_what_a_processor_notes",),
    ),
    Mutant(
        _RUNS,
        "    runs->ahead = mvi_smaller(2 * runs->ahead, MVI_MOST_HELD);\n",
        "",
        "tables of a driver of frames are read one by one",
        (f"{_PY}::test_tables_of_a_driver_of_frames_are_read_in_few_trips",),
    ),
    Mutant(
        _RUNS,
        "request->error == MICROVMI_ERROR_NOT_MAPPED ? ",
        "request->error == MICROVMI_ERROR_INTERNAL ? ",
        "a table that is no memory ends the list with an error",
        (f"{_PY}::test_a_table_that_is_no_memory_maps_nothing",),
    ),
    Mutant(
        _TOLD,
        "known->rights == rights &&",
        "",
        "a table that is named again has the rights it had at first",
        (f"{_C}::test_a_table_that_is_named_again_is_told_with_the_rights_that_are_left",),
    ),
    Mutant(
        _TOLD,
        "        run->start -= open->start;\n",
        "",
        "a table that is named again is told at wrong addresses",
        (f"{_C}::test_a_table_of_tables_that_is_named_again",),
    ),
    Mutant(
        _TOLD,
        "    if (count * MVI_CHEAPER > runs->looked - open->looked)\n",
        "    if (count * MVI_CHEAPER > 0 || open->looked < UINT64_MAX)\n",
        "a tree of tables with nothing in it is walked entry by entry",
        (f"{_C}::test_a_table_that_is_named_everywhere_is_looked_at_once",),
    ),
    Mutant(
        _TOLD,
        "        address = last->start;\n        runs->count--;\n",
        "",
        "a range is cut in two where a call ends early",
        (f"{_C}::test_a_range_is_not_cut_where_a_call_ends_early_but_for_its_first",),
    ),
    Mutant(
        _LIST,
        "        mvi_runs_stop(runs, run->start);\n        return false;",
        "        mvi_runs_stop(runs, run->start + run->size);\n        return false;",
        "a list that is continued has gaps",
        (f"{_C}::test_a_list_that_is_continued_has_neither_gaps_nor_repetitions",),
    ),
    Mutant(
        _PYTHON,
        "last is not None and _goes_on(last, found[0]):",
        "last is not None and last is found[0]:",
        "a range that a walk ended in is two",
        (f"{_PY}::test_a_range_that_a_walk_ended_in_is_one",),
    ),
)
