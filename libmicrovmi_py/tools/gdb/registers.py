# SPDX-License-Identifier: Apache-2.0
"""Registers as gdb names, orders and encodes them, for each architecture, and the description that it reads of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from libmicrovmi_py.arch.aarch64 import registers as aarch64
from libmicrovmi_py.arch.x86 import registers as x86
from libmicrovmi_py.declare import dataclass
from libmicrovmi_py.model import Architecture


@dataclass(frozen=True, slots=True)
class Register:
    """One that gdb knows. ``source`` is its name in a vCPU's state, "" for one that a hypervisor does not tell."""

    name: str
    bits: int
    type: str
    source: str

    @property
    def size(self) -> int:
        """Bytes in a packet."""
        return self.bits // 8


@dataclass(frozen=True, slots=True)
class Feature:
    """Registers that belong together, by the name that gdb knows them by; ``types`` is XML that they need."""

    name: str
    registers: Sequence[Register]
    group: str = ""
    types: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """All registers of a vCPU. ``architecture`` is gdb's word, ``pc`` the name in a state of where a vCPU is."""

    architecture: str
    features: Sequence[Feature]
    pc: str

    @property
    def registers(self) -> list[Register]:
        """In the order of their numbers."""
        return [register for feature in self.features for register in feature.registers]

    def xml(self) -> bytes:
        """The description of the target."""
        lines = [
            '<?xml version="1.0"?>',
            '<!DOCTYPE target SYSTEM "gdb-target.dtd">',
            f'<target version="1.0"><architecture>{self.architecture}</architecture>',
            *self._features(),
            "</target>",
        ]
        return "\n".join(lines).encode()

    def _features(self) -> Iterator[str]:
        number = 0
        for feature in self.features:
            yield f'<feature name="{feature.name}">{feature.types}'
            group = f' group="{feature.group}"' if feature.group else ""
            for register in feature.registers:
                what = f'name="{register.name}" bitsize="{register.bits}" type="{register.type}" regnum="{number}"'
                yield f"<reg {what}{group}/>"
                number += 1
            yield "</feature>"


def encoded(register: Register, state: Mapping[str, int]) -> bytes:
    """A register's value in a packet; what is not known is ``x``."""
    value = state.get(register.source) if register.source else None
    if value is None:
        return b"xx" * register.size
    return (value & ((1 << register.bits) - 1)).to_bytes(register.size, "little").hex().encode()


def decoded(register: Register, text: bytes) -> int:
    """The value that a packet has for a register. Raises ``ValueError``."""
    if len(text) != 2 * register.size:
        raise ValueError(f"{register.name} has {register.size} bytes")
    return int.from_bytes(bytes.fromhex(text.decode("ascii")), "little")


def layout_of(architecture: Architecture, state: Mapping[str, int]) -> Layout:
    """The layout for a machine whose first vCPU has that state: a 32-bit guest of x86 is one of its own for gdb."""
    if architecture is Architecture.AARCH64:
        return _AARCH64
    return _I386 if "efer" in state and not state["efer"] & x86.EFER_LMA else _X86_64


# ------------------------------------------------------------------------------------------------------------- x86

_EFLAGS = """<flags id="eflags" size="4"><field name="CF" start="0" end="0"/><field name="" start="1" end="1"/>\
<field name="PF" start="2" end="2"/><field name="AF" start="4" end="4"/><field name="ZF" start="6" end="6"/>\
<field name="SF" start="7" end="7"/><field name="TF" start="8" end="8"/><field name="IF" start="9" end="9"/>\
<field name="DF" start="10" end="10"/><field name="OF" start="11" end="11"/><field name="NT" start="14" end="14"/>\
<field name="RF" start="16" end="16"/><field name="VM" start="17" end="17"/><field name="AC" start="18" end="18"/>\
<field name="VIF" start="19" end="19"/><field name="VIP" start="20" end="20"/><field name="ID" start="21" end="21"/>\
</flags>"""

_ORDER_64 = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *x86.NUMBERED)
_ORDER_32 = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")
_SEGMENTS = ("cs", "ss", "ds", "es", "fs", "gs")
_FLOATING = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")


