# SPDX-License-Identifier: Apache-2.0
"""Single steps: a vCPU stops after each of its instructions, while those that are not stepped run."""

from __future__ import annotations

from collections.abc import Iterable

from libmicrovmi_py.drivers.qemu.events.mechanism import Mechanism
from libmicrovmi_py.drivers.qemu.events.stopped import Stopped
from libmicrovmi_py.events import EventAbilities, EventKind, Intercept, ReplyAction, Stop


class SingleSteps(Mechanism):
    """The core has the vCPUs take turns."""

    ABILITIES = EventAbilities({EventKind.SINGLE_STEP: frozenset((ReplyAction.CONTINUE, ReplyAction.RETRY))})

    def serves(self, intercept: Intercept) -> bool:
        """All of the kind."""
        return intercept.kind is EventKind.SINGLE_STEP

    def arm(self, intercept: Intercept, vcpus: frozenset[int]) -> None:
        """From their next instruction on."""
        self.steps = vcpus

    def heard(self, stopped: Stopped) -> Iterable[Stop]:
        """Of each vCPU that moved."""
        for vcpu in sorted(stopped.stepped & self.steps):
            at = stopped.registers(vcpu)["rip"]
            yield Stop(EventKind.SINGLE_STEP, vcpu, virtual_address=at, instruction_pointer=at)


MECHANISM = SingleSteps
