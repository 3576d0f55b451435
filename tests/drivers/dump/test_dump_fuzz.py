# SPDX-License-Identifier: Apache-2.0
"""Changed dumps of every format, opened and used through C: whatever is in them, it works or is an error of their kind.

``MICROVMI_FUZZ`` is how many times as many files are made (``make fuzz``). Every file is made from its format and its
number alone, so that one that fails can be made again: ``changed(NAME, NUMBER)``.
"""

from __future__ import annotations

import ctypes
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drivers.dump import builders
from drivers.dump.builders import PAGE, values

ROUNDS = 60 * int(os.environ.get("MICROVMI_FUZZ", "1"))
_HEADERS = 2500
"""Most files have what they say of themselves within so many bytes."""
SECONDS = 5.0
"""So long a file of some KiB, sparse ones of TiB as well, may take."""

MEMORY = {0: b"\x11" * PAGE, 0xF5000: builders.smbios([(0, 2 << 20)])[0xF5000], 0x100000: bytes(range(256)) * 32}
HIGH = {0x100000000: b"\x22" * PAGE, 0x200000000: b"\x33" * PAGE}
PC = {**MEMORY, **builders.acpi([(0, 2 << 20), (0x200000000, PAGE)]), **HIGH}
VCPUS = [values(0), values(1)]
QEMU = b"".join(builders.prstatus(vcpu) + builders.qemu_note(vcpu) for vcpu in VCPUS)
KERNEL = b"".join(builders.prstatus(vcpu) for vcpu in VCPUS)

FILES = {
    "lime": builders.lime(MEMORY),
    "elf of QEMU": builders.elf(PC, QEMU, sizes={0: 0xA0000}, virtual=0),
    "elf by page tables": builders.elf(PC, QEMU, virtual=0xFFFF888000000000),
    "elf of VirtualBox": builders.elf(MEMORY, builders.virtualbox_notes(VCPUS)),
    "elf of a kernel": builders.elf(MEMORY, KERNEL, many=True),
    "elf of 32 bits": builders.elf(MEMORY, builders.prstatus_32(VCPUS[0]), bits=32, machine=3, many=True),
    "windows": builders.windows(MEMORY, context=builders.windows_context(VCPUS[0])),
    "windows with a bitmap": builders.windows(MEMORY, kind=5, context=builders.windows_context(VCPUS[0])),
    "kdump": builders.kdump(MEMORY, KERNEL),
    "kdump of QEMU 10": builders.flattened(builders.kdump(MEMORY, QEMU, machine=b"Unknown", exists=[(0, 1 << 20)])),
    "kdump of 32 bits": builders.kdump(MEMORY, QEMU, bits=32, version=5, exists=[(0, 2 << 20)]),
    "elf, flattened": builders.flattened(builders.elf(PC, QEMU), 300),
}
WORDS = (0, 1, 2, 7, 0xFF, 0x100, 0x1000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 32, 1 << 51, 1 << 63, ~0)


def changed(name: str, number: int) -> tuple[bytes, int]:
    """File ``number`` made of the one of that name: its content, and the size that it is then given."""
    source, content = random.Random(f"{name} {number}"), bytearray(FILES[name])
    told = [at for at in range(0, len(content) - 8, 4) if any(content[at : at + 8])] or [0]
    for _ in range(source.choice([1, 1, 1, 2, 3, 8])):
        place = source.choice([source.randrange(_HEADERS), source.choice(told), source.randrange(len(content))])
        size = source.choice([1, 2, 4, 8])
        word = source.choice(WORDS) if source.random() < 0.7 else source.getrandbits(64)
        if source.random() < 0.3:
            word = int.from_bytes(content[place : place + size], "little") + source.choice([-1, 1, 4, -4, PAGE])
        content[place : place + size] = (word & (1 << 8 * size) - 1).to_bytes(size, source.choice(["little", "big"]))
    if source.random() < 0.1:
        begin, end = sorted(source.randrange(len(content)) for _ in range(2))
        content[begin:begin] = content[begin:end][: 64 << 10]
    if source.random() < 0.1:
        del content[source.randrange(len(content)) :]
    longer = source.choice([0, 0, 0, 0, 0, 0, 0, 1, PAGE, 1 << 30, 1 << 42])
    return bytes(content), len(content) + longer


def write(path: Path, content: bytes, size: int) -> None:
    """A file of that content; beyond it is a hole."""
    path.write_bytes(content or b"x")
    os.truncate(path, size or 1)


def use(stubs: Any, lib: Any, path: Path) -> Iterator[tuple[int, str]]:
    """Open the file and ask for everything: the code and the text of each call."""
    context = lib.microvmi_open(f"vmi://dump/?path={path}".encode(), None)
    yield _result(lib)
    if not context:
        return
    highest, count = ctypes.c_uint64(), ctypes.c_uint16()
    lib.microvmi_get_max_physical_addr(context, ctypes.byref(highest))
    yield _result(lib)
    lib.microvmi_get_vcpu_count(context, ctypes.byref(count))
    yield _result(lib)
    registers, ranges = stubs.Registers(), (stubs.microvmi_memory_range * 64)()
    for vcpu in (0, 1, count.value - 1, count.value):
        lib.microvmi_read_registers(context, vcpu & 0xFFFF, ctypes.byref(registers))
        yield _result(lib)
    found = ctypes.c_size_t()
    lib.microvmi_get_memory_map(context, ranges, 64, ctypes.byref(found))
    yield _result(lib)
    starts = [item.start for item in ranges[: min(found.value, 64)]]
    buffer = (ctypes.c_uint8 * (3 * PAGE))()
    for address in {0, 0xFF8, 0x100000, highest.value - 8, *starts}:
        for size in (8, len(buffer)):
            lib.microvmi_read_physical_padded(context, address & (1 << 64) - 1, buffer, size, None)
            yield _result(lib)
    lib.microvmi_destroy(context)


def _result(lib: Any) -> tuple[int, str]:
    text: bytes = lib.microvmi_last_error()
    return lib.microvmi_last_error_code(), text.decode()


@pytest.mark.parametrize("name", FILES)
def test_changed_dumps_work_or_are_errors_of_one_line(tmp_path: Path, stubs: Any, lib: Any, name: str) -> None:
    allowed = {
        stubs.microvmi_error[f"MICROVMI_ERROR_{text}"]
        for text in ("INVALID_ARGUMENT", "DRIVER_UNAVAILABLE", "NOT_SUPPORTED", "NOT_MAPPED", "IO")
    }
    path, opened = tmp_path / "dump", 0
    for number in range(ROUNDS):
        content, size = changed(name, number)
        write(path, content, size)
        started = time.monotonic()
        results = list(use(stubs, lib, path))
        opened += results[0][0] == 0
        for code, text in results:
            assert code == 0 or code in allowed, (name, number, text)
            assert "\n" not in text, (name, number, text)
        assert time.monotonic() - started < SECONDS, (name, number)
    assert opened > 0, "none of them opened"
