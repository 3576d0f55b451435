# SPDX-License-Identifier: Apache-2.0
"""What of a guest's doings the command line asks for, as intercepts."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from libmicrovmi_py.command import kit
from libmicrovmi_py.command.guestnames import GuestNames
from libmicrovmi_py.command.parser import filled
from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.errors import escaped
from libmicrovmi_py.events import ALL_VCPUS, EventKind, Intercept, InterceptFlag, PageAccess

_LETTERS = {"r": PageAccess.READ, "w": PageAccess.WRITE, "x": PageAccess.EXECUTE}


class Asked(NamedTuple):
    """An intercept, and of which vCPU, or ``ALL_VCPUS``."""

    intercept: Intercept
    vcpu: int


def intercept_arguments(parser: argparse.ArgumentParser) -> None:
    """Have an option for each kind of event."""
    about = "Several may be named, and some of them more than once; without any it is --cr3."
    group = parser.add_argument_group("what is told", filled(about))
    group.add_argument("--cr3", action="store_true", help="changes of the address space")
    way = group.add_mutually_exclusive_group()
    way.add_argument("--every", action="store_true", help="of CR3 every write, before it happens")
    way.add_argument("--observe", action="store_true", help="of CR3 every write, for which nothing is stopped")
    text = "writes of a control register: 0, or 4"
    group.add_argument("--cr", metavar="N", type=int, choices=(0, 4), action="append", default=[], help=text)
    text = "writes of a model-specific register, by its index or its name (lstar)"
    group.add_argument("--msr", metavar="INDEX", type=msr, action="append", default=[], help=text)
    text = "where a vCPU comes by an address, or a function of the kernel's"
    group.add_argument("--breakpoint", metavar="PLACE", action="append", default=[], help=text)
    group.add_argument("--hardware", action="store_true", help="have the processor's own breakpoints, four at the most")
    group.add_argument("--int3", action="store_true", help="breakpoint instructions that the guest itself has")
    text = "accesses to memory at an address, or to a variable of the kernel's, of SIZE bytes"
    group.add_argument("--watch", metavar="PLACE[:SIZE]", action="append", default=[], help=text)
    text = "which accesses --watch means: r, w and x, or some of them (w)"
    group.add_argument("--access", metavar="RWX", type=access, default=PageAccess.WRITE, help=text)
    group.add_argument("--step", action="store_true", help="every instruction")
    text = "what this vCPU does, in place of all"
    group.add_argument("--vcpu", metavar="N", type=vcpu, default=ALL_VCPUS, help=text)


def msr(text: str) -> int:
    """The index of an MSR, for argparse."""
    from libmicrovmi_py.arch.x86 import msrs

    try:
        return msrs.INDEXES[text] if text in msrs.INDEXES else int(text, 0)
    except ValueError:
        names = ", ".join(msrs.INDEXES)
        raise argparse.ArgumentTypeError(f"{escaped(text)!r} is not the index of an MSR, nor one of {names}") from None


def access(text: str) -> PageAccess:
    """Accesses by their letters, for argparse."""
    if not text or set(text) - set(_LETTERS):
        raise argparse.ArgumentTypeError(f"{escaped(text)!r} is not made of r, w and x")
    found = PageAccess.NONE
    for letter in text:
        found |= _LETTERS[letter]
    return found


def vcpu(text: str) -> int:
    """The number of a vCPU, for argparse."""
    if not text.isdecimal() or int(text) >= ALL_VCPUS:
        raise argparse.ArgumentTypeError(f"{escaped(text)!r} is not the number of a vCPU")
    return int(text)


def asked(options: argparse.Namespace, names: GuestNames, vcpus: int) -> list[Asked]:
    """What the options ask for, of a machine of so many vCPUs. Raises :class:`kit.Failure`."""
    found = [Asked(item, options.vcpu) for item in (*_registers(options), *_places(options, names))]
    found += _watched(options, names, vcpus)
    return found or [Asked(_cr3(options), options.vcpu)]


def _cr3(options: argparse.Namespace) -> Intercept:
    flags = InterceptFlag.NONE
    if options.every:
        flags = InterceptFlag.EVERY_WRITE
    elif options.observe:
        flags = InterceptFlag.OBSERVE
    return Intercept(EventKind.CR, 3, flags=flags)


def _registers(options: argparse.Namespace) -> Iterator[Intercept]:
    if options.cr3 or options.every or options.observe:
        yield _cr3(options)
    for number in options.cr:
        yield Intercept(EventKind.CR, number)
    for number in options.msr:
        yield Intercept(EventKind.MSR, number)


def _places(options: argparse.Namespace, names: GuestNames) -> Iterator[Intercept]:
    flags = InterceptFlag.HARDWARE if options.hardware else InterceptFlag.NONE
    for word in options.breakpoint:
        for address in names.addresses(word):
            yield Intercept(EventKind.BREAKPOINT, address=address, flags=flags)
    if options.int3:
        yield Intercept(EventKind.BREAKPOINT)
    if options.step:
        yield Intercept(EventKind.SINGLE_STEP)


def _watched(options: argparse.Namespace, names: GuestNames, vcpus: int) -> Iterator[Asked]:
    """A variable that each CPU has is watched in each place, whoever accesses it."""
    for word in options.watch:
        place, _, size = word.partition(":")
        for address in names.addresses(place):
            length = kit.size(size) if size else names.size_at(address)
            for where in names.of_each_cpu(address, vcpus):
                intercept = Intercept(EventKind.VIRTUAL_ACCESS, address=where, size=length, access=options.access)
                yield Asked(intercept, options.vcpu)
