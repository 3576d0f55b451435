# SPDX-License-Identifier: Apache-2.0
"""A guest of QEMU without a kernel, in long mode, that does one thing when a byte in its memory says so. Up at once.

Its RAM is a file that the tests have mapped: its tables and its code are there before it starts.
"""

from __future__ import annotations

import mmap
import re
import shutil
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

from live.guest import QEMU
from live.tiny import GO, Tiny, tiny, wait_for
from needs import missing

MIB = 16

HIGH = 0xFFFFFFFF_80000000
"""Where the first 2 MiB are mapped for the kernel that it plays; they are also at 0, where it begins."""

ROOTS = (0x20000, 0x22000)
"""Two address spaces, which differ in nothing else."""

_POINTERS, _PAGES, _IDT, _GDT, _DESCRIPTORS = 0x24000, 0x25000, 0x12000, 0x15000, 0x600
_CODE, _LOOP, _COMMANDS, _SLOT, _STACK = 0x10000, 0x10080, 0x10400, 64, 0x1A000
_ORDER, _RESULT, _PER_CPU = 0x13000, 0x13010, 0x14000
VARIABLE = 0x14100
"""Guest-physical address of 8 bytes that two commands access, and nobody else."""


class Do(IntEnum):
    """What can be ordered."""

    SWITCH = 1
    """Load the other root into CR3, and note that in memory of the vCPU, as kernels do."""
    FLUSH = 2
    """Load CR3 with what it holds."""
    CR0 = 3
    """Turn TS."""
    CR4 = 4
    """Turn TSD."""
    MSR = 5
    """Count in SYSENTER_ESP."""
    BREAKPOINT = 6
    """Execute a breakpoint instruction."""
    WRITE = 7
    """Write the variable."""
    READ = 8
    """Read it."""
    CALL = 9
    """Call what follows this command."""


_CODE_OF = {  # each ends with what RAX is to tell
    Do.SWITCH: "0f20d8 483500200000 0f22d8 654889042500000000 0f20d8 c3",  # xor; mov cr3, rax; mov gs:0, rax
    Do.FLUSH: "0f20d8 0f22d8 c3",
    Do.CR0: "0f20c0 4883f008 0f22c0 0f20c0 c3",  # mov rax, cr0; xor rax, 8; mov cr0, rax; mov rax, cr0; ret
    Do.CR4: "0f20e0 4883f004 0f22e0 0f20e0 c3",
    Do.MSR: "b975010000 0f32 ffc0 0f30 0f32 c3",  # mov ecx, 0x175; rdmsr; inc eax; wrmsr; rdmsr; ret
    Do.BREAKPOINT: "cc c3",
    Do.WRITE: "4889042500410180 c3",  # mov [VARIABLE], rax
    Do.READ: "488b042500410180 c3",
    Do.CALL: "e8 3b000000 c3",  # to the slot behind
}
_CALLED = "90 c3"
_ENTRY = (
    "b810000000 8ed8 8ec0 8ed0 48c7c400a00180 0f011c2500210180"  # segments; mov rsp, STACK; lidt
    "b9010100c0 b800400180 baffffffff 0f30"  # the base of GS: PER_CPU
    "48c7c080000180 ffe0"  # on in the upper half: jmp LOOP
)
_WAIT = (
    "f390 0fb6042500300180 85c0 74f2"  # pause; movzx eax, byte [ORDER]; test eax, eax; je
    "c1e006 4805c0030180 ffd0"  # call COMMANDS + SLOT * (eax - 1)
    "4889042510300180 c604250030018000 ebd5"  # mov [RESULT], rax; mov byte [ORDER], 0; jmp
)
_HANDLER, _IRETQ = 0x10300, "48cf"

CALLED = HIGH + _COMMANDS + _SLOT * Do.CALL
BREAKPOINT = HIGH + _COMMANDS + _SLOT * (Do.BREAKPOINT - 1)
"""Guest-virtual addresses of instructions: of what is called, and of the breakpoint instruction."""

ORDER = HIGH + _ORDER
"""That of the byte that it looks at all the time."""

EFER, LONG_MODE, PAE, PROTECTED_AND_PAGED = 0xC0000080, 0x100, 0x20, 0x80000001


