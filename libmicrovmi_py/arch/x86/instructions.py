# SPDX-License-Identifier: Apache-2.0
"""The few instructions that one must know to tell what a guest was stopped at."""

from __future__ import annotations

INT3 = b"\xcc"
"""The breakpoint."""

BREAKPOINT_VECTOR = 3
"""The exception that it raises."""

WRMSR = b"\x0f\x30"
"""Writes an MSR: its index is the lower half of rcx, its value the lower halves of rdx and rax."""

MOV_TO_CR_SIZE = 3
"""Bytes of a ``mov`` to one of the first eight control registers."""

_MOV_TO_CR = b"\x0f\x22"


def written_control_register(code: bytes) -> int | None:
    """The number of the control register that the instruction ``code`` writes by ``mov``; ``None`` for another one."""
    if len(code) != MOV_TO_CR_SIZE or code[:2] != _MOV_TO_CR:
        return None
    return code[2] >> 3 & 7
