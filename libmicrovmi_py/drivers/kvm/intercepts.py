# SPDX-License-Identifier: Apache-2.0
"""What the guest is stopped at: intercepts of each vCPU, and accesses taken from pages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from functools import partial

from libmicrovmi_py.drivers.base import check_vcpu
from libmicrovmi_py.drivers.kvm.domain import Domain
from libmicrovmi_py.drivers.kvm.messages import KINDS
from libmicrovmi_py.errors import InvalidArgumentError, MicrovmiError, NotSupportedError, VmGoneError
from libmicrovmi_py.events import ALL_VCPUS, EventKind, Intercept, PageAccess
from libmicrovmi_py.model import PAGE_SHIFT

_NUMBERED = {EventKind.CR: "kvmi_control_cr", EventKind.MSR: "kvmi_control_msr"}
"""Kinds that are switched by number besides, and the function for it."""

_CONTROL_REGISTERS = (0, 3, 4)

_U32_MAX = 0xFFFFFFFF

_Switch = tuple[EventKind, int]


class Intercepts:
    """What is switched on, so that it can be switched off."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._lock = threading.Lock()
        self._on: dict[int, set[_Switch]] = {}

    def toggle(self, vcpu: int, count: int, intercept: Intercept, enabled: bool) -> None:
        """Switch an intercept on or off for a vCPU of ``count``, or all of them; if one fails, none is switched on."""
        if vcpu != ALL_VCPUS:
            check_vcpu(vcpu, count)
        switch = self._checked(intercept)
        with self._lock:
            done = []
            try:
                for one in range(count) if vcpu == ALL_VCPUS else (vcpu,):
                    if (switch in self._on.setdefault(one, set())) != enabled:
                        self._flip(one, switch, enabled)
                        done.append(one)
            except MicrovmiError:
                for one in done if enabled else ():
                    self._flip(one, switch, False)
                raise

    def _checked(self, intercept: Intercept) -> _Switch:
        kind, number = intercept.kind, intercept.number
        if kind is EventKind.CR and number not in _CONTROL_REGISTERS:
            raise NotSupportedError(f"KVMi stops at writes of CR0, CR3 and CR4, not of CR{number}")
        if kind is EventKind.MSR and not 0 <= number <= _U32_MAX:
            raise InvalidArgumentError(f"{number:#x} is not the index of an MSR: it has 32 bits")
        if kind is EventKind.BREAKPOINT and intercept.address:
            raise NotSupportedError("KVMi places no breakpoints: use address 0, every breakpoint that the guest has")
        if kind is EventKind.SINGLE_STEP and not self._domain.has("kvmi_control_singlestep"):
            raise NotSupportedError("this version of libkvmi has no single-step")
        return kind, number if kind in _NUMBERED else 0

    def _flip(self, vcpu: int, switch: _Switch, enabled: bool) -> None:
        """Switch what is not so yet; a kind is on as long as one of its numbers is."""
        on = self._on[vcpu]
        others = any(kind is switch[0] for kind, _ in on - {switch})
        steps = [] if others else [("kvmi_control_events", KINDS[switch[0]])]
        if switch[0] in _NUMBERED:
            steps.append((_NUMBERED[switch[0]], switch[1]))
        if enabled:
            self._all_or_none(vcpu, steps, switch)
            on.add(switch)
        else:
            on.discard(switch)
            self._single_step(vcpu, switch, False)
            for function, number in reversed(steps):
                self._domain.control(function, vcpu, number, False)

    def _all_or_none(self, vcpu: int, steps: list[tuple[str, int]], switch: _Switch) -> None:
        done = []
        try:
            for function, number in steps:
                self._domain.control(function, vcpu, number, True)
                done.append((function, number))
            self._single_step(vcpu, switch, True)
        except MicrovmiError:
            for function, number in reversed(done):
                self._domain.control(function, vcpu, number, False)
            raise

    def _single_step(self, vcpu: int, switch: _Switch, enabled: bool) -> None:
        if switch[0] is EventKind.SINGLE_STEP:
            self._domain.control("kvmi_control_singlestep", vcpu, enabled)

    def release(self) -> None:
        """Switch off everything. A machine that ended needs none of it."""
        with self._lock:
            on = [(vcpu, switch) for vcpu, switches in self._on.items() for switch in switches]
            _do_all(partial(self._flip, vcpu, switch, False) for vcpu, switch in on)


class Accesses:
    """What was taken from pages, and by whom. A machine has one introspector, so there is nothing else."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._lock = threading.Lock()
        self._known: dict[int, tuple[PageAccess, object]] = {}

    def get(self, frame: int) -> PageAccess:
        """How the guest may access a frame."""
        return self._known.get(frame, (PageAccess.ALL, None))[0]

    def set(self, frame: int, access: PageAccess, user: object) -> None:
        """Allow ``access`` to a frame and nothing else."""
        with self._lock:
            self._set(frame, PageAccess(access & PageAccess.ALL), user)

    def _set(self, frame: int, access: PageAccess, user: object) -> None:
        new = self._domain.ffi.new
        address, allowed = new("unsigned long long *", frame << PAGE_SHIFT), new("unsigned char *", int(access))
        self._domain.control("kvmi_set_page_access", address, allowed, 1, 0)
        self._known[frame] = (access, user)
        if access == PageAccess.ALL:
            del self._known[frame]

    def release(self, user: object) -> None:
        """Give back what ``user`` took. A machine that ended needs none of it."""
        with self._lock:
            frames = [frame for frame, (_, owner) in self._known.items() if owner is user]
            _do_all(partial(self._set, frame, PageAccess.ALL, user) for frame in frames)


def _do_all(steps: Iterable[Callable[[], None]]) -> None:
    """Do every step, then raise the error of the last one that failed; what the machine's end undoes does not count."""
    with ExitStack() as left:
        for step in steps:
            left.callback(_unless_gone, step)


def _unless_gone(step: Callable[[], None]) -> None:
    with suppress(VmGoneError):
        step()
