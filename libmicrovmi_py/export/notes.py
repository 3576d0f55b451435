# SPDX-License-Identifier: Apache-2.0
"""Notes of ELF cores: an NT_PRSTATUS a vCPU, which debuggers take for a thread, QEMU's own, and VMCOREINFO.

What a note has room for and is not known is 0 there: the formats have no word for it. So QEMU's note is written only of
a vCPU whose page tables are known, as it would say that there are none.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.arch.state import VcpuState
from libmicrovmi_py.arch.x86.registers import CODE_AND_DATA, GENERAL
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.model import Architecture

_NOTE = struct.Struct("<3I")
_NT_PRSTATUS, _QEMU, _VMCOREINFO = (b"CORE\0", 1), (b"QEMU\0", 0), (b"VMCOREINFO\0", 0)

_STATUS_HEAD, _STATUS_TAIL = struct.Struct("<32xI76x"), struct.Struct("<8x")
"""Around the registers of an NT_PRSTATUS: the thread's number, and whether there are floating-point registers."""

_NO_CALL = (1 << 64) - 1
_SELECTORS = {name: f"{name}_selector" for name in CODE_AND_DATA}
_STATUS_X86 = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
    *("orig_rax", "rip", "cs", "rflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
)
_STATUS_AARCH64 = (*(f"x{number}" for number in range(31)), "sp", "pc", "pstate")

_SEGMENTS = (*CODE_AND_DATA, "ldt", "tr")
_QEMU_HEAD = struct.Struct("<2I18Q")
_QEMU_SEGMENT = struct.Struct("<3I4xQ")
_QEMU_CONTROL = struct.Struct("<6Q")
_QEMU_SIZE = _QEMU_HEAD.size + 10 * _QEMU_SEGMENT.size + _QEMU_CONTROL.size


def states_of(machine: Microvmi) -> Sequence[VcpuState]:
    """The registers of all vCPUs; none where they are not known."""
    if Ability.READ_REGISTERS not in machine.abilities.can:
        return ()
    try:
        return machine.read_states()
    except NotSupportedError:  # a snapshot of a machine that does not tell them
        return ()


def notes(states: Sequence[VcpuState], vmcoreinfo: bytes | None) -> bytes:
    """All notes. Threads are numbered from 1 on; a vCPU of which nothing is known has none."""
    known = [(number, state) for number, state in enumerate(states, 1) if state]
    found = [_note(_NT_PRSTATUS, _status(number, state)) for number, state in known]
    found += [_note(_QEMU, _of_qemu(state)) for _, state in known if "cr3" in state]
    found += [_note(_VMCOREINFO, vmcoreinfo)] if vmcoreinfo else []
    return b"".join(found)


def _note(key: tuple[bytes, int], content: bytes) -> bytes:
    name, kind = key
    return _NOTE.pack(len(name), len(content), kind) + _padded(name) + _padded(content)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 4)


def _status(number: int, state: VcpuState) -> bytes:
    aarch64 = state.architecture is Architecture.AARCH64
    values = _pointed(state) if aarch64 else {name: _of_status(state, name) for name in _STATUS_X86}
    names = _STATUS_AARCH64 if aarch64 else _STATUS_X86
    registers = struct.pack(f"<{len(names)}Q", *(values.get(name, 0) for name in names))
    return _STATUS_HEAD.pack(number) + registers + _STATUS_TAIL.pack()


def _of_status(state: Mapping[str, int], name: str) -> int:
    return _NO_CALL if name == "orig_rax" else state.get(_SELECTORS.get(name, name), 0)


def _pointed(state: Mapping[str, int]) -> dict[str, int]:
    """With the stack pointer that the processor's state names: each level may use that of programs."""
    mode = state.get("pstate", 0)
    level = mode >> 2 & 3 if mode & 1 else 0
    return {**state, "sp": state.get(f"sp_el{level}", 0)}


def _of_qemu(state: Mapping[str, int]) -> bytes:
    """The structure QEMUCPUState, version 1, of x86."""
    content = _QEMU_HEAD.pack(1, _QEMU_SIZE, *(state.get(name, 0) for name in GENERAL))
    for name in (*_SEGMENTS, "gdt", "idt"):
        rights = state.get(f"{name}_attributes", 0)
        parts = (state.get(f"{name}_{part}", 0) for part in ("selector", "limit"))
        content += _QEMU_SEGMENT.pack(
            *parts, (rights & 0xFF) << 8 | (rights & 0xF00) << 12, state.get(f"{name}_base", 0)
        )
    control = (state.get(name, 0) for name in ("cr0", "cr1", "cr2", "cr3", "cr4", "kernel_gs_base"))
    return content + _QEMU_CONTROL.pack(*control)
