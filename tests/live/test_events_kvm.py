# SPDX-License-Identifier: Apache-2.0
"""Events of a machine under KVM, where a breakpoint changes the guest's code: killed, it is as it was.

The guest is code of our own in real mode, and the breakpoints are where it does not come to: not every KVM that runs
inside of another hypervisor tells QEMU of them.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

import pytest

from libmicrovmi_py import Microvmi

from .counting import LONG
from .firmware import need_qemu
from .tiny import GO, Tiny, tiny, wait_for
from .victims import started
from .watchers import watchers_of

KILLS = 100 if LONG else 4

CODE, SITE, NUMBER = 0x1000, 0x1008, 0x600
"""Where the guest's code is, where in it a breakpoint is, and where the guest counts, 2 bytes."""

LOOP = b"\xff\x06\x00\x06" + b"\x90\x90" + b"\xeb\xf8" + b"\x90\x90"  # inc word [0x600]; nop; nop; jmp back; nop; nop

VICTIM = """
import sys
from libmicrovmi_py import Microvmi
from libmicrovmi_py.events import EventKind, Intercept, InterceptFlag
vm = Microvmi.open(sys.argv[1])
site = int(sys.argv[3], 16)
vm.toggle_intercept(Intercept(EventKind.BREAKPOINT, address=site, flags=InterceptFlag[sys.argv[2]]))
print("now", flush=True)
while True:
    vm.listen(20)
"""

KINDS = ("NONE", "HARDWARE")


def copied(code: bytes) -> bytes:
    """Code for :func:`tiny.tiny`: write that code to memory, two bytes at a time, and go on there."""
    places = range(0, len(code), 2)
    writes = b"".join(b"\xc7\x06" + (CODE + at).to_bytes(2, "little") + code[at : at + 2] for at in places)
    return writes + b"\xea" + CODE.to_bytes(2, "little") + b"\0\0"  # jmp 0:CODE


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    need_qemu()
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("/dev/kvm cannot be used here; to enable: as root, or in the group kvm, on a host that has it")
    with tiny(tmp_path_factory.mktemp("kvm"), copied(LOOP), debugger=False, accelerator="kvm") as guest:
        with Microvmi.open(guest.uri) as vm:
            vm.write_physical(GO, b"\1")
            wait_for(lambda: vm.read_physical(CODE, len(LOOP)) == LOOP, "the guest's code")
        check_counts(guest)
        yield guest


def code_of(guest: Tiny) -> bytes:
    with Microvmi.open(guest.other_uri) as vm:
        return vm.read_physical(CODE, len(LOOP))


def check_counts(guest: Tiny) -> None:
    with Microvmi.open(guest.other_uri) as vm:
        for _ in range(3):
            seen = vm.read_physical(NUMBER, 2)
            wait_for(lambda: vm.read_physical(NUMBER, 2) != seen, "a guest that runs")  # noqa: B023
            time.sleep(0.01)
    assert guest.status() == "running"


def test_whenever_its_program_is_killed_the_code_is_as_it_was(guest: Tiny) -> None:
    moments = random.Random(3)
    for number in range(KILLS):
        kind = KINDS[number % len(KINDS)]
        with started(VICTIM, [guest.uri, kind, f"{SITE:x}"]) as victim:
            placed = code_of(guest)
            assert (placed != LOOP) == (kind == "NONE")
            time.sleep(moments.uniform(0, 0.05))
            victim.kill()
        wait_for(lambda: not watchers_of(guest.process.pid), "an end of the watcher")
        assert code_of(guest) == LOOP
        assert not any("microvmi" in item["label"] for item in guest.monitor.execute("query-chardev"))
        check_counts(guest)
