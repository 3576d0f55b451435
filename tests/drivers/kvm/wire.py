# SPDX-License-Identifier: Apache-2.0
"""KVMi on the wire: the numbers and layouts that a hypervisor's side needs."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

EVENT_REPLY, EVENT, GET_VERSION, GET_GUEST_INFO, PAUSE_VCPU = 0, 1, 2, 5, 7
CONTROL_EVENTS, CONTROL_CR, CONTROL_MSR, GET_REGISTERS, SET_REGISTERS = 9, 10, 11, 13, 14
READ_PHYSICAL, WRITE_PHYSICAL, SET_PAGE_ACCESS, CONTROL_CMD_RESPONSE, GET_MAX_GFN = 17, 18, 21, 27, 29
CONTROL_SINGLESTEP = 63

CR, MSR, BREAKPOINT, PF, PAUSE, SINGLESTEP = 1, 2, 4, 6, 10, 11
CONTINUE, RETRY = 0, 1

EPERM, ENOENT, EINVAL, EOPNOTSUPP, ENOSYS = 1, 2, 22, 95, 1000

HEADER = struct.Struct("<HHI")  # id, size of the body, sequence number
HANDSHAKE = struct.Struct("<I16sIq64s")
HANDSHAKE_ANSWER = struct.Struct("<I20s")
VCPU = struct.Struct("<H6x")
ERROR = struct.Struct("<i4x")
SWITCH_EVENT = struct.Struct("<HB5x")  # event, enable
SWITCH_NUMBER = struct.Struct("<B3xI")  # enable, CR or MSR
SWITCH = struct.Struct("<B7x")
RESPONSES = struct.Struct("<BB6x")  # enable, now
RANGE = struct.Struct("<QQ")
PAGES = struct.Struct("<HHI")  # view, count
PAGE = struct.Struct("<QB7x")  # address, access
NUMBERS = struct.Struct("<H6x")
EVENT_HEAD = struct.Struct("<HHB3x B7x")  # size, vCPU, event; mode
EVENT_ANSWER = struct.Struct("<BB6x")  # action, event
REGISTER_WRITE = struct.Struct("<IIQQ")
FAULT = struct.Struct("<QQB7x")
BREAK = struct.Struct("<QB7x")

_REGS = struct.Struct("<18Q")
_SEGMENT = struct.Struct("<QIH10B")
_TABLE = struct.Struct("<QH6x")
_CONTROLS = struct.Struct("<11Q")

GENERAL = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags"),
)
SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
MSRS = {"sysenter_cs": 0x174, "sysenter_esp": 0x175, "sysenter_eip": 0x176, "kernel_gs_base": 0xC0000102}
MSRS.update(star=0xC0000081, lstar=0xC0000082, cstar=0xC0000083, fmask=0xC0000084)
MSRS.update(tsc_aux=0xC0000103)
RIGHTS = ("type", "present", "dpl", "db", "s", "l", "g", "avl", "unusable")
"""Of a segment, in the order of ``struct kvm_segment``."""


@dataclass
class State:
    """The registers of a vCPU of the simulator: every one has another value."""

    general: dict[str, int] = field(default_factory=lambda: {name: 0x1002 + i for i, name in enumerate(GENERAL)})
    segments: dict[str, tuple[int, int, int]] = field(
        default_factory=lambda: {name: (0x100000 * i, 0xFFFF0000 + i, 8 * i + 3) for i, name in enumerate(SEGMENTS)}
    )
    rights: dict[str, tuple[int, ...]] = field(
        default_factory=lambda: {
            name: (i + 3, 1, i & 3, i & 1, 1, i >> 1 & 1, 1, i >> 2, 0) for i, name in enumerate(SEGMENTS)
        }
    )
    gdt: tuple[int, int] = (0xFFFFFE0000001000, 0x7F)
    idt: tuple[int, int] = (0xFFFFFE0000000000, 0xFFF)
    controls: dict[int, int] = field(default_factory=lambda: {0: 0x80050033, 2: 0x2222, 3: 0x3000, 4: 0x406F0})
    cr8: int = 9
    efer: int = 0xD01
    apic_base: int = 0xFEE00900
    msrs: dict[int, int] = field(default_factory=lambda: {i: 0xABC00000 + n for n, i in enumerate(MSRS.values())})

    def regs(self) -> bytes:
        """``struct kvm_regs``."""
        return _REGS.pack(*self.general.values())

    def load(self, regs: bytes) -> None:
        """Take over a ``struct kvm_regs``."""
        self.general = dict(zip(GENERAL, _REGS.unpack(regs), strict=True))

    def sregs(self) -> bytes:
        """``struct kvm_sregs``."""
        segments = b"".join(_SEGMENT.pack(*segment, *self.rights[name], 0) for name, segment in self.segments.items())
        cr = self.controls
        controls = _CONTROLS.pack(cr[0], cr[2], cr[3], cr[4], self.cr8, self.efer, self.apic_base, 0, 0, 0, 0)
        return segments + _TABLE.pack(*self.gdt) + _TABLE.pack(*self.idt) + controls

    def arch(self) -> bytes:
        """What an event tells of a vCPU behind its head."""
        return self.regs() + self.sregs() + bytes(72)
