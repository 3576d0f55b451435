# SPDX-License-Identifier: Apache-2.0
"""Bugs planted in the dump driver: formats, kinds of memory, what is refused."""

from __future__ import annotations

from mutants.mutant import Mutant

_DUMP = "libmicrovmi_py/drivers/dump"
_TESTS = "tests/drivers/dump"
_KINDS = f"{_TESTS}/test_dump_kinds.py"
_WHOLE = f"{_KINDS}::test_a_whole_dump_has_the_kinds_of_its_machine"

MUTANTS = (
    Mutant(
        f"{_DUMP}/ranges.py",
        "not first <= last < 1 << PHYSICAL_BITS",
        "not first < last < 1 << PHYSICAL_BITS",
        "a LiME range of one byte is refused",
        (f"{_TESTS}/test_dump_formats.py::test_a_lime_range_may_have_one_byte",),
    ),
    Mutant(
        f"{_DUMP}/kinds.py",
        "for start, end in spans if start <= address < end), address)",
        "for start, end in spans if start < address < end), address)",
        "in a core with a segment that starts exactly at 1 MiB device memory counts as RAM",
        (_WHOLE,),
    ),
    Mutant(
        f"{_DUMP}/formats/kdump.py",
        'b"Unknown", b""',
        'b"unknown", b""',
        "kdump files of QEMU 10 have no vCPUs, and device memory is RAM",
        (f"{_KINDS}::test_a_kdump_of_a_machine_that_is_not_named_is_a_pc_if_qemus_own_note_is_there",),
    ),
    Mutant(
        f"{_DUMP}/notes.py",
        "    if not told:\n        return Processors()\n",
        "",
        "an ARM machine's kdump of QEMU 10 has an x86 machine's registers",
        (f"{_KINDS}::test_a_kdump_of_a_machine_that_is_not_named_is_a_pc_if_qemus_own_note_is_there",),
    ),
    Mutant(
        f"{_DUMP}/notes.py",
        "if selector > 0xFFFF:",
        "if selector > 0xFFFFFFFF:",
        "a selector that is no selector ends in an internal error",
        (f"{_TESTS}/test_dump_registers.py::test_notes_that_lie_are_an_error",),
    ),
    Mutant(
        f"{_DUMP}/notes.py",
        "itertools.islice(_walk(notes), 2 * _MAX_COUNT + 1)",
        "itertools.islice(_walk(notes), 2 * _MAX_COUNT)",
        "notes beyond any machine's are left out without a word",
        (f"{_TESTS}/test_dump_registers.py::test_more_notes_than_any_machine_has_are_an_error",),
    ),
    Mutant(
        f"{_DUMP}/kinds.py",
        "main or (_seen(spans, low) if whole else _possible(low))",
        "main or _seen(spans, low)",
        "RAM of a filtered dump is a device's from its first hole on",
        (f"{_KINDS}::test_a_hole_of_a_filtered_dump_is_no_end_of_ram",),
    ),
    Mutant(
        f"{_DUMP}/kinds.py",
        "main or (_seen(spans, low) if whole else _possible(low))",
        "main or _possible(low)",
        "device memory behind the end of RAM is RAM",
        (_WHOLE,),
    ),
    Mutant(
        f"{_DUMP}/kinds.py",
        "(end == low if whole else low <= end <= _4_GIB)",
        "(end <= low if whole else low <= end <= _4_GIB)",
        "a guest that lies in its firmware's tables hides its memory from streams",
        (_WHOLE,),
    ),
    Mutant(
        f"{_DUMP}/kinds.py",
        "        if main and not whole:\n            spans = joined([*spans, main[0]])\n",
        "",
        "the maximum address of a dump by page tables is below the machine's",
        (f"{_KINDS}::test_segments_by_page_tables_do_not_tell_where_ram_ends_but_the_firmware_does",),
    ),
    Mutant(
        f"{_DUMP}/kinds.py",
        "_covers(spans, *_VIDEO) and mirrored(read, size)",
        "_covers(spans, *_VIDEO)",
        "firmware of a PC without video memory is told as a device's, and RAM below 1 MiB too",
        (_WHOLE,),
    ),
    Mutant(
        f"{_DUMP}/kinds.py",
        "self._firmware_at <= first < _4_GIB",
        "last == _4_GIB",
        "pages of the firmware in a filtered dump are a device's",
        (f"{_KINDS}::test_the_sizes_of_segments_in_memory_tell_what_was_left_out",),
    ),
    Mutant(
        f"{_DUMP}/firmware.py",
        "yield first << 10, (last + 1) << 10",
        "yield first << 10, last << 10",
        "what the firmware tells never agrees, and 64-bit BARs are RAM",
        (_WHOLE,),
    ),
    Mutant(
        f"{_DUMP}/firmware.py",
        "if flags & 1:",
        "if True:",
        "memory that is switched off in the firmware's tables is RAM",
        (_WHOLE,),
    ),
    Mutant(
        f"{_DUMP}/firmware.py",
        "len(content) > 0 and sum(content) % 256 == 0",
        "len(content) > 0",
        "tables of the firmware that are damaged are believed",
        (f"{_KINDS}::test_tables_of_the_firmware_that_do_not_hold_together_are_passed_over",),
    ),
    Mutant(
        f"{_DUMP}/formats/elf.py",
        "machine in _X86 and flags & _INCOMPLETE",
        "machine not in _X86 and flags & _INCOMPLETE",
        "a core that makedumpfile could not finish counts as whole",
        (f"{_TESTS}/test_dump_damage.py",),
    ),
    Mutant(
        f"{_DUMP}/formats/elf.py",
        "load.virtual not in (0, load.address)",
        "load.virtual not in (0, load.address, load.virtual)",
        "in a dump by page tables the sizes of mapped devices move the maximum address",
        (f"{_KINDS}::test_segments_by_page_tables_do_not_tell_where_ram_ends_but_the_firmware_does",),
    ),
    Mutant(
        f"{_DUMP}/formats/elf.py",
        "load.address + max(load.size, load.in_memory)",
        "load.address + load.size",
        "the maximum address of a filtered core is below the machine's",
        (f"{_KINDS}::test_the_sizes_of_segments_in_memory_tell_what_was_left_out",),
    ),
    Mutant(
        f"{_DUMP}/formats/elf.py",
        "exists if believed else None",
        "exists",
        "a core that lies about a size moves the maximum address beyond any machine's",
        (f"{_KINDS}::test_a_size_in_memory_beyond_any_machine_is_not_believed",),
    ),
    Mutant(
        f"{_DUMP}/formats/kdump.py",
        "known = pages.exists if plausible(pages.exists) else memory.ranges()",
        "known = memory.ranges()",
        "the maximum address of a filtered kdump file is below the machine's",
        (f"{_KINDS}::test_the_first_bitmap_tells_what_was_left_out",),
    ),
    Mutant(
        f"{_DUMP}/formats/kdump.py",
        "if plausible(pages.exists) else",
        "if pages.exists else",
        "a bitmap that calls every page memory makes every device RAM",
        (f"{_TESTS}/test_dump_formats.py::test_memory_of_devices_and_firmware_is_told_apart_in_dumps_of_hypervisors",),
    ),
    Mutant(
        f"{_DUMP}/recognition.py",
        "raise image.refused(item.what, item.way_out)",
        "pass",
        "saved machines and images of disks are read as raw memory",
        (f"{_TESTS}/test_dump_known.py::test_every_file_of_the_table_is_refused_with_its_name_and_the_way_out",),
    ),
    Mutant(
        f"{_DUMP}/recognition.py",
        "image.start.startswith(item.magic, item.offset)",
        "image.start.startswith(item.magic)",
        "a signature that is not at the very start is not seen",
        (f"{_TESTS}/test_dump_known.py::test_every_file_of_the_table_is_refused_with_its_name_and_the_way_out",),
    ),
    Mutant(
        f"{_DUMP}/image.py",
        "copy it again, or make the dump anew",
        "copy it again, or say format=raw",
        "a user of a cut dump is told to read wrong bytes",
        (f"{_TESTS}/test_dump_damage.py::test_a_file_that_is_cut_says_how_many_bytes_are_missing",),
    ),
    Mutant(
        f"{_DUMP}/image.py",
        "{offset + size - self.size} bytes are missing",
        "{size} bytes are missing",
        "a cut dump tells a wrong number of missing bytes",
        (f"{_TESTS}/test_dump_damage.py::test_a_file_that_is_cut_says_how_many_bytes_are_missing",),
    ),
    Mutant(
        f"{_DUMP}/image.py",
        "return self.mapping.size if err.errno == errno.ENXIO else offset",
        "return offset",
        "a sparse file of 8 KiB takes half a minute to open",
        (f"{_TESTS}/test_dump_damage.py::test_a_sparse_file_of_a_huge_machine_is_opened_at_once",),
    ),
    Mutant(
        f"{_DUMP}/bitmap.py",
        "image.next_data(offset + position) - offset)",
        "image.next_data(offset + position))",
        "pages behind a hole of a bitmap are missing",
        (f"{_TESTS}/test_dump_damage.py::test_what_a_sparse_bitmap_has_is_found",),
    ),
    Mutant(
        "libmicrovmi_py/_native/packed_table.c",
        "bool open = found->count > 0 && found->ends[found->count - 1] == first;",
        "bool open = false;",
        "a run of pages that goes on in the next piece of a bitmap is two",
        (f"{_TESTS}/test_dump_packed.py::test_runs_go_on_from_one_piece_of_a_bitmap_to_the_next",),
    ),
    Mutant(
        f"{_DUMP}/formats/kdump.py",
        "sorted({0, max(count - _AT_ONCE, 0)})",
        "[0]",
        "a kdump file that was cut in its last pages is opened",
        (f"{_TESTS}/test_dump_packed.py::test_a_dump_that_is_cut_is_told_when_it_is_opened",),
    ),
    Mutant(
        "libmicrovmi_py/transport/mapping.py",
        "stat.S_ISREG(mode) or stat.S_ISBLK(mode)",
        "stat.S_ISREG(mode)",
        "a block device is no image",
        ("tests/drivers/test_dump.py::test_a_block_device_is_an_image",),
    ),
)
