# SPDX-License-Identifier: Apache-2.0
"""The stops that are told and not answered, and what their answers do: once for all mechanisms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from libmicrovmi_py.drivers.qemu.events.mechanism import Mechanism
from libmicrovmi_py.drivers.qemu.events.run import Run
from libmicrovmi_py.drivers.qemu.events.stopped import Stopped
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.events import ReplyAction, Stop


class Answers:
    """True while a stop is open."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._open: list[tuple[Stop, Mechanism]] = []
        self._over: dict[int, int] = {}  # vCPUs that execute the instruction that they stand at: where

    def __bool__(self) -> bool:
        return bool(self._open)

    def hear(self, stopped: Stopped, mechanisms: Iterable[Mechanism]) -> list[Stop]:
        """What is to be told of a stop: what has happened before what is about to happen."""
        told: list[tuple[Stop, Mechanism]] = []
        for mechanism in mechanisms:
            told += ((stop, mechanism) for stop in mechanism.heard(stopped))
        told.sort(key=lambda pair: pair[0].token is not None)
        self._over.update(stopped.arrivals())
        self._open += [pair for pair in told if pair[0].waits]
        return [stop for stop, _ in told]

    def answer(self, stop: Stop, action: ReplyAction, registers: Mapping[str, int] | None) -> None:
        """Answer a stop that :meth:`hear` returned; one that is not open any more needs nothing."""
        pair = next((pair for pair in self._open if pair[0] is stop), None)
        if pair is None:
            return
        values = {**_denied(stop, action), **pair[1].answer(stop, action)}
        if registers is not None:
            before = self._run.registers(stop.vcpu)
            values.update((name, value) for name, value in registers.items() if value != before.get(name))
        if values:
            self._run.write(stop.vcpu, values)
        if "rip" in values or action is ReplyAction.RETRY:
            self._over.pop(stop.vcpu, None)
        self._open.remove(pair)

    def lead_over(self) -> None:
        """Have the vCPUs whose answer was that execute what they stand at; those that are stepped do anyway."""
        over, self._over = self._over, {}
        for vcpu, address in over.items():
            if address in self._run.places.instructions and vcpu not in self._run.steps:
                self._run.lead_over(vcpu)


def _denied(stop: Stop, action: ReplyAction) -> dict[str, int]:
    """The registers of a vCPU that goes on behind the instruction."""
    if action is not ReplyAction.DENY:
        return {}
    if not isinstance(stop.token, int) or not stop.instruction_length:
        raise NotSupportedError(f"this event of {stop.kind.name} is told when it has happened: it cannot be denied")
    return {"rip": (stop.token + stop.instruction_length) & (1 << 64) - 1}
