# SPDX-License-Identifier: Apache-2.0
"""The memory of a QEMU without a monitor, from its process alone: where the layout is certain, else it is refused."""

from __future__ import annotations

import os

from libmicrovmi_py.declare import ClassVar
from libmicrovmi_py.drivers.hosted import Held, HostedDriver
from libmicrovmi_py.drivers.qemu.discovery import find, find_process
from libmicrovmi_py.drivers.qemu.machines import Qemu, roots
from libmicrovmi_py.drivers.qemu.split import Split, UncertainError, split_of
from libmicrovmi_py.errors import DriverUnavailableError, InvalidArgumentError, about_a_machine
from libmicrovmi_py.model import DriverType
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.processes import Process, Vma

ADVICE = "start QEMU with -qmp unix:/path/qmp.sock,server=on,wait=off, or run it by libvirt"

_FINDING = 10.0
"""Seconds, if no time limit was given."""

_FILES = ("/etc/qemu/qemu.conf", "/usr/local/etc/qemu/qemu.conf")
"""Files that QEMU reads by itself, unless it is told not to; nearly nobody has them."""

_OWN_WORDS = frozenset(("-no-user-config", "--no-user-config"))


class LoneQemu(HostedDriver):
    """Main memory of such a machine, and nothing else: what firmware, video memory and devices have is a hole.

    A QEMU whose memory is not certain is refused: what is on its command line has to be known, and exactly one of its
    mappings must have the size of ``-m``.
    """

    name: ClassVar[str] = "qemu"
    type: ClassVar[DriverType] = DriverType.QEMU

    @classmethod
    def open(cls, params: Parameters) -> LoneQemu:
        """The machine ``vm_name``, whatever monitors it has. Raises as :func:`find` and :meth:`of`."""
        if not params.vm_name or "qmp" in params:
            raise InvalidArgumentError("monitor=no takes a VM name parameter (vm_name: a name or pid) and no qmp")
        if "started" in params:
            qemu = find_process(params.vm_name, params.integer("started", 0))
        else:
            qemu, _ = find(params.vm_name, Deadline(params.seconds("timeout", _FINDING)))
        with about_a_machine():
            driver = cls.of(qemu, mapped=params.yes("mapped", True))
        driver.remedy = "of a machine opened with monitor=no there is the memory alone"
        return driver

    @classmethod
    def of(cls, qemu: Qemu, *, mapped: bool) -> LoneQemu:
        """The memory of a QEMU that was found. ``mapped`` is whether shared memory is mapped, or else read.

        Raises ``DriverUnavailableError`` where it is not certain, ``PermissionDeniedError``, ``VmGoneError``.
        """
        try:
            split = split_of(qemu.argv, qemu.process.executable())
            vma = _memory(qemu, split)
        except UncertainError as err:
            told = f"{qemu} is not asked by a monitor, and where its memory lies is not certain by its command line"
            raise DriverUnavailableError(f"{told}: {err}; {ADVICE}") from err
        held = (Held(piece.start, piece.size, vma, piece.offset) for piece in split.pieces)
        driver = cls(qemu.process, held, mapped=mapped)
        driver.architecture = split.architecture
        driver.remedy = f"without a monitor there is the memory alone; {ADVICE}"
        return driver


def _memory(qemu: Qemu, split: Split) -> Vma:
    """The one mapping that is the machine's memory."""
    if not _OWN_WORDS.intersection(qemu.argv):
        for prefix in roots(qemu.process):
            for name in _FILES:
                if os.path.exists(prefix + name):
                    raise UncertainError(f"{name} may say anything")
    found = qemu.process.areas(split.size)
    if len(found) != 1:
        many = f"{len(found)} mappings" if found else "no mapping"
        raise UncertainError(f"its process has {many} of the size of its memory, {split.size:#x} bytes")
    if split.in_file and not found[0].inode:
        raise UncertainError("its memory is in a file, and what its process has of that size is in none")
    if not _is_guarded(qemu.process, found[0]):
        raise UncertainError("what its process has of the size of its memory is not followed by a page of no access")
    return found[0]


def _is_guarded(process: Process, vma: Vma) -> bool:
    """Whether a page that nobody may touch follows, as QEMU puts one behind memory of the guest."""
    following = process.mappings([(vma.end, vma.end + 1)])
    return bool(following) and following[0].start == vma.end and not following[0].writable
