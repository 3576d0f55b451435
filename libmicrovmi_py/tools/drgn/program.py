# SPDX-License-Identifier: Apache-2.0
"""A program of drgn over a machine: its memory, its kernel, and what is known of that kernel's types."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from enum import Enum

import drgn

from libmicrovmi_py.errors import MicrovmiError, NotSupportedError, told
from libmicrovmi_py.linux.kernel import Kernel
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.model import MemoryKind
from libmicrovmi_py.tools.drgn.finders import add_finders

_PLATFORMS = {"x86_64": drgn.Architecture.X86_64, "aarch64": drgn.Architecture.AARCH64}
_READABLE = (MemoryKind.RAM, MemoryKind.ROM)
_UPPER_HALF = 1 << 63


class Known(Enum):
    """Where what is known of the kernel's types and variables comes from."""

    DEBUG_INFO = "debug information"
    BTF = "the kernel's own types (BTF)"


def program_of(
    machine: Microvmi, kernel: Kernel, symbols: Sequence[str] = (), *, debuginfod: bool = False, live: bool = True
) -> tuple[drgn.Program, Known]:
    """The program, and what it knows the kernel by.

    ``symbols``: files with debug information to be tried first; ``debuginfod``: whether servers may be asked for it.
    Raises ``NotSupportedError`` for a kernel without a VMCOREINFO, which drgn needs, or without any types.
    """
    if kernel.vmcoreinfo is None:
        raise NotSupportedError(f"drgn needs a VMCOREINFO, and the kernel {kernel.release} has none (CONFIG_KEXEC)")
    prog = drgn.Program(drgn.Platform(_PLATFORMS[kernel.architecture]))
    for item in machine.memory_map():
        if item.kind in _READABLE:
            prog.add_memory_segment(item.start, item.size, _reader(machine.physical.read), physical=True)
    prog.set_linux_kernel_custom(kernel.vmcoreinfo, live)
    prog.add_memory_segment(_UPPER_HALF, _UPPER_HALF, _reader(kernel.space.read_virtual))
    if has_debug_info(prog, symbols, debuginfod):
        return prog, Known.DEBUG_INFO
    if symbols:
        raise NotSupportedError(
            f"{', '.join(symbols)}: no debug information of the kernel {kernel.release} (build id {kernel.build_id})"
        )
    add_finders(prog, kernel)
    return prog, Known.BTF


def has_debug_info(prog: drgn.Program, symbols: Sequence[str], debuginfod: bool) -> bool:
    """Load the debug information of the kernel, and of those of its modules of which there is some."""
    finders = [name for name in prog.enabled_debug_info_finders() if debuginfod or name != "debuginfod"]
    prog.set_enabled_debug_info_finders(finders)
    logging.getLogger("drgn").setLevel(logging.ERROR)  # that there is none is told by us, in a line
    try:
        prog.load_debug_info(list(symbols), main=True)
    except drgn.MissingDebugInfoError:
        return False
    with contextlib.suppress(drgn.MissingDebugInfoError):
        prog.load_debug_info(list(symbols), default=True)
    return True


def _reader(read: Callable[[int, int], bytes]) -> Callable[[int, int, int, bool], bytes]:
    """A function that drgn reads by; it wants errors of its own."""

    def segment(address: int, count: int, offset: int, physical: bool) -> bytes:
        try:
            return read(address, count)
        except MicrovmiError as err:
            raise drgn.FaultError(told(err), address) from None

    return segment
