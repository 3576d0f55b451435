# SPDX-License-Identifier: Apache-2.0
"""Breakpoints at addresses: QEMU stops before the instruction, and the guest sees nothing of it."""

from __future__ import annotations

from collections.abc import Iterable

from libmicrovmi_py.drivers.qemu.events.mechanism import Mechanism
from libmicrovmi_py.drivers.qemu.events.placing import BREAKPOINT, HARDWARE_BREAKPOINT, Place
from libmicrovmi_py.drivers.qemu.events.stopped import Stopped
from libmicrovmi_py.events import Breakpoints, EventAbilities, EventKind, Intercept, InterceptFlag, ReplyAction, Stop


class PlacedBreakpoints(Mechanism):
    """All vCPUs stop at each: those that nobody wants to be told of are answered above."""

    ABILITIES = EventAbilities(
        {EventKind.BREAKPOINT: frozenset((ReplyAction.CONTINUE, ReplyAction.RETRY))},
        frozenset((Breakpoints.PLACED,)),
        flags={EventKind.BREAKPOINT: InterceptFlag.HARDWARE},
    )

    def serves(self, intercept: Intercept) -> bool:
        """Those with an address."""
        return intercept.kind is EventKind.BREAKPOINT and intercept.address != 0

    def arm(self, intercept: Intercept, vcpus: frozenset[int]) -> None:
        """Wherever it is."""
        place = frozenset((_place(intercept),))
        self.places = self.places | place if vcpus else self.places - place

    def heard(self, stopped: Stopped) -> Iterable[Stop]:
        """One whose instruction is about to be executed; one of each sort if there are both."""
        for vcpu, at in stopped.arrivals():
            for flags in (InterceptFlag.NONE, InterceptFlag.HARDWARE):
                intercept = Intercept(EventKind.BREAKPOINT, address=at, flags=flags)
                if _place(intercept) in self.places:
                    yield Stop(
                        EventKind.BREAKPOINT,
                        vcpu,
                        virtual_address=at,
                        placed_at=at,
                        token=at,
                        told_by=intercept,
                        instruction_pointer=at,
                    )


def _place(intercept: Intercept) -> Place:
    hardware = InterceptFlag.HARDWARE in intercept.flags
    return Place(HARDWARE_BREAKPOINT if hardware else BREAKPOINT, intercept.address)


MECHANISM = PlacedBreakpoints
