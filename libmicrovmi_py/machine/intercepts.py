# SPDX-License-Identifier: Apache-2.0
"""What an intercept has to be on any machine, whatever its driver can."""

from __future__ import annotations

from libmicrovmi_py.arch.x86 import msrs, registers
from libmicrovmi_py.declare import replace
from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.events import EventKind, Intercept, InterceptFlag, PageAccess, check_flags
from libmicrovmi_py.model import U64_MAX

_CR3 = 3
_BOTH = InterceptFlag.EVERY_WRITE | InterceptFlag.OBSERVE


def checked(intercept: Intercept) -> Intercept:
    """That intercept, without a number if its kind has none.

    Raises ``InvalidArgumentError`` for what no machine has.
    """
    kind, number = intercept.kind, intercept.number
    _check_flags(intercept)
    if kind is EventKind.VIRTUAL_ACCESS:
        _check_range(intercept)
    elif intercept.size or intercept.access:
        raise InvalidArgumentError(f"an intercept of {kind.name} has no size and no access")
    elif intercept.address and kind is not EventKind.BREAKPOINT:
        raise InvalidArgumentError(f"an intercept of {kind.name} has no address")
    if kind is EventKind.CR:
        if number not in registers.INTERCEPTED_CONTROL:
            raise InvalidArgumentError(f"control register {number} cannot be intercepted: 0, 3 and 4 can")
        return intercept
    if kind is EventKind.MSR:
        if not 0 <= number <= msrs.INDEX_MAX:
            raise InvalidArgumentError(f"{number:#x} is not the index of an MSR: it has 32 bits")
        return intercept
    return replace(intercept, number=0)


def _check_range(intercept: Intercept) -> None:
    """Bytes that there are, and accesses to them that there are."""
    start, size, access = intercept.address, intercept.size, intercept.access
    if not 0 <= start <= U64_MAX or not 1 <= size <= U64_MAX + 1 - start:
        raise InvalidArgumentError(f"{size:#x} bytes at {start:#x} are no range of virtual memory")
    if not PageAccess.NONE < access <= PageAccess.ALL:
        raise InvalidArgumentError(f"access is {int(access):#x}: name READ, WRITE or EXECUTE, or several of them")


def _check_flags(intercept: Intercept) -> None:
    """Flags that there are, for what they are there for."""
    kind, flags = intercept.kind, check_flags(intercept.flags)
    if flags & InterceptFlag.EVERY_WRITE and not (kind is EventKind.CR and intercept.number == _CR3):
        raise InvalidArgumentError("EVERY_WRITE is for CR 3: of other registers every write is told anyway")
    if flags & InterceptFlag.OBSERVE and kind is not EventKind.CR:
        raise InvalidArgumentError("OBSERVE is for control registers")
    if flags & _BOTH == _BOTH:
        raise InvalidArgumentError("who observes stops no write: EVERY_WRITE and OBSERVE are two intercepts")
    if flags & InterceptFlag.HARDWARE and not (kind is EventKind.BREAKPOINT and intercept.address):
        raise InvalidArgumentError("HARDWARE is for a breakpoint at an address")