def _flags_and_segments() -> list[Register]:
    """What follows the instruction pointer; gdb wants the registers of the FPU, which nobody tells, to be there."""
    return [
        Register("eflags", 32, "eflags", "rflags"),
        *(Register(name, 32, "int32", f"{name}_selector") for name in _SEGMENTS),
        *(Register(f"st{number}", 80, "i387_ext", "") for number in range(8)),
        *(Register(name, 32, "int", "") for name in _FLOATING),
    ]


def _core_64() -> Feature:
    pointers = ("rbp", "rsp")
    general = [Register(name, 64, "data_ptr" if name in pointers else "int64", name) for name in _ORDER_64]
    registers = [*general, Register("rip", 64, "code_ptr", "rip"), *_flags_and_segments()]
    return Feature("org.gnu.gdb.i386.core", registers, types=_EFLAGS)


def _core_32() -> Feature:
    pointers = ("rbp", "rsp")
    general = [Register(f"e{name[1:]}", 32, "data_ptr" if name in pointers else "int32", name) for name in _ORDER_32]
    registers = [*general, Register("eip", 32, "code_ptr", "rip"), *_flags_and_segments()]
    return Feature("org.gnu.gdb.i386.core", registers, types=_EFLAGS)


def _system_x86(shown: frozenset[str]) -> Feature:
    """Every other register of a state."""
    widths = {4: 8, 12: 16}
    registers = []
    for name in x86.STATE:
        if name not in shown:
            bits = x86.WIDTHS.get(name, 64)
            bits = widths.get(bits, bits)
            registers.append(Register(name, bits, f"uint{bits}", name))
    return Feature("org.libmicrovmi.x86.system", registers, "system")


_BASES = Feature("org.gnu.gdb.i386.segments", [Register(name, 64, "int", name) for name in ("fs_base", "gs_base")])
_SHOWN = frozenset({*x86.GENERAL, *(f"{name}_selector" for name in _SEGMENTS)})

_X86_64 = Layout("i386:x86-64", [_core_64(), _BASES, _system_x86(_SHOWN | {"fs_base", "gs_base"})], "rip")
_I386 = Layout("i386", [_core_32(), _system_x86(_SHOWN)], "rip")


# --------------------------------------------------------------------------------------------------------- AArch64

_CPSR = """<flags id="cpsr_flags" size="4"><field name="SP" start="0" end="0"/><field name="EL" start="2" end="3"/>\
<field name="nRW" start="4" end="4"/><field name="F" start="6" end="6"/><field name="I" start="7" end="7"/>\
<field name="A" start="8" end="8"/><field name="D" start="9" end="9"/><field name="IL" start="20" end="20"/>\
<field name="SS" start="21" end="21"/><field name="V" start="28" end="28"/><field name="C" start="29" end="29"/>\
<field name="Z" start="30" end="30"/><field name="N" start="31" end="31"/></flags>"""

_CORE_ARM = Feature(
    "org.gnu.gdb.aarch64.core",
    [
        *(Register(f"x{number}", 64, "int64", f"x{number}") for number in range(31)),
        Register("sp", 64, "data_ptr", "sp"),
        Register("pc", 64, "code_ptr", "pc"),
        Register("cpsr", 32, "cpsr_flags", "pstate"),
    ],
    types=_CPSR,
)
_SYSTEM_ARM = Feature(
    "org.libmicrovmi.aarch64.system",
    [
        Register(name, 64, "uint64", name)
        for name in aarch64.STATE
        if name not in ("pc", "pstate") and not name[1:].isdigit()
    ],
    "system",
)
_AARCH64 = Layout("aarch64", [_CORE_ARM, _SYSTEM_ARM], "pc")

_EL = 0b1100
_SP_OWN = 1


def stack_register(state: Mapping[str, int]) -> str:
    """Which of the stack pointers of an AArch64 vCPU is the one that it uses, by PSTATE."""
    level = state.get("pstate", 0)
    return f"sp_el{(level & _EL) >> 2}" if level & _SP_OWN and level & _EL else "sp_el0"


def shown(architecture: Architecture, state: Mapping[str, int]) -> dict[str, int]:
    """A state as gdb has it: of AArch64 with the stack pointer in use as ``sp``."""
    values = dict(state)
    if architecture is Architecture.AARCH64 and (pointer := stack_register(state)) in values:
        values["sp"] = values[pointer]
    return values
