# SPDX-License-Identifier: Apache-2.0
"""Which guest-physical frames of an x86 HVM or PVH domain are main memory."""

from __future__ import annotations

from libmicrovmi_py.model import MemoryKind

DEVICES, FOUR_GIB = 0xF0000, 0x100000
"""Frames from 3.75 to 4 GiB hold no main memory: Xen puts its special pages there, QEMU the video memory."""


def kind_of(frame: int) -> MemoryKind:
    """What a frame is that exists."""
    return MemoryKind.DEVICE if DEVICES <= frame < FOUR_GIB else MemoryKind.RAM
