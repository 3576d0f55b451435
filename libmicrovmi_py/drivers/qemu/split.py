# SPDX-License-Identifier: Apache-2.0
"""Where a QEMU has its main memory in the guest, by its command line alone: only where that is certain.

Certain is what every QEMU does that has machine types of these names, and nothing on the command line can change. So
options and machine types are those of the lists below, and everything else is a reason to say that it is not known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.qemu.commandline import parse_object
from libmicrovmi_py.drivers.qemu.sizes import bytes_of
from libmicrovmi_py.model import Architecture
from libmicrovmi_py.transport.options import options as options_of

_GIB = 1 << 30
_MIB = 1 << 20
_VGA, _HIGH = 0xA0000, 0x100000
"""What lies between them (video memory, firmware that is shadowed or is not) the guest arranges as it likes."""

_DEFAULT = 128 * _MIB
_HYPERTRANSPORT = 900 * _GIB
"""With more, memory above 4 GiB begins at 1 TiB if the processor is AMD's, and how much more depends on devices."""

_PC = re.compile(r"pc|pc-i440fx-[0-9]+\.[0-9]+")
_PC_BEFORE_2 = re.compile(r"pc-i440fx-1\..*")
_Q35 = re.compile(r"q35|pc-q35-(?:[3-9]|[1-9][0-9])\.[0-9]+(?:\.[0-9])?|pc-q35-2\.(?:[4-9]|1[0-2])")
_VIRT = re.compile(r"virt|virt-[0-9]+\.[0-9]+")
_X86 = re.compile(r"\.?(?:qemu(?:-[\w.+]+)*-system-(?:x86_64|i386)|qemu-kvm|kvm|qemu)(?:-wrapped)?")
_AARCH64 = re.compile(r"\.?qemu(?:-[\w.+]+)*-system-aarch64(?:-wrapped)?")
_WITHOUT_DEFAULT = ("qemu-kvm", "kvm", "qemu")
"""Programs of distributions, of which some have another default machine than pc."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FLAGS = _words(
    """
    S alt-grab async-teardown ctrl-grab curses daemonize enable-kvm enable-sync-profile full-screen jitdump
    mem-prealloc no-acpi no-fd-bootchk no-frame no-hpet no-quit no-reboot no-shutdown no-user-config nodefaults
    nographic one-insn-per-tb only-migratable perfmap portrait rtc-td-hack s sdl semihosting show-cursor
    singlestep snapshot usb win2k-hack
    """
)
_HARMLESS = _words(
    """
    D L accel acpitable action add-fd append audio audiodev bios blockdev boot cdrom chardev chroot compat cpu d
    debugcon device dfilter display drive dtb echr fda fdb fsdev fw_cfg gdb hda hdb hdc hdd icount initrd iscsi k
    kernel loadvm m M machine mem-path mon monitor msg mtdblock name net netdev nic object option-rom overcommit
    parallel pflash pidfile plugin qmp qmp-pretty rtc run-with runas sandbox sd seed semihosting-config serial
    shim smbios smp soundhw spice tb-size tpmdev trace usbdevice uuid vga virtfs vnc watchdog watchdog-action
    """
)
"""Options with a value that leave the layout alone; ``m``, ``M``, ``machine`` and ``accel`` are looked at."""

_REASONS = {
    "numa": "it has NUMA nodes (-numa)",
    "incoming": "it was started to be migrated to (-incoming), and nobody tells whether its memory has arrived",
    "readconfig": "a file of -readconfig may say anything",
    "set": "-set may change anything",
    "preconfig": "it was started with -preconfig: what was said to it later is not known",
}

_ACCELERATORS = frozenset(("kvm", "tcg", "qtest", "mshv"))

_MACHINE = _words(
    """
    type accel acpi append aux-ram-share bios boot bus-lock-ratelimit compact-highmem default-bus-bypass-iommu
    dt-compatible dtb dtb-kaslr-seed dtb-randomness dump-guest-core enforce-config-section fd-bootchk firmware
    gic-version graphics highmem highmem-ecam highmem-mmio highmem-mmio-size highmem-redists hpet i8042 initrd
    iommu its kernel kernel-irqchip kernel_irqchip kvm-shadow-mem max-fw-size mem-merge memory-backend msi mte
    pcspk-audiodev pflash0 pflash1 phandle-start pic pit ras sata secure shim smbios-entry-point-type smbus smm
    suppress-vmdesc usb virtualization vmport wdat x-change-vmfd-on-reset x-oem-id x-oem-table-id
    """
)
"""Properties of machines that leave the layout alone."""

_IN_FILES = ("memory-backend-file", "memory-backend-memfd", "memory-backend-shm")

_GLOBALS = re.compile(
    r"(?:driver=)?(?:kvm-pit|PIIX4_PM|ICH9-LPC|cfi\.pflash01|mc146818rtc|hpet|kvmclock|isa-[\w-]+|ide-[\w-]+"
    r"|scsi-[\w-]+|usb-[\w-]+|virtio-(?!mem|pmem)[\w-]+|VGA|qxl-vga|e1000e?|rtl8139)[.,].*"
)
"""Devices whose properties leave the layout alone; those of the host bridges do not."""


class UncertainError(Exception):
    """Why it is not certain where the main memory is, for the text of an error."""


class Piece(NamedTuple):
    """Main memory that lies in one piece: guest address, size, and where in the machine's memory; in bytes."""

    start: int
    size: int
    offset: int


