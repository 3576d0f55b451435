# SPDX-License-Identifier: Apache-2.0
"""Changed dumps of every format, opened and used through C: whatever is in them, it works or is an error of their kind.

``MICROVMI_FUZZ`` is how many times as many files are made (``make fuzz``). Every file is made from its format and its
number alone, so that one that fails can be made again: ``changed(NAME, NUMBER)``.
"""

from __future__ import annotations

import bz2
import ctypes
import gzip
import io
import lzma
import os
import random
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drivers.dump import (
    builders,
    builders_avml,
    builders_cloudhypervisor,
    builders_ewf2,
    builders_firecracker,
    builders_mapped,
    builders_qcow2,
    builders_vmware,
    builders_windows,
    builders_xen,
    test_dump_qemu,
)
from drivers.dump.builders import PAGE, values

ROUNDS = 60 * int(os.environ.get("MICROVMI_FUZZ", "1"))
_HEADERS = 2500
"""Most files have what they say of themselves within so many bytes."""
SECONDS = 5.0
"""So long a file of some KiB, sparse ones of TiB as well, may keep a processor busy."""
FOUND = {"zip": (190,), "zip, stored": (276,)}
"""Numbers of files that were no errors of their kind once: names of no letter."""

MEMORY = {0: b"\x11" * PAGE, 0xF5000: builders.smbios([(0, 2 << 20)])[0xF5000], 0x100000: bytes(range(256)) * 32}
WINDOWS = {0x1000: b"\x11" * PAGE, 0x100000: bytes(range(256)) * 32}
HIGH = {0x100000000: b"\x22" * PAGE, 0x200000000: b"\x33" * PAGE}
PC = {**MEMORY, **builders.acpi([(0, 2 << 20), (0x200000000, PAGE)]), **HIGH}
VCPUS = [values(0), values(1)]
QEMU = b"".join(builders.prstatus(vcpu) + builders.qemu_note(vcpu) for vcpu in VCPUS)
KERNEL = b"".join(builders.prstatus(vcpu) for vcpu in VCPUS)

SAVED = test_dump_qemu.stream(test_dump_qemu.all_pages(64 * PAGE), {"pc.ram": 64 * PAGE})
MAPPED_RAM = builders_mapped.mapped(
    {"pc.ram": {0: b"\x11" * PAGE, 3: b"\x22" * PAGE}},
    {"pc.ram": 64 * PAGE},
    test_dump_qemu.REST,
    old={2: b"\x33" * PAGE},
    alignment=PAGE,
)
VMWARE = builders_vmware.state(
    {
        "Checkpoint": builders_vmware.checkpoint("VMware ESX", "4.1.0"),
        "cpu": [*builders_vmware.vcpus(VCPUS), *builders_vmware.vcpus(VCPUS, blocks=True)],
        "memory": [
            *builders_vmware.regions([(0, 0, 8 * PAGE), (1 << 32, 8 * PAGE, 8 * PAGE)]),
            builders_vmware.block("Memory", bytes(range(256)) * 256, 0, 0, padding=50),
        ],
    }
)
CLOUD_HYPERVISOR = builders_cloudhypervisor.state(
    [(0, 8 * PAGE), (1 << 32, 8 * PAGE)], [builders_cloudhypervisor.x86(vcpu) for vcpu in VCPUS]
)


def _zip(method: int) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        archive.writestr("memory", builders.lime(MEMORY))
    return made.getvalue()


def _zstd(content: bytes) -> bytes:
    """A frame of blocks as they are, with its size."""
    blocks = [content[at : at + PAGE] for at in range(0, len(content), PAGE)]
    rows = [(len(item) << 3 | (at == len(blocks) - 1)).to_bytes(3, "little") + item for at, item in enumerate(blocks)]
    return b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(content)) + b"".join(rows)


