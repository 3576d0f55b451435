# SPDX-License-Identifier: Apache-2.0
"""Bugs in how a call notices what others did to a machine that is open."""

from __future__ import annotations

from mutants.mutant import Mutant

_DIRECT = "libmicrovmi_py/_native/direct.c"
_LOOK = "libmicrovmi_py/_native/look.c"
_QEMU = "libmicrovmi_py/drivers/qemu/__init__.py"
_MOVED = "tests/memory/test_moved.py"
_REUSED = "tests/drivers/test_qemu_unplugged.py::test_what_came_where_a_dimm_was_is_not_taken_for_it"
_NOT_KEPT = "tests/drivers/test_qemu_unplugged.py::test_it_is_not_kept_of_a_paused_machine_either"
_CHANGES = "tests/drivers/test_qemu_changes.py"
_FORGETS = f"{_CHANGES}::test_whatever_asks_a_qemu_that_we_keep_paused_forgets_what_was_kept"

MUTANTS = (
    Mutant(
        _DIRECT,
        "    else if (mvi_has_moved(region))\n        code = MICROVMI_ERROR_IO;\n",
        "",
        "the stack of a thread of QEMU's is read as a DIMM that was there",
        (_REUSED, _MOVED),
    ),
    Mutant(
        _DIRECT,
        " || mvi_has_moved(region))\n        return false;",
        ")\n        return false;",
        "of a paused machine that is kept as a page of the DIMM",
        (_NOT_KEPT,),
    ),
    Mutant(
        _DIRECT,
        " && region->mapping == NULL && mvi_holds(",
        " && mvi_holds(",
        "a batch reads what came into a DIMM's place",
        (_REUSED,),
    ),
    Mutant(
        _LOOK,
        ": now->start == mapping->start && now->end == mapping->end;",
        ": now->start >= mapping->start;",
        "a smaller mapping in the place of a DIMM is taken for it",
        (_MOVED, _REUSED),
    ),
    Mutant(
        _LOOK,
        "        at += (uint64_t)(line - text);\n",
        "        at += (uint64_t)got;\n",
        "a line of an old kernel's list is lost where two reads meet, and memory that is there cannot be read",
        (_MOVED,),
    ),
    Mutant(
        _QEMU,
        "(self._memory.has_unsteady_files or self._memory.has_moved)",
        "self._memory.has_unsteady_files",
        "memory that QEMU has split into two mappings is an error for ever",
        ("tests/drivers/test_qemu_unplugged.py::test_memory_whose_mapping_was_split_is_read_after_the_next_map",),
    ),
    Mutant(
        _QEMU,
        "            yield client\n            self._forget_memory()\n",
        "            yield client\n",
        "a machine that was loaded while we kept it paused is read as it was, whatever QEMU is asked",
        (_FORGETS,),
    ),
    Mutant(
        _QEMU,
        "        self._owes_run = self._stands = False\n",
        "        self._owes_run = False\n",
        "every question to a machine that runs again makes its table anew",
        (f"{_CHANGES}::test_a_machine_that_runs_has_nothing_made_anew_by_a_question",),
    ),
    Mutant(
        _QEMU,
        "if not client.map_changed and not self._monitor.takes_memory():",
        "if not client.map_changed:",
        "memory that was plugged in is not seen when registers are read",
        (f"{_CHANGES}::test_the_map_follows_every_answer_where_memory_may_be_plugged_in",),
    ),
    Mutant(
        "libmicrovmi_py/transport/qmp.py",
        "self.map_changed = self.map_changed or event in MAP_EVENTS",
        "pass",
        "QEMU tells that a device is gone, and nobody listens",
        (f"{_CHANGES}::test_an_event_on_the_way_has_the_map_read_anew",),
    ),
    Mutant(
        _QEMU,
        "            if stops.is_awaited(word, migration):\n",
        "            if False:\n",
        "a machine that has yet to be migrated here reads as zeros, and takes writes that are lost",
        (f"{_CHANGES}::test_a_machine_that_waits_for_a_migration_has_no_memory_yet",),
    ),
    Mutant(
        "libmicrovmi_py/memory/direct.py",
        "        return None if self._table.awaited else self._table\n",
        "        return self._table\n",
        "C never sees that a machine has come that was awaited",
        (f"{_CHANGES}::test_from_c_too",),
    ),
    Mutant(
        "libmicrovmi_py/memory/direct.py",
        "        if self._known_until < time.monotonic() and",
        "        if",
        "each read of a machine that is awaited connects to its monitor",
        (f"{_CHANGES}::test_a_read_asks_no_more_than_some_times_a_second",),
    ),
    Mutant(
        "libmicrovmi_py/declare.py",
        "        if owner is None:",
        "        if False:",
        "two threads that make the first objects of a class at once have one of them fail",
        ("tests/test_declare.py::test_two_threads_may_make_the_first_objects_of_a_class_at_once",),
    ),
)
