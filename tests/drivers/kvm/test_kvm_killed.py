# SPDX-License-Identifier: Apache-2.0
"""A listener that is killed: KVM takes back whatever was asked of it when the connection ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from drivers.kvm.simulator import Simulator
from drivers.kvm.watching import until

ROOT = Path(__file__).resolve().parents[3]

VICTIM = """
import sys, time
from libmicrovmi_py import EventKind, Intercept, Microvmi, PageAccess
machine = Microvmi(driver="kvm", kvm_unix_socket=sys.argv[1], library=sys.argv[2])
machine.set_page_access(0x5000, PageAccess.READ)
machine.toggle_intercept(Intercept(EventKind.CR, number=3))
print("armed", flush=True)
sys.stdin.readline()
assert machine.listen(10)
print("heard", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("moment", ["armed", "before it is heard", "before it is answered"])
def test_after_a_listener_was_killed_the_guest_runs_on(
    simulator: Simulator, socket_path: str, libkvmi: str, moment: str
) -> None:
    command = [sys.executable, "-c", VICTIM, socket_path, libkvmi]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as victim:
        assert victim.stdin is not None
        assert victim.stdout is not None
        assert victim.stdout.readline() == "armed\n"
        vcpu = simulator.vcpus[0]
        if moment != "armed":
            write = vcpu.write_cr(3, 0x9000)
            until(vcpu.stopped.is_set)
        if moment == "before it is answered":
            print(file=victim.stdin, flush=True)
            assert victim.stdout.readline() == "heard\n"
        victim.kill()
    assert victim.returncode == -signal.SIGKILL
    until(lambda: not vcpu.events and not simulator.accesses)
    if moment == "armed":
        write = vcpu.write_cr(3, 0x9000)
    assert write.result(5) == 0x9000