class Split(NamedTuple):
    """The main memory of a machine: all of it in bytes, where it is in the guest, the machine's architecture, and
    whether QEMU was told to have it in a file, one without a name included."""

    size: int
    pieces: tuple[Piece, ...]
    architecture: Architecture
    in_file: bool


def split_of(argv: Sequence[str], program: str) -> Split:
    """The main memory of the QEMU with that command line; ``program`` is the name of the program that runs.

    Raises ``UncertainError``.
    """
    machine: dict[str, str] = {}
    memory: dict[str, str] = {}
    objects: list[Mapping[str, str]] = []
    in_file = False
    for option, value in _options(argv):
        if option in ("machine", "M"):
            machine |= options_of(value, "type")
        elif option == "m":
            memory |= options_of(value, "size")
        elif option == "object":
            objects.append(parse_object(value))
        else:
            in_file = in_file or option == "mem-path"
            _check(option, value)
    _check_machine(machine)
    main = machine.get("memory-backend", "")
    backend = _backend(objects, main) if main else {}
    size = _size(memory, _size_of(backend))
    _check_objects(objects, main, size)
    in_file = backend.get("qom-type") in _IN_FILES if main else in_file
    layout, architecture = _layout(machine.get("type", ""), program)
    return Split(size, tuple(piece for piece in layout(size) if piece.size > 0), architecture, in_file)


