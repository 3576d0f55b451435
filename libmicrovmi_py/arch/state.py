# SPDX-License-Identifier: Apache-2.0
"""The state of a vCPU: its registers by name, those that are known and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from libmicrovmi_py.arch.aarch64 import registers as aarch64
from libmicrovmi_py.arch.x86 import registers as x86
from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.errors import InvalidArgumentError, escaped
from libmicrovmi_py.model import Architecture

if TYPE_CHECKING:
    from libmicrovmi_py.arch import Registers

NAMES: dict[Architecture, tuple[str, ...]] = {
    Architecture.X86: x86.STATE,
    Architecture.AARCH64: aarch64.STATE,
}
"""The registers of an architecture, in the order of their numbers in the C header."""

_WIDTHS: dict[Architecture, Mapping[str, int]] = {
    Architecture.X86: x86.WIDTHS,
    Architecture.AARCH64: {},
}
"""The bits of those that have fewer than 64."""

_CLASSES: dict[Architecture, type[Registers]] = {
    Architecture.X86: x86.X86Registers,
    Architecture.AARCH64: aarch64.Aarch64Registers,
}


class VcpuState(Mapping[str, int]):
    """Values of registers by name, as ``NAMES`` has them; one that is not known is not in it.

    ``architecture`` is that of the vCPU. ``why_unknown`` is one line about why registers are missing that could be
    known, ``""`` where there is nothing to say; the ``KeyError`` for one of them has it.
    """

    __slots__ = ("_values", "architecture", "why_unknown")

    def __init__(self, architecture: Architecture, values: Mapping[str, int], why_unknown: str = "") -> None:
        self.architecture = architecture
        self.why_unknown = escaped(why_unknown)
        self._values = dict(values)

    def __getitem__(self, name: str) -> int:
        try:
            return self._values[name]
        except KeyError:
            if not self.why_unknown or name not in NAMES[self.architecture]:
                raise
            raise KeyError(f"{name} is not known: {self.why_unknown}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def numbered(self) -> list[int]:
        """The values of all registers, in the order of their numbers; 0 for those that are not known."""
        get = self._values.get
        return [get(name, 0) for name in NAMES[self.architecture]]

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value:#x}" for name, value in self._values.items())
        return f"<VcpuState {self.architecture.name}: {values}>"


def check_values(architecture: Architecture, values: Mapping[str, int]) -> None:
    """Raise ``InvalidArgumentError`` for a name that is no register's, and for a value that does not fit."""
    names, widths = NAMES[architecture], _WIDTHS[architecture]
    for name, value in values.items():
        if name not in names:
            raise InvalidArgumentError(f"{architecture.name} has no register {name}")
        width = widths.get(name, 64)
        if not 0 <= value < 1 << width:
            raise InvalidArgumentError(f"{name}: {value:#x} does not fit, it has {width} bits")


def registers_of(state: VcpuState) -> Registers:
    """The frozen registers of a state; what is not known is 0."""
    return _CLASSES[state.architecture].of_values(state)


def changes(wanted: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    """Those of ``wanted``, the values of frozen registers, that ``now`` has not; what is not known was 0 there."""
    return {name: value for name, value in wanted.items() if value != now.get(name, 0)}


def differences(registers: Registers, now: Mapping[str, int]) -> dict[str, int]:
    """What is different in frozen registers from those that ``now``, the values of a state, would make.

    Of two members that are one register, the one that is different counts.
    """
    before = type(registers).of_values(now).pairs()
    return {name: value for (name, value), old in zip(registers.pairs(), before, strict=True) if value != old[1]}


def wanted(registers: Registers, read: Callable[[], Mapping[str, int]]) -> dict[str, int]:
    """The values of all members of frozen registers, by the names that a state has.

    ``read`` tells the present ones. It is asked only where two members that are one register are not alike.
    """
    values: dict[str, int] = {}
    doubtful = [name for name, value in registers.pairs() if values.setdefault(name, value) != value]
    return {**values, **differences(registers, read())} if doubtful else values
