# SPDX-License-Identifier: Apache-2.0
"""Bugs in virtual memory of Python programs and of drivers of frames."""

from __future__ import annotations

from mutants.mutant import Mutant

_FRAMES = "libmicrovmi_py/memory/virtual_frames.py"
_DIRECT = "libmicrovmi_py/memory/virtual_direct.py"
_FILES = "libmicrovmi_py/memory/virtual.py"
_WALKS = "libmicrovmi_py/memory/walks.py"
_PAGING = "libmicrovmi_py/arch/x86/paging.py"
_MEMORY_TESTS = "tests/memory/test_virtual_memory.py"
_FILE_TESTS = "tests/memory/test_virtual_files.py"

MUTANTS = (
    Mutant(
        _FRAMES,
        "        views = [_room(run) for run, _ in there]",
        "        views = [buffer[run.begin : run.end] for run, _ in there]",
        "what lies behind a hole is handed out",
        (f"{_MEMORY_TESTS}::test_behind_a_hole_nothing_is_handed_out",),
    ),
    Mutant(
        _FRAMES,
        "        for run in runs if len(runs) > 1 else ():\n",
        "        for run in ():\n",
        "a write that ends in read-only memory is half done",
        (f"{_MEMORY_TESTS}::test_a_write_that_ends_in_memory_that_cannot_be_written_writes_nothing",),
    ),
    Mutant(
        _FRAMES,
        "        if physical is not None and physical == follows:",
        "        if physical is not None and runs:",
        "pages that are no neighbours are read in one piece",
        (f"{_MEMORY_TESTS}::test_a_read_of_many_pages_takes_a_trip_a_level_and_one_for_the_data",),
    ),
    Mutant(
        _FRAMES,
        "    return [_Run(end, size, None, None, 0)] if end < size else []",
        "    return []",
        "a read beyond the last address is whole",
        ("tests/contract/test_contract_virtual.py::test_reads_do_not_go_on_at_the_first_address[fake]",),
    ),
    Mutant(
        _WALKS,
        "        if err is not None and not isinstance(err, NotMappedError):",
        "        if False:",
        "a table that cannot be read counts as a hole",
        (f"{_MEMORY_TESTS}::test_a_table_that_cannot_be_read_is_no_hole",),
    ),
    Mutant(
        _WALKS,
        "                there.append(index < len(words))",
        "                there.append(True)",
        "a table outside memory ends with an error of the library's own",
        (f"{_MEMORY_TESTS}::test_tables_of_random_bytes_end_as_the_reference_says[by_frames-x86-4]", _MEMORY_TESTS),
    ),
    Mutant(
        _WALKS,
        "            frames.setdefault(place >> PAGE_SHIFT, []).append(place)",
        "            frames.setdefault(place, []).append(place)",
        "each entry of a table is a piece of its own",
        (f"{_MEMORY_TESTS}::test_a_read_of_many_pages_takes_a_trip_a_level_and_one_for_the_data",),
    ),
    Mutant(
        _DIRECT,
        "        if code == NotMappedError.code and begun:",
        "        if begun:",
        "a failure in the middle of a read is told as its end",
        (f"{_FILE_TESTS}::test_a_read_that_fails_in_the_middle_says_so",),
    ),
    Mutant(
        _FILES,
        "            if size > self._size - position:\n                size = self._size - position\n",
        "",
        "a window goes on behind its end",
        (f"{_FILE_TESTS}::test_positions_are_virtual_addresses_up_to_the_last", _FILE_TESTS),
    ),
    Mutant(
        _FILES,
        "            if len(view) > self._size - position:",
        "            if False:",
        "a write goes on behind the end of a window",
        (f"{_FILE_TESTS}::test_a_window_is_as_large_as_it_can_be",),
    ),
    Mutant(
        _PAGING,
        "        kernel[:split] == user[:split]\n",
        "        True\n",
        "any two tables beside each other are twins",
        (f"{_FILE_TESTS}::test_the_twin_of_a_kernel_that_isolates_its_tables",),
    ),
    Mutant(
        _PAGING,
        '    if not registers.get("cr0") or not',
        "    if not",
        "a dump without control registers has virtual memory that is physical",
        ("tests/test_arch.py::test_registers_that_no_processor_has_name_no_tables",),
    ),
)