def _load(register: bytes, value: int) -> bytes:
    """16-bit code: mov eax, VALUE; mov CRn, eax."""
    return b"\x66\xb8" + value.to_bytes(4, "little") + b"\x0f\x22" + register


def _start() -> bytes:
    """From real mode to long mode."""
    tables = b"\xfa\x0f\x01\x16" + struct.pack("<H", _DESCRIPTORS) + _load(b"\xe0", PAE) + _load(b"\xd8", ROOTS[0])
    efer = b"\x66\xb9" + struct.pack("<I", EFER) + b"\x66\x31\xd2\x66\xb8" + struct.pack("<I", LONG_MODE) + b"\x0f\x30"
    return tables + efer + _load(b"\xc0", PROTECTED_AND_PAGED) + b"\x66\xea" + struct.pack("<IH", _CODE, 8)


def _contents() -> dict[int, bytes]:
    """What is in memory before it starts, by guest-physical address."""
    top = struct.pack("<Q", _POINTERS | 3).ljust(511 * 8, b"\0") + struct.pack("<Q", _POINTERS | 3)
    code = {_CODE: _ENTRY, _LOOP: _WAIT, _HANDLER: _IRETQ, CALLED - HIGH: _CALLED}
    code |= {_COMMANDS + _SLOT * (what - 1): text for what, text in _CODE_OF.items()}
    handler = HIGH + _HANDLER
    gate = struct.pack("<HHHHI", handler & 0xFFFF, 8, 0xEE00, handler >> 16 & 0xFFFF, handler >> 32)
    return {
        **dict.fromkeys(ROOTS, top),
        _POINTERS: struct.pack("<Q", _PAGES | 3).ljust(510 * 8, b"\0") + struct.pack("<Q", _PAGES | 3),
        _PAGES: struct.pack("<Q", 0x83),
        _GDT: struct.pack("<3Q", 0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF),
        _DESCRIPTORS: struct.pack("<HI", 23, _GDT),
        _IDT + 3 * 16: gate,
        _IDT + 0x100: struct.pack("<HQ", 0xFF, HIGH + _IDT),
        **{address: bytes.fromhex(text) for address, text in code.items()},
    }


class Eventful:
    """A running one: ``qemu`` is the process with its monitor."""

    def __init__(self, qemu: Tiny, memory: mmap.mmap) -> None:
        self.qemu = qemu
        self._memory = memory

    @property
    def idle(self) -> bool:
        """Whether the last order was carried out."""
        return not self._memory[_ORDER]

    def do(self, what: Do) -> None:
        """Order something, as soon as what was ordered before is done."""
        self.wait()
        self._memory[_ORDER] = what

    def wait(self) -> None:
        """Until the last order was carried out."""
        wait_for(lambda: self.idle, "the end of an order")

    @property
    def root(self) -> int:
        """CR3, by QEMU's word."""
        found = re.search("CR3=([0-9a-f]+)", self.qemu.monitor.human("info registers"))
        assert found is not None
        return int(found[1], 16)

    @property
    def result(self) -> int:
        """What the last order left in RAX: the register that it wrote, the variable that it read."""
        return int.from_bytes(self._memory[_RESULT : _RESULT + 8], "little")


@contextmanager
def eventful(folder: Path, options: Sequence[str] = ()) -> Iterator[Eventful]:
    """Start one, and wait until it takes orders."""
    if shutil.which(QEMU) is None:
        missing(f"no {QEMU}: apt install qemu-system-x86")
    file = folder / "eventful.ram"
    with file.open("wb+") as ram:
        ram.truncate(MIB << 20)
        memory = mmap.mmap(ram.fileno(), MIB << 20)
    for address, content in _contents().items():
        memory[address : address + len(content)] = content
    backend = f"memory-backend-file,id=ram,mem-path={file},share=on,size={MIB}M"
    shared = ("-object", backend, "-machine", "memory-backend=ram", "-smp", "2", "-no-reboot", *options)
    try:
        with tiny(folder, _start(), shared, debugger=False) as qemu:
            guest = Eventful(qemu, memory)
            memory[GO] = 1
            guest.do(Do.FLUSH)
            guest.wait()
            yield guest
    finally:
        memory.close()
