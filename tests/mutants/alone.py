# SPDX-License-Identifier: Apache-2.0
"""Bugs of reading a machine by its process alone: memory that is another, and machines that are not refused."""

from __future__ import annotations

from mutants.mutant import Mutant

SPLIT, ALONE = "libmicrovmi_py/drivers/qemu/split.py", "libmicrovmi_py/drivers/qemu/alone.py"
HOSTED, VMM = "libmicrovmi_py/drivers/hosted.py", "libmicrovmi_py/drivers/vmm.py"
PROCESSES, MACHINE = "libmicrovmi_py/transport/processes.py", "libmicrovmi_py/machine/microvmi.py"

LONE = "tests/drivers/test_qemu_alone.py::test_"
OTHERS = "tests/drivers/test_vmm.py::test_"

MUTANTS = (
    Mutant(
        SPLIT,
        "size < 0xE0000000",
        "size <= 0xE0000000",
        "of a pc with 3.5 GiB the upper part is read where there is none",
        (f"{LONE}where_the_memory_of_a_pc_is",),
    ),
    Mutant(
        SPLIT,
        "    yield Piece(_HIGH, low - _HIGH, _HIGH)\n",
        "    yield Piece(_HIGH, low - _HIGH, 0)\n",
        "memory from 1 MiB on is that from 0 on",
        (f"{LONE}the_memory_of_a_machine_without_a_monitor",),
    ),
    Mutant(
        SPLIT,
        '    if "slots" in memory or "maxmem" in memory:\n',
        '    if "slots" in memory:\n',
        "a machine that may have had memory plugged in is told without it",
        (f"{LONE}what_is_not_certain_is_told",),
    ),
    Mutant(
        SPLIT,
        "        if option in _REASONS:\n            raise UncertainError(_REASONS[option])\n",
        "        if option in _REASONS:\n            continue\n",
        "a machine with NUMA nodes, or that waits for a migration, is read all the same",
        (f"{LONE}what_is_not_certain_is_told",),
    ),
    Mutant(
        SPLIT,
        "        if other and _size_of(item) in (0, size):\n",
        "        if other and not _size_of(item):\n",
        "another memory backend is taken for the main memory while QEMU starts",
        (f"{LONE}what_is_not_certain_is_told",),
    ),
    Mutant(
        SPLIT,
        "bytes_of(text) if memory else backend or _DEFAULT",
        "bytes_of(text) if memory else _DEFAULT",
        "a machine whose memory backend alone has a size is not opened, or video memory taken for its own",
        (f"{LONE}where_the_memory_of_a_pc_is",),
    ),
    Mutant(
        ALONE,
        "    if split.in_file and not found[0].inode:\n",
        "    if False:\n",
        "memory of a device is read for memory that is in huge pages",
        (f"{LONE}memory_in_a_file_is_not_taken_from_elsewhere",),
    ),
    Mutant(
        ALONE,
        "    if len(found) != 1:\n",
        "    if not found:\n",
        "one of two mappings of the same size is taken",
        (f"{LONE}a_process_whose_memory_cannot_be_told_is_refused",),
    ),
    Mutant(
        ALONE,
        "    if not _is_guarded(qemu.process, found[0]):\n",
        "    if False:\n",
        "what is no memory of a guest but has its size is taken",
        (f"{LONE}a_process_whose_memory_cannot_be_told_is_refused",),
    ),
    Mutant(
        HOSTED,
        "        if not self._process.alive:\n",
        "        if False:\n",
        "a machine that ended still tells its memory",
        (f"{LONE}the_end_of_a_machine_without_a_monitor_is_noticed", f"{OTHERS}there_is_the_memory_alone"),
        why="a process that ended refuses to be looked at: only another one that got its number shows it",
    ),
    Mutant(
        HOSTED,
        "            if vma not in self._process.areas(vma.end - vma.start):\n",
        "            if False:\n",
        "a machine whose memory is elsewhere now still tells the old one",
        (f"{LONE}memory_that_is_gone_is_told",),
    ),
    Mutant(
        MACHINE,
        'cannot {action}{self._remedy()}"',
        'cannot {action}"',
        "who cannot pause a machine without a monitor is not told the way out",
        (f"{LONE}what_takes_a_monitor_is_not_supported_and_the_way_out_is_told",),
    ),
    Mutant(
        VMM,
        "        start, size = end, size - part\n",
        "        start, size = gap, size - part\n",
        "memory above a gap is told to lie in it",
        (f"{OTHERS}ram_lies_around_the_gaps",),
    ),
    Mutant(
        VMM,
        "any(len(areas) != 1 for _, _, areas in found)",
        "any(not areas for _, _, areas in found)",
        "one of two mappings of the same size is taken",
        (f"{OTHERS}a_machine_of_firecracker_that_is_not_certain",),
    ),
    Mutant(
        VMM,
        '    if "memory-hotplug" in config:\n',
        '    if "memory-hotplug" in options:\n',
        "a machine that may have had memory plugged in is told without it",
        (f"{OTHERS}a_file_of_firecracker_that_makes_no_sense",),
    ),
)
