# SPDX-License-Identifier: Apache-2.0
"""Writing registers by QEMU's debugger's stub: what it takes, in which order, and whether it was done."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping

from libmicrovmi_py.arch.aarch64.registers import stack_of
from libmicrovmi_py.arch.x86.registers import CODE_AND_DATA, CONTROL, GENERAL
from libmicrovmi_py.drivers.control import Phase, RunState
from libmicrovmi_py.drivers.qemu.stub import StubRegister, check_free, opened, registers
from libmicrovmi_py.drivers.qemu.vcpus import Vcpus, printed_of
from libmicrovmi_py.errors import DriverUnavailableError, IoError, MicrovmiError, NotSupportedError
from libmicrovmi_py.model import Architecture, check_vcpu
from libmicrovmi_py.transport.qmp import QmpClient
from libmicrovmi_py.transport.rsp import RspClient

_LOADED = {"fs_selector": "fs_base", "gs_selector": "gs_base"}
"""The bases that can be written, by the selectors that change them."""

_SEGMENTS = (*(f"{name}_selector" for name in CODE_AND_DATA), *_LOADED.values())
_ALONE = ""
_ORDER = ("efer", "cr4", "cr3", "cr0", _ALONE, *_SEGMENTS)
"""The order of writing: what says how others are understood, all that stands alone, selectors, and then bases."""

_AARCH64_STACKS = ("sp_el0", "sp_el1")
_LEVEL_BITS = 0x1F
"""Of pstate: the exception level and which stack pointer is used, or a mode of AArch32."""

WRITABLE: dict[Architecture, Collection[str]] = {
    Architecture.X86: frozenset(
        (
            *(*GENERAL, *CONTROL, "cr8", "efer", "fs_base", "gs_base", "kernel_gs_base"),
            *(f"{name}_selector" for name in CODE_AND_DATA),
        )
    ),
    Architecture.AARCH64: frozenset((*(f"x{number}" for number in range(31)), "pc", "pstate", *_AARCH64_STACKS)),
}
"""By the names of a vCPU's state. A selector that is written loads the rest of its segment from the guest's tables."""

_NAMES = {
    "rflags": "eflags",
    "kernel_gs_base": "k_gs_base",
    "pstate": "cpsr",
    **{f"{name}_selector": name for name in CODE_AND_DATA},
}
"""How the stub calls those for which it has another name."""


def write(client: QmpClient, run: RunState, others: Collection[str], vcpu: int, values: Mapping[str, int]) -> None:
    """Write registers of ``WRITABLE`` to a vCPU of a machine that stands; all of them, or it is an error.

    Raises ``DriverUnavailableError`` for a machine that runs and if somebody else has the stub, ``NotSupportedError``
    with the names of those that cannot be written, now or ever. What was written before that came out is taken back.
    """
    vcpus = Vcpus.of(client)
    check_vcpu(vcpu, len(vcpus))
    if run.phase in (Phase.RUNS, Phase.PASSING) or run.no_pause:
        raise DriverUnavailableError(run.no_pause or "registers are written while the machine is paused: pause it")
    if not values:
        return check_free(client, others)
    printed = printed_of(client, vcpus, vcpu)
    with opened(client, others) as rsp:
        known = registers(rsp)
        places = {name: place_of(known, name, printed) for name in values}
        _refuse(_impossible(values, places, printed), "cannot be written at present")
        rsp.order(f"Hg{vcpus.indexes[vcpu] + 1:x}")
        _check_numbers(rsp, known, printed)
        places |= {_LOADED[name]: place_of(known, _LOADED[name], printed) for name in values if name in _LOADED}
        _write(rsp, values, {name: place for name, place in places.items() if place})


def place_of(known: Mapping[str, StubRegister], name: str, printed: Mapping[str, int]) -> StubRegister | None:
    """Where the stub has a register: by its own name, or by that of its lower half on a processor of 32 bits."""
    if name in _AARCH64_STACKS:
        return known.get("sp") if name == f"sp_el{stack_of(printed.get('pstate', 0))}" else None
    return known.get(_NAMES.get(name, name)) or known.get(f"e{name[1:]}")


def _impossible(
    values: Mapping[str, int], places: Mapping[str, StubRegister | None], printed: Mapping[str, int]
) -> list[str]:
    """Those that this vCPU does not have, or too large for it, and a change of the exception level."""
    found = [name for name, place in places.items() if not place or values[name] >> 8 * place.size]
    if (values.get("pstate", 0) ^ printed.get("pstate", 0)) & _LEVEL_BITS and "pstate" in values:
        found.append("pstate")
    return found


def _refuse(names: Iterable[str], why: str) -> None:
    if named := ", ".join(dict.fromkeys(names)):
        raise NotSupportedError(f"{named}: {why}")


def _check_numbers(rsp: RspClient, known: Mapping[str, StubRegister], printed: Mapping[str, int]) -> None:
    """Raise ``IoError`` unless the stub means by its numbers, and by the vCPU's, what the monitor does."""
    for name in ("rip", "rsp", "pc", "x0"):
        place = known.get(name)
        if place and name in printed and rsp.read_register(*place) != printed[name]:
            raise IoError(f"QEMU's debugger's stub tells another {name} than its monitor")


def _write(rsp: RspClient, values: Mapping[str, int], places: Mapping[str, StubRegister]) -> None:
    """Write what is not there yet; if a value is not taken or the stub has an error, all is put back.

    ``places`` has the bases as well that selectors in ``values`` change.
    """
    before = {name: rsp.read_register(*places[name]) for name in in_order(places)}
    try:
        unlike = _not_taken(rsp, values, places)
    except MicrovmiError:
        with contextlib.suppress(MicrovmiError):  # the connection may have broken: what was written then stays
            _not_taken(rsp, before, places)
        raise
    if unlike:
        _not_taken(rsp, before, places)
    _refuse(unlike, "the vCPU does not take that value, and is as it was")


def in_order(names: Iterable[str]) -> list[str]:
    """The order of writing."""
    return sorted(names, key=lambda name: _ORDER.index(name if name in _ORDER else _ALONE))


def _not_taken(rsp: RspClient, values: Mapping[str, int], places: Mapping[str, StubRegister]) -> list[str]:
    """Write in order, segments only if all the rest was taken: those that were not."""
    order = in_order(values)
    for names in ([name for name in order if name not in _SEGMENTS], [name for name in order if name in _SEGMENTS]):
        for name in names:
            if rsp.read_register(*places[name]) != values[name]:
                rsp.write_register(places[name].number, values[name], places[name].size)
        if unlike := [name for name in names if rsp.read_register(*places[name]) != values[name]]:
            return unlike
    return []
