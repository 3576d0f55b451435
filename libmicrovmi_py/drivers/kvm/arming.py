# SPDX-License-Identifier: Apache-2.0
"""What KVM was told to stop vCPUs at, and which accesses it was told to take from pages."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from functools import reduce
from operator import and_

from libmicrovmi_py.drivers.kvm.library import Domain
from libmicrovmi_py.drivers.kvm.messages import KINDS
from libmicrovmi_py.errors import MicrovmiError
from libmicrovmi_py.events import EventKind, Intercept, PageAccess
from libmicrovmi_py.model import PAGE_SHIFT

_NUMBERED = {EventKind.CR: "kvmi_control_cr", EventKind.MSR: "kvmi_control_msr"}
"""Kinds that are switched by number besides, and the function for it."""

_Switch = tuple[EventKind, int]


class Switches:
    """What is switched on, for each vCPU."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._on: dict[int, set[_Switch]] = {}

    def arm(self, intercept: Intercept, vcpus: frozenset[int]) -> None:
        """As ``SupportsEvents.arm``."""
        switch = intercept.kind, intercept.number
        on = {vcpu for vcpu, switches in self._on.items() if switch in switches}
        with ExitStack() as steps:  # each is switched off whatever becomes of the others
            for vcpu in on - vcpus:
                steps.callback(self._off, vcpu, switch)
        for vcpu in vcpus - on:
            self._all_or_none(vcpu, switch)
            self._on.setdefault(vcpu, set()).add(switch)

    def _steps(self, vcpu: int, switch: _Switch) -> list[tuple[str, tuple[int, ...]]]:
        """What has to be switched. A kind is on as long as one of its numbers is."""
        kind, number = switch
        others = any(other is kind for other, _ in self._on.get(vcpu, set()) - {switch})
        steps: list[tuple[str, tuple[int, ...]]] = [] if others else [("kvmi_control_events", (vcpu, KINDS[kind]))]
        if kind in _NUMBERED:
            steps.append((_NUMBERED[kind], (vcpu, number)))
        if kind is EventKind.SINGLE_STEP:
            steps.append(("kvmi_control_singlestep", (vcpu,)))
        return steps

    def _all_or_none(self, vcpu: int, switch: _Switch) -> None:
        done = []
        try:
            for function, arguments in self._steps(vcpu, switch):
                self._domain.control(function, *arguments, True)
                done.append((function, arguments))
        except MicrovmiError:
            for function, arguments in reversed(done):
                self._domain.control(function, *arguments, False)
            raise

    def _off(self, vcpu: int, switch: _Switch) -> None:
        with ExitStack() as steps:
            for function, arguments in self._steps(vcpu, switch):
                steps.callback(self._domain.control, function, *arguments, False)
        self._on[vcpu].discard(switch)


class Accesses:
    """What was taken from pages, and by which user of the machine: a page has what all of them leave it.

    A machine has one introspector, so there is nothing else; KVM itself is not asked.
    """

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._lock = threading.Lock()
        self._left: dict[int, dict[object, PageAccess]] = {}

    def get(self, frame: int) -> PageAccess:
        """How the guest may access a frame."""
        return reduce(and_, list(self._left.get(frame, {}).values()), PageAccess.ALL)

    def set(self, frame: int, access: PageAccess, user: object) -> None:
        """Leave a frame ``access``, as far as this user is concerned; on an error it is as before."""
        with self._lock:
            users = self._left.setdefault(frame, {})
            before = users.get(user, PageAccess.ALL)
            self._note(users, user, access)
            try:
                self._order(frame)
            except BaseException:
                self._note(users, user, before)
                raise

    @staticmethod
    def _note(users: dict[object, PageAccess], user: object, access: PageAccess) -> None:
        users[user] = access
        if access == PageAccess.ALL:
            del users[user]

    def _order(self, frame: int) -> None:
        new = self._domain.ffi.new
        address, allowed = (
            new("unsigned long long *", frame << PAGE_SHIFT),
            new("unsigned char *", int(self.get(frame))),
        )
        self._domain.control("kvmi_set_page_access", address, allowed, 1, 0)

    def release(self, user: object) -> None:
        """Give back what this user took beyond what it found."""
        with ExitStack() as steps:
            for frame in [frame for frame, users in self._left.items() if user in users]:
                steps.callback(self.set, frame, PageAccess.ALL, user)
