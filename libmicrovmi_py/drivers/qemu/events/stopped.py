# SPDX-License-Identifier: Apache-2.0
"""One stop of the machine, as the stub tells it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.errors import IoError
from libmicrovmi_py.transport.shape import shown

_TRAP = 5
_TOLD = re.compile(r"T([0-9a-f]{2})thread:(?:p[0-9a-f]+\.)?([0-9a-f]{1,8});(.*)")


OVER = "over"


class Packet(NamedTuple):
    """What a stop's packet says. ``trapped``: the machine stands for what was placed, or a step; else somebody stopped
    it. ``number`` is the stub's of the vCPU. ``reason`` is that of :class:`Stopped`."""

    trapped: bool
    number: int
    reason: str


def parsed(packet: str) -> Packet:
    """Raises ``IoError`` for what is none."""
    told = _TOLD.fullmatch(packet)
    if told is None:
        raise IoError(f"the debugger's stub tells a stop that makes no sense: {shown(packet)}")
    return Packet(int(told[1], 16) == _TRAP, int(told[2], 16), told[3].rstrip(";"))


class Stopped:
    """All vCPUs stand. ``vcpu`` is the one that QEMU tells of; others may have come to something at the same time.

    ``reason`` is how the stub names the access that it stopped at, ``watch:ffff888003a1b2c0`` for example, and ``""``
    for breakpoints and steps; ``over`` is none of QEMU's: ``vcpu`` has executed what it stood at before.
    ``stepped`` are the vCPUs that executed the one instruction that they were let go on for. ``trapped`` is as in
    :class:`Packet`; ``ours`` is whether that, or an interrupt of ours, is what it stands by.
    """

    def __init__(
        self,
        packet: Packet,
        vcpu: int,
        stepped: frozenset[int],
        registers: Callable[[int], Mapping[str, int]],
        *,
        ours: bool = False,
    ) -> None:
        self.trapped = packet.trapped
        self.ours = ours or packet.trapped
        self.vcpu = vcpu
        self.reason = packet.reason
        self.stepped = stepped
        self.registers = registers
        """All registers that the stub has, of a vCPU: asked once a stop, converted when one of them is wanted."""

    def arrivals(self) -> Iterator[tuple[int, int]]:
        """The vCPUs that stand before an instruction that may be one of a mechanism's places, and its address."""
        told = {self.vcpu} if self.trapped and not self.reason else set()
        for vcpu in sorted(self.stepped | told):
            yield vcpu, self.registers(vcpu)["rip"]
