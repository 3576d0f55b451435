# SPDX-License-Identifier: Apache-2.0
"""What Xen is told to stop a domain at, and the reasons for which it refuses."""

from __future__ import annotations

import errno

from libmicrovmi_py.drivers.xen import vmevent
from libmicrovmi_py.drivers.xen.control import Control
from libmicrovmi_py.errors import InvalidArgumentError, NotSupportedError
from libmicrovmi_py.events import EventKind, Intercept, PageAccess

_REFUSED = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV, errno.ENOSYS)

_NEEDS = {
    EventKind.CR: "control registers",
    EventKind.MSR: "this model-specific register",
    EventKind.BREAKPOINT: "breakpoints",
    EventKind.PAGE_ACCESS: "page accesses, which takes an Intel processor with EPT",
    EventKind.SINGLE_STEP: "single steps, which takes an Intel processor with the monitor trap flag",
}

_BREAKPOINT_VECTOR = 3
_NO_ERROR_CODE = 0xFFFFFFFF
_MSR_MAX = 0xFFFFFFFF


def checked(intercept: Intercept) -> tuple[EventKind, int]:
    """Kind and number of an intercept. Raises ``InvalidArgumentError`` or ``NotSupportedError``."""
    kind, number = intercept.kind, intercept.number
    if kind is EventKind.CR and number not in vmevent.CR_INDEXES:
        raise InvalidArgumentError(f"control register {number}: 0, 3 and 4 can be intercepted")
    if kind is EventKind.MSR and not 0 <= number <= _MSR_MAX:
        raise InvalidArgumentError(f"there is no MSR {number:#x}")
    if intercept.address:
        raise NotSupportedError(
            "Xen places no breakpoints: write them into memory and intercept address 0, all of them"
        )
    return kind, number if kind in (EventKind.CR, EventKind.MSR) else 0


def arm(control: Control, kind: EventKind, number: int, *, enabled: bool) -> None:
    """Switch events of a kind on or off, for all vCPUs. Raises ``NotSupportedError`` where Xen refuses."""
    if kind is EventKind.CR:
        _ask(control, kind, "xc_monitor_write_ctrlreg", vmevent.CR_INDEXES[number], enabled, True, 0, False)
    elif kind is EventKind.MSR:
        _ask(control, kind, "xc_monitor_mov_to_msr", number, enabled, False)
    elif kind is EventKind.BREAKPOINT:
        _ask(control, kind, "xc_monitor_software_breakpoint", enabled)
    elif kind is EventKind.SINGLE_STEP:
        _ask(control, kind, "xc_monitor_singlestep", enabled)
    else:
        _ask(control, kind, "xc_get_mem_access", 0, control.ffi.new("int *"))  # needs no switch, but a processor


def step(control: Control, vcpu: int, *, enabled: bool) -> None:
    """Let a vCPU stop after every instruction, or not."""
    _ask(control, EventKind.SINGLE_STEP, "xc_domain_debug_control", int(enabled), vcpu)


def allow(control: Control, frame: int, access: PageAccess) -> None:
    """Let the guest access a frame in these ways only; Xen's numbers are ours."""
    _ask(control, EventKind.PAGE_ACCESS, "xc_set_mem_access", int(access), frame, 1)


def inject_breakpoint(control: Control, request: vmevent.Request) -> None:
    """Deliver to the guest the exception that its breakpoint instruction raises."""
    length, kind = request.breakpoint
    arguments = (request.vcpu, _BREAKPOINT_VECTOR, kind, _NO_ERROR_CODE, length, 0)
    control.call("delivering a breakpoint to the guest", "xc_hvm_inject_trap", *arguments)


def _ask(control: Control, kind: EventKind, function: str, *arguments: object) -> None:
    result = getattr(control.lib, function)(control.handle, control.domid, *arguments)
    if result >= 0:
        return
    code = control.ffi.errno
    if code == errno.EEXIST:
        return  # it is so already
    if code == errno.ESRCH and function == "xc_get_mem_access":
        control.info()
        return  # this one frame does not exist
    if code in _REFUSED:
        control.info()
        raise NotSupportedError(f"Xen refuses ({errno.errorcode[code]}) to intercept {_NEEDS[kind]}")
    raise control.failure(f"intercepting {_NEEDS[kind]}", code)
