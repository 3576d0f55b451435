# SPDX-License-Identifier: Apache-2.0
"""Bugs in what is told of a Linux guest."""

from __future__ import annotations

from mutants.mutant import Mutant

PLACE = "libmicrovmi_py/linux"
KERNEL = "tests/linux/test_kernel.py"
PROCESSES = "tests/linux/test_processes.py"
FUZZ = "tests/fuzz/test_linux_memory.py"
IN_LAYOUTS = f"{KERNEL}::test_symbols_are_found_in_every_layout"

MUTANTS = (
    Mutant(
        f"{PLACE}/spaces.py",
        "    if space.translate(virtual).physical_address != base:\n",
        "    if False:\n",
        "the page tables of a kernel that is gone are taken",
        (f"{KERNEL}::test_a_note_of_a_kernel_that_is_gone_is_passed_over",),
    ),
    Mutant(
        f"{PLACE}/kallsyms.py",
        "(base - 1 - offset)",
        "(base - offset)",
        "symbols of kernels with places of CPUs are off by one",
        (IN_LAYOUTS,),
    ),
    Mutant(
        f"{PLACE}/kallsyms.py",
        "[(first + 4 * index + offset)",
        "[(first + offset)",
        "addresses that count from where they lie count from the first",
        (IN_LAYOUTS,),
    ),
    Mutant(
        f"{PLACE}/shape.py",
        "    for index_at in {end + 3 & ~3, end + 7 & ~7}:",
        "    for index_at in {end + 7 & ~7}:",
        "the index of tokens is not found in kernels that align it to four bytes",
        (f"{KERNEL}::test_without_a_note_the_registers_lead_to_the_kernel", IN_LAYOUTS),
    ),
    Mutant(
        f"{PLACE}/unnamed.py",
        'int.from_bytes(content[8:], "little") == at',
        "True",
        "what looks like the first task is taken for it",
        (f"{KERNEL}::test_types_and_the_first_task_are_found_if_only_functions_are_named",),
    ),
    Mutant(
        f"{PLACE}/objects.py",
        '        if item.number(f"{member}.prev") != before:',
        "        if False:",
        "a list that was changed while it was read is told",
        (f"{PROCESSES}::test_a_list_that_leads_astray_is_refused",),
    ),
    Mutant(
        f"{PLACE}/tasks.py",
        "    if state & _IDLE == _IDLE:",
        "    if state == 0:",
        "idle threads of the kernel are shown as waiting for a disk",
        (f"{PROCESSES}::test_states_have_the_letters_of_ps",),
    ),
    Mutant(
        f"{PLACE}/maps.py",
        "        if not last or last == U64_MAX:\n            break\n",
        "",
        "what lies behind the last entry of a node is taken for an area",
        (f"{PROCESSES}::test_a_process_has_its_memory_and_arguments",),
    ),
    Mutant(
        f"{PLACE}/maps.py",
        "        if nodes + len(waiting) > _MOST_NODES or level > _MOST_LEVELS:",
        "        if False:",
        "a tree that leads back into itself is read without an end",
        (f"{PROCESSES}::test_a_tree_of_memory_without_an_end_is_refused",),
    ),
    Mutant(
        f"{PLACE}/log.py",
        "            start = 0\n",
        "            pass\n",
        "a record that begins anew at the ring's start is lost",
        (f"{PROCESSES}::test_the_log_is_told_from_the_oldest_record_on",),
    ),
    Mutant(
        f"{PLACE}/log.py",
        "        if not 0 < bits <= most:",
        "        if not 0 < bits:",
        "a log of any size is read",
        (f"{PROCESSES}::test_a_log_of_another_size_than_any_is_refused",),
    ),
    Mutant(
        f"{PLACE}/kallsyms.py",
        "        if total > _MOST_TEXT:",
        "        if False:",
        "names are unpacked however long they are",
        (f"{FUZZ}::test_names_that_are_made_to_be_long_are_bounded",),
    ),
)
