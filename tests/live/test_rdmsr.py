# SPDX-License-Identifier: Apache-2.0
"""MSRs of a Debian guest: what its own kernel's ``rdmsr`` tells of each vCPU, and what the library does."""

from __future__ import annotations

import lzma
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from needs import missing

from libmicrovmi_py import Microvmi

from . import initramfs, packages
from .guest import QEMU, VCPUS, Boot, Config, Guest
from .packages import Unobtainable

INDEXES = {
    "apic_base": 0x1B,
    "sysenter_cs": 0x174,
    "sysenter_esp": 0x175,
    "sysenter_eip": 0x176,
    "efer": 0xC000_0080,
    "star": 0xC000_0081,
    "lstar": 0xC000_0082,
    "cstar": 0xC000_0083,
    "fmask": 0xC000_0084,
    "tsc_aux": 0xC000_0103,
}
"""Those that a guest sets when it starts and does not touch again."""

GS_BASE, KERNEL_GS_BASE = 0xC000_0101, 0xC000_0102
"""``swapgs`` exchanges the two: a guest reads them in its kernel, and may be stopped in a program."""

MODULE = "msr.ko"
SETUP = f"""
insmod /{MODULE}
for cpu in {" ".join(map(str, range(VCPUS)))}; do
    [ -e /dev/cpu/$cpu/msr ] || {{ mkdir -p /dev/cpu/$cpu; mknod /dev/cpu/$cpu/msr c 202 $cpu; }}
    for index in {" ".join(map(str, (*INDEXES.values(), GS_BASE, KERNEL_GS_BASE)))}; do
        value=$(dd if=/dev/cpu/$cpu/msr bs=8 count=1 iflag=skip_bytes skip=$index | hexdump -v -e '8/1 "%02x"')
        echo "rdmsr $cpu $index $value" > /dev/console
    done
done
"""


def boot_with_module(folder: Path) -> Boot:
    """A kernel and an initramfs with that kernel's own module, out of one package."""
    (archive,) = packages.archives(packages.KERNEL)
    packages.unpack(archive, folder, "*/vmlinuz*", f"*/{MODULE}*")
    kernel = next(folder.rglob("vmlinuz*"))
    (module,) = folder.rglob(f"{MODULE}*")
    data = module.read_bytes()
    files = {f"/{MODULE}": lzma.decompress(data) if module.suffix == ".xz" else data, initramfs.SETUP: SETUP.encode()}
    initrd = folder / "initramfs.cpio"
    initramfs.build(packages.busybox(), initrd, files)
    return Boot(kernel, initrd)


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    try:
        if shutil.which(QEMU) is None:
            raise Unobtainable(f"{QEMU} is not installed")
        boot = boot_with_module(tmp_path_factory.mktemp("msr"))
    except (Unobtainable, ValueError) as err:
        missing(f"no guest with Debian's {MODULE}: {err}")
    with Guest(Config(cpu="max"), boot) as running:
        yield running


def told(guest: Guest) -> list[dict[int, int]]:
    """By vCPU, what the guest read of each index."""
    found: list[dict[int, int]] = [{} for _ in range(VCPUS)]
    for cpu, index, value in re.findall(r"rdmsr (\d+) (\d+) (\w{16})", guest.console):
        found[int(cpu)][int(index)] = int.from_bytes(bytes.fromhex(value), "little")
    return found


@pytest.mark.parametrize("stands", [False, True])
def test_msrs_are_what_rdmsr_tells_the_guest(guest: Guest, stands: bool) -> None:
    with Microvmi.open(guest.uri) as vm:
        if stands:
            vm.pause()
        states = vm.read_states()
    for state, values in zip(states, told(guest), strict=True):
        assert {name: hex(state[name]) for name in INDEXES} == {
            name: hex(values[index]) for name, index in INDEXES.items()
        }
        seen, bases = [state["gs_base"], state["kernel_gs_base"]], [values[GS_BASE], values[KERNEL_GS_BASE]]
        in_program = state["cs_selector"] & 3 == 3
        assert seen == bases[::-1] if in_program else sorted(seen) == sorted(bases)  # swapgs is not the first thing


def test_the_guest_has_set_them_to_something(guest: Guest) -> None:
    first, second = told(guest)
    for values in (first, second):
        assert all(values[INDEXES[name]] for name in ("efer", "star", "lstar", "cstar", "fmask", "apic_base"))
    assert first[INDEXES["apic_base"]] ^ second[INDEXES["apic_base"]] == 1 << 8
    assert (first[INDEXES["tsc_aux"]], second[INDEXES["tsc_aux"]]) == (0, 1)
    assert first[GS_BASE] != second[GS_BASE]
