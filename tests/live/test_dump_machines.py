# SPDX-License-Identifier: Apache-2.0
"""Dumps that QEMU makes of machines other than 64-bit PCs: memory as ``pmemsave`` has it, registers as it tells."""

from __future__ import annotations

import os
import re
import shutil
import struct
from pathlib import Path
from typing import NamedTuple

import pytest
from needs import missing

from libmicrovmi_py import Microvmi, NotSupportedError

from .registers_guest import AARCH64_STACK, set_aarch64_registers
from .tiny import Tiny, tiny, wait_for

MIB = 1 << 20
FORMS = ("elf", "kdump-zlib")
DONE = 0x1000
"""How far into RAM each guest puts a byte that is not 0 when its few instructions were run."""

ARM_RAM, RISCV_RAM = 1 << 30, 1 << 31

_X86 = bytes.fromhex(
    "31c0 8ed8"  # xor ax, ax; mov ds, ax
    "66b844332211 66bb88776655 66bcccbbaa99"  # mov eax, 0x11223344; mov ebx, 0x55667788; mov esp, 0x99aabbcc
    "c606001001 ebfe"  # mov byte [0x1000], 1; jmp there
)
_ARM = struct.pack("<5I", 0xE3A00101, 0xE2800A01, 0xE3A01001, 0xE5801000, 0xEAFFFFFE)
"""mov r0, #0x40000000; add r0, r0, #0x1000; mov r1, #1; str r1, [r0]; b there"""
_RISCV = struct.pack("<4I", 0x00001297, 0x00100313, 0x0062A023, 0x0000006F)
"""auipc t0, 1; li t1, 1; sw t1, 0(t0); j there"""


class Board(NamedTuple):
    """The program that has the machine, its package and arguments, its firmware, where it has RAM, and the bits of a
    register; 0 where registers of dumps are not read."""

    program: str
    package: str
    options: tuple[str, ...]
    firmware: bytes
    ram: int
    bits: int


BOARDS = {
    "i386": Board(
        "qemu-system-i386", "qemu-system-x86", (), _X86.ljust(0xFFF0, b"\xf4") + b"\xea\0\0\0\xf0".ljust(16), 0, 32
    ),
    "aarch64": Board(
        "qemu-system-aarch64",
        "qemu-system-arm",
        ("-machine", "virt", "-cpu", "cortex-a57"),
        set_aarch64_registers(),
        ARM_RAM,
        64,
    ),
    "arm": Board("qemu-system-arm", "qemu-system-arm", ("-machine", "virt", "-cpu", "cortex-a15"), _ARM, ARM_RAM, 0),
    "riscv64": Board("qemu-system-riscv64", "qemu-system-misc", ("-machine", "virt"), _RISCV, RISCV_RAM, 0),
}
ASKED = [name for name in BOARDS if name != "riscv64" or "MICROVMI_LONG" in os.environ]
"""One that takes a package which nothing else needs is for make test-long."""


@pytest.mark.parametrize("name", ASKED)
def test_memory_and_registers_in_dumps_are_those_of_the_machine(tmp_path: Path, name: str) -> None:
    board = BOARDS[name]
    if shutil.which(board.program) is None:
        missing(f"no {board.program}; to enable: apt-get install {board.package}")
    image = tmp_path / "image"
    image.write_bytes(board.firmware)
    options = (*board.options, "-bios", str(image), "-smp", "2")
    with tiny(tmp_path, options=options, debugger=False, program=board.program) as guest:
        wait_for(lambda: any(_saved(guest, board.ram + DONE, 1, tmp_path)), "the guest's byte")
        guest.monitor.execute("stop")
        memory, told = _saved(guest, board.ram, 16 * MIB, tmp_path), _told(guest)
        for form in FORMS:
            path = tmp_path / form
            guest.monitor.execute("dump-guest-memory", paging=False, protocol=f"file:{path}", format=form)
            with Microvmi(driver="dump", path=path) as machine:
                _assert_memory(machine, board.ram, memory)
                _assert_registers(machine, board.bits, told)


def _saved(guest: Tiny, start: int, size: int, folder: Path) -> bytes:
    path = folder / "saved"
    guest.monitor.execute("pmemsave", val=start, size=size, filename=str(path))
    return path.read_bytes()


def _told(guest: Tiny) -> list[dict[str, int]]:
    """What QEMU tells of each vCPU, by our names."""
    texts = re.split(r"^CPU#\d+$", guest.monitor.human("info registers -a"), flags=re.MULTILINE)[1:]
    return [{_NAMES.get(name, name.lower()): int(value, 16) for name, value in _FOUND.findall(text)} for text in texts]


_FOUND = re.compile(r"\b(E(?:[A-D]X|[SD]I|[BSI]P)|EFL|CR[0234]|X[0-3]\d|SP|PC|PSTATE) ?=([0-9a-f]{8,16})\b")
_NAMES = {
    "EFL": "rflags",
    "SP": "sp_el1",
    **{f"E{name}": f"r{name.lower()}" for name in ("AX", "BX", "CX", "DX", "SI", "DI", "BP", "SP", "IP")},
    **{f"X{number:02}": f"x{number}" for number in range(31)},
}


def _assert_memory(machine: Microvmi, start: int, memory: bytes) -> None:
    """All of RAM is there, and the same."""
    there = 0
    for item in machine.memory_map():
        if start <= item.start < start + len(memory):
            assert machine.read_physical(item.start, item.size) == memory[item.start - start :][: item.size]
            there += item.size
    assert there == len(memory)
    assert machine.max_addr == start + len(memory)


def _assert_registers(machine: Microvmi, bits: int, told: list[dict[str, int]]) -> None:
    if not bits:
        with pytest.raises(NotSupportedError, match="the dump driver cannot tell the number of vCPUs"):
            machine.vcpu_count()
        return
    states = machine.read_states()
    assert len(states) == len(told) == 2
    for state, values in zip(states, told, strict=True):
        assert len(values) > 12
        assert {name: state[name] & (1 << bits) - 1 for name in values} == values
    assert states[0]["sp_el1" if bits == 64 else "rbx"] == (AARCH64_STACK if bits == 64 else 0x55667788)
