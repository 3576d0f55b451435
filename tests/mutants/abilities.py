# SPDX-License-Identifier: Apache-2.0
"""Bugs in what a machine says that it can."""

from __future__ import annotations

from mutants.mutant import Mutant

ABILITIES = "tests/contract/test_contract_abilities.py"
REFUSED = f"{ABILITIES}::test_what_is_not_told_is_refused_and_nothing_else"
SAME = f"{ABILITIES}::test_c_and_python_tell_the_same"
MACHINE = "libmicrovmi_py/machine/microvmi.py"

MUTANTS = (
    Mutant(
        "libmicrovmi_py/drivers/dump/__init__.py",
        "        if not self._processors.count:\n            unable |= ",
        "        if self._processors.count:\n            unable |= ",
        "a dump without notes says that it has registers",
        (REFUSED,),
    ),
    Mutant(
        MACHINE,
        "ABILITIES[capability] in self._can",
        "True",
        "what a machine does not say that it can is tried all the same",
        (REFUSED, "tests/contract/test_contract_control.py::test_python_counts_and_reads_the_same_way"),
    ),
    Mutant(
        MACHINE,
        "        if EventKind.PAGE_ACCESS not in events.kinds:",
        "        if events.kinds:",
        "a machine that tells page accesses says that it has none",
        (f"{ABILITIES}::test_page_accesses_are_told_where_their_events_are",),
    ),
    Mutant(
        MACHINE,
        "        if self._physical.is_mapped:\n",
        "        if not self._physical.is_mapped:\n",
        "a machine whose memory is mapped says that it is not",
        (f"{ABILITIES}::test_memory_can_be_had_without_a_copy_where_that_is_told",),
    ),
    Mutant(
        "libmicrovmi_py/_capi/convert.py",
        "sum(1 << action for action in events.kinds",
        "sum(action for action in events.kinds",
        "C is told other answers than there are",
        (SAME,),
    ),
    Mutant(
        "libmicrovmi_py/_capi/convert.py",
        "    target.breakpoints = sum(events.breakpoints)\n",
        "",
        "C is not told which breakpoints there are",
        (SAME,),
    ),
    Mutant(
        "libmicrovmi_py/_native/entry.c",
        "&abilities->struct_size : NULL, MVI_ABILITIES_SIZE,",
        "&abilities->struct_size : NULL, MVI_ABILITIES_SIZE - 1,",
        "a struct of abilities that is too small is filled",
        (f"{ABILITIES}::test_what_is_no_struct_of_abilities_is_refused",),
    ),
)
