# SPDX-License-Identifier: Apache-2.0
"""VirtualBox machines as they are listed, by their shared memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from drivers.virtualbox.simulator import CODE, SHM, build, simulated

from libmicrovmi_py import Microvmi, MicrovmiError, list_vms
from libmicrovmi_py.abilities import Ability

OPEN_ONLY = Ability.MAP | Ability.PAGE_ACCESS | Ability.EVENTS

ROOT = Path(__file__).resolve().parents[3]
CHANNEL_SIZE, CPU_SIZE = 20971540, 224

LIST = """
import json, sys
from libmicrovmi_py import Microvmi, list_vms
(one,) = [machine for machine in list_vms("virtualbox") if machine.name == sys.argv[1]]
with Microvmi.open(one.uri) as machine:
    can = int(machine.abilities.can)
print(json.dumps([one.reason, one.user_id, int(one.abilities), can]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of libFDP and of the machine's program."""
    return tmp_path_factory.mktemp("fdp")


@pytest.fixture
def leftover() -> Iterator[str]:
    """The name of shared memory that no machine has any more, which a test makes."""
    name = f"leftover-{os.getpid()}"
    yield name
    for path in (SHM / name, SHM / f"CPU_{name}"):
        path.unlink(missing_ok=True)


def test_a_machine_is_listed_and_its_uri_opens_it(folder: Path) -> None:
    with simulated(build(folder), {CODE: 0x3E000}) as machine:
        where = {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", LIST, machine.name]
        done = subprocess.run(command, env={**os.environ, **where}, capture_output=True, text=True, check=True)
    reason, user, abilities, can = json.loads(done.stdout)
    assert (reason, user) == ("", os.geteuid())
    assert abilities == can & ~OPEN_ONLY


def test_without_the_library_the_reason_is_that_of_the_opening(folder: Path) -> None:
    with simulated(build(folder), {CODE: 0x3E000}) as machine:
        (one,) = [item for item in list_vms("virtualbox") if item.name == machine.name]
        with pytest.raises(MicrovmiError) as caught:
            Microvmi.open(one.uri)
    assert (one.reason, one.abilities) == (str(caught.value), 0)


def test_files_of_others_are_no_machines(leftover: str) -> None:
    for name, size in ((leftover, CHANNEL_SIZE), (f"CPU_{leftover}", CPU_SIZE + 1)):
        (SHM / name).touch(mode=0o600)
        os.truncate(SHM / name, size)
    assert leftover not in {machine.name for machine in list_vms("virtualbox")}


def test_what_others_could_write_is_listed_with_that_reason(leftover: str) -> None:
    for name, size in ((leftover, CHANNEL_SIZE), (f"CPU_{leftover}", CPU_SIZE)):
        (SHM / name).touch()
        os.truncate(SHM / name, size)
        (SHM / name).chmod(0o666)
    (one,) = [machine for machine in list_vms("virtualbox") if machine.name == leftover]
    assert "other users can write it" in one.reason
    assert one.abilities == 0
