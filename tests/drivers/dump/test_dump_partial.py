# SPDX-License-Identifier: Apache-2.0
"""``partial=on`` opens what is there of a dump that is cut short or was not finished: right to the byte, no more."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from drivers.dump import builders
from drivers.dump.builders import PAGE, values

from libmicrovmi_py import IoError, Microvmi
from libmicrovmi_py.abilities import Ability

SOURCE = random.Random("partial")
MEMORY = {0: SOURCE.randbytes(3 * PAGE), 0x10000: SOURCE.randbytes(5 * PAGE), 0x100000: SOURCE.randbytes(4 * PAGE)}
NOTES = builders.qemu_note(values(0)) + builders.qemu_note(values(1))


def _flattened(content: bytes) -> bytes:
    """Records in their order, as a program writes them that is stopped in the middle."""
    records = [
        struct.pack(">qq", at, len(content[at : at + 999])) + content[at : at + 999]
        for at in range(0, len(content), 999)
    ]
    return builders.flattened(b"")[:PAGE] + b"".join(records) + struct.pack(">qq", -1, -1)


WHOLE = {
    "lime": builders.lime(MEMORY),
    "elf": builders.elf(MEMORY, NOTES),
    "elf-32": builders.elf(MEMORY, NOTES, bits=32, machine=3, many=True),
    "full": builders.windows(MEMORY),
    "bitmap": builders.windows(MEMORY, kind=5),
    "kdump": builders.kdump(MEMORY, NOTES),
    "flat": _flattened(builders.elf(MEMORY, NOTES)),
}


def opened(folder: Path, content: bytes, **options: str) -> Microvmi:
    """A file of that content as a machine."""
    path = folder / "the dump"
    path.write_bytes(content)
    return Microvmi(driver="dump", path=path, **options)


def there(machine: Microvmi) -> int:
    """How many bytes there are, all of which are compared with what was put into the file."""
    for item in machine.memory_map():
        start = max(address for address in MEMORY if address <= item.start)
        content = MEMORY[start][item.start - start :][: item.size]
        assert machine.read_physical(item.start, item.size) == content
    return sum(item.size for item in machine.memory_map())


def _size(folder: Path, content: bytes) -> int:
    """How much memory of a file that is cut there is, 0 if nothing can be read."""
    try:
        with opened(folder, content, partial="on") as machine:
            return there(machine)
    except IoError as err:
        found = err
    assert "partial" not in str(found), "it was said already"
    return 0


@pytest.mark.parametrize("name", WHOLE)
def test_of_a_file_that_is_cut_anywhere_what_is_there_is_right(tmp_path: Path, name: str) -> None:
    content, sizes = WHOLE[name], []
    memory = sum(map(len, MEMORY.values()))
    for end in sorted({*range(len(content) // 3, len(content), len(content) // 30), len(content) - 1}):
        with pytest.raises(IoError, match="is cut short or damaged"):
            opened(tmp_path, content[:end])
        sizes.append(_size(tmp_path, content[:end]))
    assert sizes == sorted(sizes)
    assert sizes[0] < memory // 2 < sizes[-1]
    assert sizes[-1] >= memory - PAGE, "what is missing is no more than a page"
    with opened(tmp_path, content, partial="on") as machine:
        assert there(machine) == memory


@pytest.mark.parametrize("name", ["lime", "elf", "full", "kdump"])
def test_an_error_that_can_be_passed_over_says_how(tmp_path: Path, name: str) -> None:
    with pytest.raises(IoError, match=r", or open what is there with partial=on$"):
        opened(tmp_path, WHOLE[name][:-5000])
    with pytest.raises(IoError, match=r"copy it again, or make the dump anew$"):
        opened(tmp_path, WHOLE[name][:20])


def test_a_dump_that_was_not_finished_opens_without_the_pages_that_were_not_written(tmp_path: Path) -> None:
    content = bytearray(builders.kdump(MEMORY, NOTES, status=9))
    table = 4 * PAGE
    struct.pack_into("<QIIQ", content, table + 24 * 2, 0, 0, 0, 0)  # the last page of the first run
    struct.pack_into("<QIIQ", content, table + 24 * 5, len(content), 100, 1, 0)  # one in the middle
    struct.pack_into("<QIIQ", content, table + 24 * 11, 1 << 60, PAGE, 0, 0)  # the last of all
    with pytest.raises(IoError, match=r"it says that it was not finished.*partial=on"):
        opened(tmp_path, bytes(content))
    with opened(tmp_path, bytes(content), partial="on") as machine:
        places = [(item.start, item.end) for item in machine.memory_map()]
        assert places == [(0, 0x2000), (0x10000, 0x12000), (0x13000, 0x15000), (0x100000, 0x103000)]
        assert there(machine) == 9 * PAGE
        assert machine.max_addr == 0x104000, "it had more"
        assert machine.vcpu_count() == 2


def test_an_unfinished_core_and_bad_notes_leave_the_memory(tmp_path: Path) -> None:
    unfinished = bytearray(WHOLE["elf"])
    struct.pack_into("<I", unfinished, 48, 1)
    lying = builders.elf(MEMORY, struct.pack("<3I", 5, 1 << 20, 1) + NOTES)
    for content, text, vcpus in ((bytes(unfinished), "not finished", True), (lying, "note at 0x0", False)):
        with pytest.raises(IoError, match=text):
            opened(tmp_path, content)
        with opened(tmp_path, content, partial="yes") as machine:
            assert there(machine) == sum(map(len, MEMORY.values()))
            assert (Ability.VCPU_COUNT in machine.abilities.can) is vcpus


def test_bytes_behind_the_last_lime_range_are_passed_over(tmp_path: Path) -> None:
    for behind in (bytes(512), b"something else that is long enough for a header"):
        with pytest.raises(IoError, match=r"no LiME range at .*partial=on"):
            opened(tmp_path, WHOLE["lime"] + behind)
        with opened(tmp_path, WHOLE["lime"] + behind, partial="on") as machine:
            assert there(machine) == sum(map(len, MEMORY.values()))
