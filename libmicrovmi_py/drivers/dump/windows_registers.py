# SPDX-License-Identifier: Apache-2.0
"""The registers in the header of a Windows crash dump: a CONTEXT, as Windows has it for each kind of processor."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from libmicrovmi_py.arch.aarch64.registers import stack_of
from libmicrovmi_py.arch.x86.registers import CODE_AND_DATA, DEBUG, ENCODED
from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.model import Architecture

Parts = Mapping[int, Sequence[str]]
"""Which registers a context has, by the bits of its flags."""


class Context(NamedTuple):
    """``layout`` is of the flags, then of the registers ``names``. They are known if the flags have ``mark``."""

    architecture: Architecture
    mark: int
    layout: struct.Struct
    names: Sequence[str]
    parts: Parts


_DATA = ("ds_selector", "es_selector", "fs_selector", "gs_selector")
_AMD64 = Context(
    Architecture.X86,
    0x100000,
    struct.Struct("<48xI4x6HI6Q17Q"),
    (*(f"{name}_selector" for name in CODE_AND_DATA), "rflags", *DEBUG, *ENCODED, "rip"),
    {
        0x1: ("cs_selector", "ss_selector", "rip", "rsp", "rflags"),
        0x2: tuple(name for name in ENCODED if name != "rsp"),
        0x4: _DATA,
        0x10: DEBUG,
    },
)
_I386_INTEGER = ("rdi", "rsi", "rbx", "rdx", "rcx", "rax")
_I386_CONTROL = ("rbp", "rip", "cs_selector", "rflags", "rsp", "ss_selector")
_I386 = Context(
    Architecture.X86,
    0x10000,
    struct.Struct("<I6I112xH2xH2xH2xH2x6I2IH2x2IH2x"),
    (*DEBUG, *reversed(_DATA), *_I386_INTEGER, *_I386_CONTROL),
    {0x1: _I386_CONTROL, 0x2: _I386_INTEGER, 0x4: _DATA, 0x10: DEBUG},
)
_NUMBERED = tuple(f"x{number}" for number in range(31))
_ARM64 = Context(
    Architecture.AARCH64,
    0x400000,
    struct.Struct("<2I33Q"),
    ("pstate", *_NUMBERED, "sp", "pc"),
    {0x1: ("x29", "x30", "sp", "pc", "pstate"), 0x2: _NUMBERED[:29]},
)

CONTEXTS: Mapping[int, Context] = {0x8664: _AMD64, 0x14C: _I386, 0xAA64: _ARM64}
"""By the type of machine, as the header of an executable has it."""


def registers_of(context: Context, content: bytes, offset: int) -> dict[str, int]:
    """Those that the context at ``offset`` says it has, by their names.

    Without page tables: those are in the dump's header, and for AArch64 not as the processor's registers have them.
    """
    flags, *values = context.layout.unpack_from(content, offset)
    known = dict(zip(context.names, values, strict=True))
    parts = context.parts.items() if flags & context.mark else ()
    found = {name: known[name] for bit, names in parts if flags & bit for name in names}
    pointer = found.pop("sp", None)
    if pointer is not None and (level := stack_of(found["pstate"])) in (0, 1, 2):
        found[f"sp_el{level}"] = pointer
    return found
