# SPDX-License-Identifier: Apache-2.0
"""States of vCPUs: C structs to Python objects and back. Loaded for the first call about one."""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from functools import lru_cache

from _libmicrovmi import ffi

from libmicrovmi_py.arch.state import NAMES, VcpuState
from libmicrovmi_py.declare import Any
from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.model import Architecture

_KNOWN, _VALUES = 4, 256
"""The words of a state's mask, and its values."""

_HEAD = struct.Struct(f"=4I{8 * _KNOWN}s")
_SIZE = _HEAD.size + 8 * _VALUES


@lru_cache(16)  # of a machine all vCPUs have the same
def _mask(architecture: Architecture, known: tuple[str, ...]) -> bytes:
    """The bits of the registers of these names."""
    numbers = {name: number for number, name in enumerate(NAMES[architecture])}
    return sum(1 << numbers[name] for name in known).to_bytes(8 * _KNOWN, sys.byteorder)


def fill_all(target: Any, states: Sequence[VcpuState]) -> None:
    """Store the states of vCPUs from 0 on in structs of which each is as large as the first says."""
    if states:
        room, place = target.struct_size, ffi.cast("char *", target)
        for vcpu, state in enumerate(states):
            fill(ffi.cast("struct microvmi_vcpu_state *", place + vcpu * room), vcpu, state)


def fill(target: Any, vcpu: int, state: VcpuState) -> None:
    """Store what is known of a vCPU in a ``struct microvmi_vcpu_state``, which may be larger than ours."""
    mask, values = _mask(state.architecture, tuple(state)), state.numbered()
    content = _HEAD.pack(_SIZE, vcpu, state.architecture, 0, mask) + struct.pack(f"={len(values)}Q", *values)
    ffi.buffer(target, _SIZE)[:] = content.ljust(_SIZE, b"\0")


def values(source: Any) -> VcpuState:
    """What is known in a ``struct microvmi_vcpu_state``; an unknown architecture or number is refused."""
    try:
        names = NAMES[Architecture(source.architecture)]
    except ValueError:
        raise InvalidArgumentError(f"state: there is no architecture {source.architecture}") from None
    known = int.from_bytes(ffi.buffer(source.known), sys.byteorder)
    if known >> len(names):
        raise InvalidArgumentError(f"state: there is no register of the number {known.bit_length() - 1}")
    found = {name: source.value[number] for number, name in enumerate(names) if known >> number & 1}
    return VcpuState(Architecture(source.architecture), found)