def _options(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The options of a command line with their values. Raises ``UncertainError`` for one that is not known."""
    words = iter(argv[1:])
    for word in words:
        if not word.startswith("-") or word == "-":
            continue  # a disk
        option = word[2:] if word.startswith("--") else word[1:]
        if option in _FLAGS:
            continue
        if option in _REASONS:
            raise UncertainError(_REASONS[option])
        if option not in _HARMLESS and option != "global":
            raise UncertainError(f"what -{option} does to it is not known here")
        yield option, next(words, "")


def _check(option: str, value: str) -> None:
    if option == "global" and not _GLOBALS.fullmatch(value):
        raise UncertainError(f"-global {value} may change it")
    if option == "accel":
        _check_accelerators(options_of(value, "accel").get("accel", ""))


def _check_accelerators(names: str) -> None:
    if not _ACCELERATORS.issuperset(names.split(":")):
        raise UncertainError(f"the accelerator {names} has a layout of its own")


def _check_machine(machine: Mapping[str, str]) -> None:
    for key, value in machine.items():
        if key in ("confidential-guest-support", "memory-encryption"):
            raise UncertainError(f"the guest's memory is encrypted or hidden ({key}={value})")
        if key == "max-ram-below-4g":
            raise UncertainError("max-ram-below-4g moves its memory")
        if key not in _MACHINE and not key.startswith(("smp.", "smp-cache.", "boot.")):
            raise UncertainError(f"what the property {key} of the machine does to it is not known here")
    _check_accelerators(machine.get("accel", "tcg"))


def _check_objects(objects: Iterable[Mapping[str, str]], main: str, size: int) -> None:
    """No other memory backend may have the size of the main memory: while QEMU starts it may be there alone."""
    for item in objects:
        other = item.get("qom-type", "").startswith("memory-backend") and item.get("id") != main
        if other and _size_of(item) in (0, size):
            raise UncertainError(f"its memory backend {item.get('id', '')} may have the same size as its memory")


def _backend(objects: Iterable[Mapping[str, str]], main: str) -> Mapping[str, str]:
    """The memory backend that is the main memory; without ``-m`` its size is the machine's."""
    found = [item for item in objects if item.get("id") == main]
    if len(found) != 1 or not _size_of(found[0]):
        raise UncertainError(f"the size of its memory-backend={main} is not told")
    return found[0]


def _size_of(item: Mapping[str, str]) -> int:
    """The size of an object in bytes, 0 for none that is understood."""
    text = item.get("size", "")
    return bytes_of(text + "b" if text.isdecimal() else text)


def _size(memory: Mapping[str, str], backend: int) -> int:
    """What ``-m`` says, in bytes; ``backend`` is the size of the memory backend that is the main memory, 0 without one.

    Raises ``UncertainError``, also if memory may have been plugged in.
    """
    if "slots" in memory or "maxmem" in memory:
        raise UncertainError("memory may have been plugged in (-m with slots or maxmem)")
    text = memory.get("size", "")
    size = bytes_of(text) if memory else backend or _DEFAULT
    if memory.keys() - {"size"} or not size:
        told = ",".join(f"{key}={value}" for key, value in memory.items())
        raise UncertainError(f"its -m {told} is not a plain size")
    if backend not in (0, size):
        raise UncertainError("its -m and its memory backend are not of one size")
    if size > _HYPERTRANSPORT:
        raise UncertainError("with that much memory some of it is beyond 1 TiB if the processor is AMD's")
    return size


def _layout(machine: str, program: str) -> tuple[Callable[[int], Iterator[Piece]], Architecture]:
    """The pieces by the size, for a machine type. Raises ``UncertainError``."""
    if _VIRT.fullmatch(machine) and _AARCH64.fullmatch(program):
        return _virt, Architecture.AARCH64
    if not _X86.fullmatch(program):
        raise UncertainError(f"the layout of {program}'s machine {machine or '(the default one)'} is not known here")
    if not machine and program in _WITHOUT_DEFAULT:
        raise UncertainError(f"it has no -machine, and which one is {program}'s own is not known here")
    if not machine or (_PC.fullmatch(machine) and not _PC_BEFORE_2.fullmatch(machine)):
        return _pc, Architecture.X86
    if _Q35.fullmatch(machine):
        return _q35, Architecture.X86
    raise UncertainError(f"the layout of machine type {machine} is not known here")


def _pc(size: int) -> Iterator[Piece]:
    return _split(size, size if size < 0xE0000000 else 0xC0000000)


def _q35(size: int) -> Iterator[Piece]:
    return _split(size, size if size < 0xB0000000 else 0x80000000)


def _split(size: int, low: int) -> Iterator[Piece]:
    """A PC's memory, of which the first ``low`` bytes are below 4 GiB."""
    yield Piece(0, min(low, _VGA), 0)
    yield Piece(_HIGH, low - _HIGH, _HIGH)
    yield Piece(4 * _GIB, size - low, low)


def _virt(size: int) -> Iterator[Piece]:
    yield Piece(_GIB, size, 0)
