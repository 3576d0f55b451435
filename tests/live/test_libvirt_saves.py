# SPDX-License-Identifier: Apache-2.0
"""What a libvirtd saves and dumps of its machines, in every form that it has: memory as ``pmemsave``, registers too.

One machine has a kernel in it. Where a compressor takes long for that it gets one that is in its firmware, unless
MICROVMI_LONG=1 is set.
"""

from __future__ import annotations

import os
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from needs import missing

from . import oracle
from .capi import Machine
from .conftest import OpenMachine
from .guest import VCPUS, Boot
from .libvirtd import Domain, Libvirtd
from .oracle import Range, Value

MIB = 1 << 20
LONG = bool(os.environ.get("MICROVMI_LONG"))

FORMS = {"raw": b"QEVM", "gzip": b"\x1f\x8b", "bzip2": b"BZh", "xz": b"\xfd7zXZ", "lzop": b"\x89LZO"}
FORMS["zstd"] = b"\x28\xb5\x2f\xfd"
"""What a stream in each begins with."""
SLOW = () if LONG else ("gzip", "bzip2", "xz", "zstd")
"""Those that take long for a machine with a kernel in it."""
SAVED = tuple(FORMS) if LONG else ("gzip",)
"""Those that ``virsh save`` is tried with too: what is written is the same, and each machine has to be restored."""


class Stood:
    """A machine that stands: its memory and its registers, by QEMU's word."""

    def __init__(self, domain: Domain, mib: int) -> None:
        assert domain.state().startswith("paused")
        place = domain.libvirtd.home / "open" / "memory"
        domain.human(f'pmemsave 0 {mib * MIB} "{place}"')
        self.memory = place.read_bytes()
        place.unlink()
        self.registers: list[dict[str, Value]] = oracle.registers(domain)

    def assert_is(self, vm: Machine, unknown: tuple[str, ...] = ()) -> None:
        """Whether a file has all of this."""
        size = len(self.memory)
        assert vm.max_address() == size
        ram = [item for item in vm.memory_map() if item.kind == "ram"]
        assert ram in ([Range(0, 0xA0000, "ram"), Range(0xC0000, size - 0xC0000, "ram")], [Range(0, size, "ram")])
        for item in ram:
            different = self._first_difference(vm, item)
            assert different is None, f"the page at {different:#x} is another one"
        assert vm.vcpu_count() == VCPUS == len(self.registers)
        for vcpu, values in enumerate(self.registers):
            read, known = vm.registers(vcpu), values.keys() - unknown
            assert {name: read[name] for name in known} == {name: values[name] for name in known}

    def _first_difference(self, vm: Machine, item: Range) -> int | None:
        for start in range(item.start, item.end, MIB):
            expected = self.memory[start : min(start + MIB, item.end)]
            if vm.read(start, len(expected)).content == expected:
                continue
            return next(
                start + at
                for at in range(0, len(expected), 4096)
                if vm.read(start + at, 4096).content != expected[at : at + 4096]
            )
        return None


@pytest.fixture(scope="module")
def libvirtd() -> Iterator[Libvirtd]:
    """The system's, if we are root."""
    with Libvirtd() as started:
        yield started


Domains = dict[str, Domain]


@pytest.fixture(scope="module")
def domains(libvirtd: Libvirtd, boot: Boot) -> Domains:
    """A machine with a kernel, and one in its firmware."""
    made = {"kernel": Domain(libvirtd, f"live-{os.getpid()}-saved", boot, mib=128)}
    made["firmware"] = Domain(libvirtd, f"live-{os.getpid()}-bare", mib=32)
    libvirtd.virsh("resume", made["firmware"].name)
    time.sleep(1.0)  # some of the firmware's run, wherever it is then
    return made


Stand = Callable[[str], tuple[Domain, Stood]]


@pytest.fixture
def stand(libvirtd: Libvirtd, domains: Domains) -> Iterator[Stand]:
    """Have the libvirtd save in that form, and a machine stand; it runs afterwards."""
    stood: list[Domain] = []

    def suspend(form: str) -> tuple[Domain, Stood]:
        names = ("save_image_format", "dump_image_format", "snapshot_image_format")
        settings = "".join(f'{name} = "{form}"\n' for name in names)
        if settings not in (libvirtd.home / "etc" / "qemu.conf").read_text():
            libvirtd.restart(settings)
        name = "firmware" if form in SLOW else "kernel"
        libvirtd.virsh("suspend", domains[name].name)
        stood.append(domains[name])
        return domains[name], Stood(domains[name], 32 if name == "firmware" else 128)

    yield suspend
    for domain in stood:
        if not domain.state().startswith("running"):
            libvirtd.virsh("resume", domain.name)


