# SPDX-License-Identifier: Apache-2.0
"""Bugs of comparing two memories, and of naming two tables at once."""

from __future__ import annotations

from mutants.mutant import Mutant

_DIFF = "libmicrovmi_py/_native/diff.c"
_READERS = "libmicrovmi_py/_native/readers.c"
_NAMES = "libmicrovmi_py/_native/readers.h"
_PYTHON = "libmicrovmi_py/memory/difference.py"
_C = "tests/capi/test_diff.py"
_PY = "tests/memory/test_difference.py"
_ANYWHERE = f"{_PY}::test_regions_that_begin_and_end_anywhere"
_LEFT = "tests/memory/test_left.py::test_nor_what_they_leave_of_two_machines_in_one_call"

MUTANTS = (
    Mutant(
        _DIFF,
        "        if (told >= end)\n            return true;\n",
        "",
        "a frame in which memory of two kinds meets is told twice",
        (f"{_PY}::test_a_frame_in_which_memory_of_two_kinds_meets_is_told_once",),
    ),
    Mutant(
        _DIFF,
        "run->kind == kind && run->size < MVI_DIFF_RUN",
        "run->size < MVI_DIFF_RUN",
        "neighbours of different kinds are one range",
        (_ANYWHERE,),
    ),
    Mutant(
        _DIFF,
        "        diff->next = start;\n",
        "        diff->next = start + PAGE_SIZE;\n",
        "a full call loses the frame that it had no room for",
        (f"{_C}::test_a_full_call_goes_on_with_the_frame_that_had_no_room",),
    ),
    Mutant(
        _DIFF,
        "both->work >= MVI_DIFF_LIMIT && ",
        "both->work >= UINT64_MAX && ",
        "a call goes on until all is compared",
        (f"{_PY}::test_one_look_ends_early_and_tells_where_to_go_on",),
    ),
    Mutant(
        _DIFF,
        "    if (!side->filled)\n        return MICROVMI_OK;\n    if (side->region->bytes",
        "    if (side->region->bytes",
        "holes of a mapped file are touched, so that the host allocates them",
        (f"{_PY}::test_holes_stay_holes",),
    ),
    Mutant(
        _DIFF,
        "    if (!mvi_both_compare(both, at, mvi_smaller(before, after)))\n        return false;\n    if (newer",
        "    if (older == MICROVMI_OK && newer == MICROVMI_OK && !mvi_both_compare(both, at, size))\n"
        "        return false;\n    if (newer",
        "of a piece of which an end cannot be read nothing is told",
        (f"{_C}::test_an_image_that_became_shorter_is_an_error_where_it_ends",),
    ),
    Mutant(
        _DIFF,
        "        *got = mvi_still_there(side->region, offset, size);\n",
        "        *got = size;\n",
        "a file that became shorter is read behind its end",
        (f"{_C}::test_an_image_that_became_shorter_is_an_error_where_it_ends",),
    ),
    Mutant(
        _DIFF,
        "    return side->is_known ? mvi_side_is_there(side, offset) : MICROVMI_ERROR_IO;",
        "    return side->is_known ? MICROVMI_OK : MICROVMI_ERROR_IO;",
        "memory that was unplugged is zeros if nothing is in its place",
        (f"{_PY}::test_memory_that_was_unplugged_is_an_error_whatever_is_there_now",),
    ),
    Mutant(
        _READERS,
        "        if (__atomic_load_n(&reader->second, __ATOMIC_ACQUIRE) == (uintptr_t)table)\n",
        "        if (table == NULL)\n",
        "a table goes while a call compares it as the second one",
        ("tests/threads/test_differ.py::test_on_images",),
    ),
    Mutant(
        _READERS,
        "        __atomic_store_n(&mvi_thread.reader->second, 0, __ATOMIC_RELEASE);\n",
        "",
        "a destroy waits for a comparison that its own thread left by a jump",
        (_LEFT,),
    ),
    Mutant(
        _NAMES,
        "    __atomic_store_n(&mvi_thread.reader->second, 0, __ATOMIC_RELEASE);\n    return mvi_table_name",
        "    return mvi_table_name",
        "a destroy waits for a comparison that was left by a jump",
        (_LEFT,),
    ),
    Mutant(
        _PYTHON,
        "            self._keep(err.completed, kind)\n            raise\n",
        "            raise\n",
        "what was read of a window before an error is not compared",
        (f"{_PY}::test_what_was_found_before_an_error_is_told",),
    ),
    Mutant(
        _PYTHON,
        "            if error is not None and not isinstance(error, NotMappedError):\n                raise error\n",
        "",
        "a frame that cannot be read behind a hole is taken for one",
        (f"{_PY}::test_a_frame_that_cannot_be_read_behind_a_hole_is_an_error",),
    ),
)