def _lz4(content: bytes) -> bytes:
    """A frame of blocks as they are that stand alone."""
    blocks = [content[at : at + 65536] for at in range(0, len(content), 65536)]
    rows = [struct.pack("<I", len(item) | 1 << 31) + item for item in blocks]
    return b"\x04\x22\x4d\x18\x60\x40\x82" + b"".join(rows) + bytes(4)


def _lzop(content: bytes) -> bytes:
    """Blocks as they are."""
    blocks = [content[at : at + 65536] for at in range(0, len(content), 65536)]
    rows = [struct.pack(">2I", len(item), len(item)) + item for item in blocks]
    head = b"\x89LZO\0\r\n\x1a\n" + struct.pack(">3H2BI3IBI", 0x1030, 0x20A0, 0x940, 1, 5, 0, 0, 0, 0, 0, 0)
    return head + b"".join(rows) + bytes(4)


def _ewf(content: bytes) -> bytes:
    """One segment of chunks of a page."""
    content += bytes(-len(content) % PAGE)
    chunks = [zlib.compress(content[at : at + PAGE]) for at in range(0, len(content), PAGE)]
    begin, places = 13 + 76 + 1052 + 76, []
    for index in range(len(chunks)):
        places.append((begin + sum(map(len, chunks[:index]))) | 1 << 31)
    table = struct.pack("<I4xQ8x", len(places), 0) + struct.pack(f"<{len(places)}I", *places) + bytes(4)
    made = b"EVF\x09\x0d\x0a\xff\0\1\1\0\0\0"
    volume = struct.pack("<4x3IQ", len(chunks), 8, 512, len(content) // 512).ljust(1052, b"\0")
    for kind, data in ((b"volume", volume), (b"sectors", b"".join(chunks)), (b"table", table), (b"done", b"")):
        size = 76 + len(data)
        head = struct.pack("<16s2Q40x", kind, len(made) + (size if data else 0), size)
        made += head + struct.pack("<I", zlib.adler32(head)) + data
    return made


FILES = {
    "lime": builders.lime(MEMORY),
    "avml": builders_avml.avml(MEMORY, piece=6 * PAGE, frame=4 * PAGE),
    "elf of QEMU": builders.elf(PC, QEMU, sizes={0: 0xA0000}, virtual=0),
    "elf by page tables": builders.elf(PC, QEMU, virtual=0xFFFF888000000000),
    "elf of VirtualBox": builders.elf(MEMORY, builders.virtualbox_notes(VCPUS)),
    "elf of a kernel": builders.elf(MEMORY, KERNEL, many=True),
    "elf of 32 bits": builders.elf(MEMORY, builders.prstatus_32(VCPUS[0]), bits=32, machine=3, many=True),
    "windows": builders.windows(MEMORY, context=builders.windows_context(VCPUS[0])),
    "windows with a bitmap": builders.windows(MEMORY, kind=5, context=builders.windows_context(VCPUS[0])),
    "windows of 32 bits": builders_windows.windows_32(MEMORY, context=builders_windows.context_32(VCPUS[0]), pae=True),
    "windows of 32 bits with a bitmap": builders_windows.windows_32(MEMORY, kind=6),
    "windows with ranges": builders_windows.with_ranges(WINDOWS, builders.windows(WINDOWS), 9),
    "windows with ranges, complete": builders_windows.with_ranges(WINDOWS, builders.windows(WINDOWS), 10),
    "windows of ARM64": builders.windows(MEMORY, machine=0xAA64, context=builders_windows.context_arm64(5)),
    "kdump": builders.kdump(MEMORY, KERNEL),
    "kdump of QEMU 10": builders.flattened(builders.kdump(MEMORY, QEMU, machine=b"Unknown", exists=[(0, 1 << 20)])),
    "kdump of 32 bits": builders.kdump(MEMORY, QEMU, bits=32, version=5, exists=[(0, 2 << 20)]),
    "a part of a kdump": builders.kdump(
        MEMORY, KERNEL, span=(0, max(start + len(MEMORY[start]) for start in MEMORY) // PAGE)
    ),
    "zlib": zlib.compress(builders.lime(MEMORY), 0),
    "elf, flattened": builders.flattened(builders.elf(PC, QEMU), 300),
    "a saved machine of QEMU": SAVED,
    "a saved machine of libvirt": test_dump_qemu.libvirt(gzip.compress(SAVED, 0)),
    "a saved machine of QEMU with mapped-ram": MAPPED_RAM,
    "snapshots in a disk": builders_qcow2.qcow2({"a": bytes(PAGE), "b": SAVED}, bits=9),
    "snapshots in a disk, with parts of clusters": builders_qcow2.qcow2({"b": SAVED}, bits=14, features=1 << 4),
    "a saved machine of VMware": VMWARE,
    "a snapshot of Cloud Hypervisor": CLOUD_HYPERVISOR.encode(),
    "a snapshot of Firecracker": builders_firecracker.state(
        1 << 20, [builders_firecracker.vcpu(vcpu) for vcpu in VCPUS]
    ),
    "a packed snapshot of Firecracker": builders_firecracker.packed_state(1 << 20, VCPUS),
    "a core of Xen": builders_xen.core(MEMORY, [builders_xen.vcpu({**VCPUS[0], "kernel_gs_base": 1})], missing=2),
    "a saved domain of Xen": builders_xen.xl(
        builders_xen.libxl(
            builders_xen.libxc(
                builders_xen.page_data(MEMORY, gone=(0x300, 0x301)),
                builders_xen.page_data({0x1000: bytes(PAGE)}, gone=(1, 0x102)),
                builders_xen.record(9, builders_xen.saved_vcpus({0: bytes(1032)}, 2)),
                builders_xen.record(0),
            )
        )
    ),
    "gzip": gzip.compress(builders.lime(MEMORY), 0),
    "gzip of members": gzip.compress(bytes(PAGE)) + gzip.compress(bytes(range(256)) * 99),
    "bzip2": bz2.compress(builders.lime(MEMORY)),
    "bzip2 of streams": bz2.compress(bytes(PAGE)) + bz2.compress(bytes(range(256)) * 99),
    "xz": lzma.compress(builders.lime(MEMORY)),
    "xz of streams": lzma.compress(bytes(PAGE)) + lzma.compress(builders.lime(MEMORY)),
    "zip": _zip(zipfile.ZIP_DEFLATED),
    "zip, stored": _zip(zipfile.ZIP_STORED),
    "zstd": _zstd(bytes(PAGE)) + _zstd(builders.lime(MEMORY)),
    "lz4": _lz4(builders.lime(MEMORY)),
    "lzop": _lzop(builders.lime(MEMORY)),
    "evidence": _ewf(builders.lime(MEMORY)),
    "evidence of version 2": builders_ewf2.ewf2(builders.elf(MEMORY, KERNEL).ljust(90 * 512), sectors=8)[0],
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
    info = stubs.microvmi_image_info(struct_size=ctypes.sizeof(stubs.microvmi_image_info))
    lib.microvmi_get_image_info(context, ctypes.byref(info))
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
    (tmp_path / "memory-ranges").write_bytes(bytes(range(256)) * 256)  # what some have beside them
    (tmp_path / "dump.mem").write_bytes(bytes(range(256)) * 4096)
    path, opened = tmp_path / "dump", 0
    for number in {*range(ROUNDS), *FOUND.get(name, ())}:
        content, size = changed(name, number)
        write(path, content, size)
        started = time.process_time()
        results = list(use(stubs, lib, path))
        opened += results[0][0] == 0
        for code, text in results:
            assert code == 0 or code in allowed, (name, number, text)
            assert "\n" not in text, (name, number, text)
        assert time.process_time() - started < SECONDS, (name, number)
    assert opened > 0, "none of them opened"
