# SPDX-License-Identifier: Apache-2.0
"""The registers of a vCPU that stands, by the stub: all in one packet, of which what is asked for is converted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from libmicrovmi_py.drivers.qemu.events.link import Link, raw
from libmicrovmi_py.drivers.qemu.stub import StubRegister, registers
from libmicrovmi_py.drivers.qemu.writes import WRITABLE, in_order, place_of
from libmicrovmi_py.errors import IoError, NotSupportedError
from libmicrovmi_py.model import Architecture
from libmicrovmi_py.transport.shape import shown

Slices = Mapping[str, tuple[int, int]]
"""By the names of registers: the first byte of each in what ``g`` tells, and one past its last."""


class Told(Mapping[str, int]):
    """The registers of one vCPU at one moment."""

    __slots__ = ("_data", "_slices")

    def __init__(self, digits: str, slices: Slices) -> None:
        self._data = raw(digits)
        self._slices = slices

    def __getitem__(self, name: str) -> int:
        start, end = self._slices[name]
        return int.from_bytes(self._data[start:end], "little")

    def is_same(self, other: Told) -> bool:
        """Whether nothing changed."""
        return self._data == other._data

    def __iter__(self) -> Iterator[str]:
        return iter(self._slices)

    def __len__(self) -> int:
        return len(self._slices)


class Values:
    """The registers of the vCPUs of a machine that stands; each vCPU is asked once until :meth:`forget`.

    vCPUs have the stub's numbers here.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        known = registers(link)
        found = {name: place_of(known, name, {}) for name in in_order(WRITABLE[Architecture.X86])}
        self._places = {name: place for name, place in found.items() if place}
        self._slices = _slices(known, self._places)
        self._length = 2 * sum(place.size for place in known.values())
        self._told: dict[int, Told] = {}
        self._cr3: dict[int, int] = {}
        self._chosen = 0
        if "rip" not in self._slices:
            raise NotSupportedError("events: this QEMU's debugger's stub tells no 64-bit instruction pointer")

    def forget(self, chosen: int = 0) -> None:
        """The machine ran. ``chosen`` is whose registers the stub tells now; 0: that is not known."""
        self._told.clear()
        self._cr3.clear()
        self._chosen = chosen

    def read(self, number: int) -> Told:
        """Those of a vCPU."""
        told = self._told.get(number)
        if told is None:
            packets = ("g",) if number == self._chosen else (f"Hg{number:x}", "g")
            told = self.keep(number, self._link.ask(*packets)[-1])
        return told

    def cr3(self, number: int) -> int:
        """That register alone."""
        value = self._cr3.get(number)
        return self.read(number)["cr3"] if value is None else value

    def cr3_questions(self, numbers: Iterable[int]) -> list[str]:
        """What is asked for CR3 of these vCPUs: every second answer is one."""
        place = self._places["cr3"]
        return [packet for number in numbers for packet in (f"Hg{number:x}", f"p{place.number:x}")]

    def keep_cr3(self, numbers: Sequence[int], answers: Sequence[str]) -> None:
        """The answers to those questions."""
        for number, digits in zip(numbers, answers[1::2], strict=True):
            self._cr3[number] = int.from_bytes(raw(digits), "little")
        self._chosen = numbers[-1]

    def keep(self, number: int, digits: str) -> Told:
        """Those of the vCPU that was chosen last, as the stub tells them."""
        if len(digits) < self._length:
            raise IoError(f"the debugger's stub tells no registers: {shown(digits[:80])}")
        self._chosen = number
        told = self._told[number] = Told(digits, self._slices)
        return told

    def write(self, number: int, values: Mapping[str, int]) -> None:
        """Write what is different. Raises ``NotSupportedError`` for a value that is too large, and writes nothing."""
        before, packets = self.read(number), []
        for name, place in self._places.items():
            if name in values and values[name] != before[name]:
                packets.append(f"P{place.number:x}={_digits(name, values[name], place.size)}")
        if packets:
            del self._told[number]
            self._cr3.pop(number, None)
            self._chosen = number
            self._link.order(f"Hg{number:x}", *packets)


def _digits(name: str, value: int, size: int) -> str:
    try:
        return value.to_bytes(size, "little").hex()
    except OverflowError:
        raise NotSupportedError(f"{name}: the debugger's stub takes {8 * size} bits") from None


def _slices(known: Mapping[str, StubRegister], wanted: Mapping[str, StubRegister]) -> Slices:
    """Where registers lie in what ``g`` tells: all of the first description, in the order of their numbers."""
    names = {place: name for name, place in wanted.items()}
    found, at = {}, 0
    for place in sorted(known.values()):
        if place in names:
            found[names[place]] = at, at + place.size
        at += place.size
    return found
