# SPDX-License-Identifier: Apache-2.0
"""What Xen is told to stop a domain at, and the reasons for which it refuses."""

from __future__ import annotations

import errno
from collections.abc import Set

from libmicrovmi_py.arch.x86.instructions import BREAKPOINT_VECTOR
from libmicrovmi_py.drivers.xen import vmevent
from libmicrovmi_py.drivers.xen.xenctrl import Domain
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.events import EventKind, Intercept, PageAccess

_REFUSED = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV, errno.ENOSYS)
_NO_EPT = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
"""What a question for a frame's access gives on other processors; ENODEV says that nobody listens yet."""

_NAMES = {
    EventKind.CR: "control registers",
    EventKind.MSR: "this model-specific register",
    EventKind.BREAKPOINT: "breakpoints",
    EventKind.PAGE_ACCESS: "page accesses",
    EventKind.SINGLE_STEP: "single steps",
}

_TAKE = {EventKind.PAGE_ACCESS: "EPT", EventKind.SINGLE_STEP: "the monitor trap flag"}
"""What the processor has to have, which are Intel's."""

_CAPABILITIES = {EventKind.CR: 0, EventKind.MSR: 1, EventKind.SINGLE_STEP: 2, EventKind.BREAKPOINT: 3}
"""The bits by which Xen tells what it can."""

_NO_ERROR_CODE = 0xFFFFFFFF


def possible(domain: Domain) -> frozenset[EventKind]:
    """The kinds of events that Xen has for a domain, with this processor; nothing changes by the question.

    Raises ``NotSupportedError`` for a version of Xen's events that is not known.
    """
    vmevent.entry_size(domain.lib.xc_vm_event_get_version(domain.handle))
    bits = domain.ffi.new("uint32_t *")
    domain.call("asking for the kinds of events", "xc_monitor_get_capabilities", bits)
    kinds = {kind for kind, bit in _CAPABILITIES.items() if bits[0] >> bit & 1}
    refused = domain.lib.xc_get_mem_access(domain.handle, domain.domid, 0, domain.ffi.new("int *")) < 0
    if not refused or domain.ffi.errno not in _NO_EPT:
        kinds.add(EventKind.PAGE_ACCESS)
    return frozenset(kinds)


def needs(kinds: Set[EventKind]) -> str:
    """Why Xen does not have these kinds, in a line."""
    return "; ".join(map(_need, sorted(kinds)))


def _need(kind: EventKind) -> str:
    if kind in _TAKE:
        return f"{_NAMES[kind]} take an Intel processor with {_TAKE[kind]}"
    return f"this Xen has no events of {_NAMES[kind]}"


def switch(domain: Domain, intercept: Intercept, *, enabled: bool) -> None:
    """Switch events of a kind on or off, for all vCPUs. Raises ``NotSupportedError`` where Xen refuses."""
    kind, number = intercept.kind, intercept.number
    if kind is EventKind.MSR:
        _ask(domain, kind, "xc_monitor_mov_to_msr", number, enabled, False)
    elif kind is EventKind.BREAKPOINT:
        _ask(domain, kind, "xc_monitor_software_breakpoint", enabled)
    else:
        _ask(domain, kind, "xc_monitor_singlestep", enabled)


def switch_writes(domain: Domain, number: int, *, enabled: bool, stands: bool = True) -> None:
    """The same for writes of a control register, at which the vCPU ``stands`` or not."""
    index = vmevent.CR_INDEXES[number]
    _ask(domain, EventKind.CR, "xc_monitor_write_ctrlreg", index, enabled, stands, 0, False)


def step(domain: Domain, vcpu: int, *, enabled: bool) -> None:
    """Let a vCPU stop after every instruction, or not."""
    _ask(domain, EventKind.SINGLE_STEP, "xc_domain_debug_control", int(enabled), vcpu)


def allow(domain: Domain, frame: int, access: PageAccess) -> None:
    """Let the guest access a frame in these ways only; Xen's numbers are ours."""
    _ask(domain, EventKind.PAGE_ACCESS, "xc_set_mem_access", int(access), frame, 1)


def inject_breakpoint(domain: Domain, request: vmevent.Request) -> None:
    """Deliver to the guest the exception that its breakpoint instruction raises."""
    length, kind = request.breakpoint
    arguments = (request.vcpu, BREAKPOINT_VECTOR, kind, _NO_ERROR_CODE, length, 0)
    domain.call("delivering a breakpoint to the guest", "xc_hvm_inject_trap", *arguments)


def _ask(domain: Domain, kind: EventKind, function: str, *arguments: object) -> None:
    result = getattr(domain.lib, function)(domain.handle, domain.domid, *arguments)
    if result >= 0:
        return
    code = domain.ffi.errno
    if code == errno.EEXIST:
        return  # it is so already
    if code in _REFUSED:
        domain.info()
        raise NotSupportedError(f"Xen refuses ({errno.errorcode[code]}) to intercept {_NAMES[kind]}")
    raise domain.failure(f"intercepting {_NAMES[kind]}", code)
