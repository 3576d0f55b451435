# SPDX-License-Identifier: Apache-2.0
"""A user who may open the RAM file and the monitor of somebody else's QEMU, and has no other rights."""

from __future__ import annotations

import hashlib
from pathlib import Path

from transport.other_user import run_as_nobody

from .guest import Guest
from .marks import on_a_ram_file

START, SIZE = 1 << 20, 32 << 20

PROGRAM = """
import hashlib
from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers import registry
from libmicrovmi_py.transport.native import native
native(), list(registry.all_drivers())
become_nobody()
try:
    with Microvmi.open({uri!r}) as vm:
        vm.pause()
        print(vm.vcpu_count(), hashlib.sha256(vm.read_physical({start}, {size})).hexdigest())
except Exception as err:
    print(type(err).__name__, err)
"""


def as_nobody(guest: Guest) -> str:
    guest.directory.chmod(0o755)
    Path(guest.monitor.path).chmod(0o777)
    guest.ram_file.chmod(0o666)
    return run_as_nobody(PROGRAM.format(uri=guest.uri, start=START, size=SIZE))


@on_a_ram_file
def test_another_user_reads_what_qemu_has(guest: Guest) -> None:
    guest.monitor.execute("stop")
    saved = guest.directory / "saved"
    guest.monitor.execute("pmemsave", val=START, size=SIZE, filename=str(saved))
    expected = hashlib.sha256(saved.read_bytes()).hexdigest()
    saved.unlink()
    assert as_nobody(guest).split() == ["2", expected]


@on_a_ram_file
def test_another_user_is_not_given_a_file_that_took_the_name(guest: Guest) -> None:
    kept = guest.ram_file.with_name("kept")
    guest.ram_file.rename(kept)
    with guest.ram_file.open("wb") as file:
        file.truncate(guest.config.size)
    assert "is not the file that QEMU has its memory in" in as_nobody(guest)
    kept.rename(guest.ram_file)