@pytest.fixture
def scratch(libvirtd: Libvirtd) -> Iterator[Path]:
    """Where a libvirtd writes to."""
    path = libvirtd.home / "open" / "saves"
    path.mkdir()
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


def need_program(form: str) -> None:
    """libvirt has programs that pack."""
    if form != "raw" and shutil.which(form) is None:
        missing(f"no {form}; to enable: apt-get install {form.replace('xz', 'xz-utils')}")


@pytest.mark.parametrize("form", FORMS)
def test_a_whole_dump_in_every_form_is_the_machine(
    stand: Stand, scratch: Path, open_machine: OpenMachine, form: str
) -> None:
    need_program(form)
    domain, stood = stand(form)
    path = scratch / "dump"
    domain.libvirtd.virsh("dump", domain.name, str(path))
    if form == "zstd" and path.read_bytes().startswith(FORMS["raw"]):
        return  # a libvirt before 11 does not have it, and writes what follows as it is
    assert path.read_bytes().startswith(FORMS[form])
    stood.assert_is(open_machine(str(path)))


@pytest.mark.parametrize("form", SAVED)
def test_a_saved_machine_in_every_form_is_the_machine(
    stand: Stand, scratch: Path, open_machine: OpenMachine, form: str
) -> None:
    need_program(form)
    domain, stood = stand(form)
    path = scratch / "saved"
    done = domain.libvirtd.virsh("save", domain.name, str(path), check=False)
    if form == "zstd" and "mage format" in done.stderr:
        return
    assert done.returncode == 0, done.stderr
    content = path.read_bytes()
    magic, described = struct.unpack_from("<16s4xI", content)
    assert magic == b"LibvirtQemudSave"
    assert content[92 + described :].startswith(FORMS[form])
    stood.assert_is(open_machine(str(path)))
    domain.libvirtd.virsh("restore", str(path), "--paused")


def test_a_managed_save_is_the_machine(libvirtd: Libvirtd, stand: Stand, open_machine: OpenMachine) -> None:
    domain, stood = stand("raw")
    description = libvirtd.home / "lasting.xml"
    description.write_text(libvirtd.virsh("dumpxml", domain.name).stdout)
    libvirtd.virsh("define", str(description))
    libvirtd.virsh("managedsave", domain.name)
    (path,) = libvirtd.home.rglob(f"{domain.name}.save")
    stood.assert_is(open_machine(str(path)))
    libvirtd.virsh("start", domain.name, "--paused")
    libvirtd.virsh("undefine", domain.name)
    assert not path.exists()


def test_a_dump_of_memory_alone_in_every_form_is_the_machine(
    libvirtd: Libvirtd, stand: Stand, scratch: Path, open_machine: OpenMachine
) -> None:
    domain, stood = stand("raw")
    for form in ("elf", "kdump-zlib", "kdump-lzo", "kdump-snappy"):
        path = scratch / form
        done = libvirtd.virsh("dump", domain.name, str(path), "--memory-only", "--format", form, check=False)
        if "unsupported dumpformat" in done.stderr and form in ("kdump-lzo", "kdump-snappy"):
            continue  # a QEMU that was built without
        assert done.returncode == 0, done.stderr
        stood.assert_is(open_machine(str(path)), ("efer", "msr_efer"))
        path.unlink()


def test_the_memory_of_a_running_machines_snapshot_is_that_of_a_machine(
    libvirtd: Libvirtd, stand: Stand, scratch: Path, open_machine: OpenMachine
) -> None:
    """Nobody can tell what it is to have: the machine ran meanwhile. It was suspended then, and is restored."""
    domain, _ = stand("raw")
    libvirtd.virsh("resume", domain.name)
    path = scratch / "snapshot"
    libvirtd.virsh("snapshot-create-as", domain.name, "--memspec", f"file={path},snapshot=external")
    vm = open_machine(str(path))
    read = b"".join(vm.read(item.start, item.size).content for item in vm.memory_map() if item.kind == "ram")
    domain.end()
    wait_until_gone(domain)
    libvirtd.virsh("restore", str(path), "--paused")
    stood = Stood(domain, 128)
    assert read == stood.memory[:0xA0000] + stood.memory[0xC0000:]
    stood.assert_is(vm)


def wait_until_gone(domain: Domain) -> None:
    """libvirt has seen its end."""
    end = time.monotonic() + 60
    while domain.libvirtd.virsh("domstate", domain.name, check=False).stdout.strip() not in ("", "shut off"):
        assert time.monotonic() < end
        time.sleep(0.05)
