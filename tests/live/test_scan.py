# SPDX-License-Identifier: Apache-2.0
"""microvmi scan over live guests: each is told once whatever happens to workers, and is left as it was."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import scanned
from .firmware import Firmware, firmware, need_qemu, open_folder

FUNCTIONS = Path(__file__).parent / "scan_functions.py"
LONG = os.environ.get("MICROVMI_LONG") == "1"
COUNT = 50 if LONG else 12
LARGE = 128
"""MiB of one of the guests."""
GROWTH = 16 << 10
"""KiB that a worker's memory may grow by however many guests it scans, and however large they are."""


@pytest.fixture(scope="module")
def fleet() -> Iterator[list[Firmware]]:
    need_qemu()
    with open_folder() as folder, scanned.guests(folder, COUNT, LARGE) as found:
        yield found


def documents(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_a_worker_is_killed_in_the_middle_and_every_guest_is_scanned_once(
    fleet: list[Firmware], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log, gate = tmp_path / "log", tmp_path / "gate"
    names = [guest.name for guest in fleet]
    chosen = names[COUNT // 2]
    with scanned.workers(tmp_path) as dask:
        started = {process.pid: process for process in (dask.worker() for _ in range(3))}
        scanned.until(lambda: (tmp_path / "workers.log").read_text().count("Registered to") >= 3, "three workers")
        words = (f"{FUNCTIONS}:held", log, gate, chosen)
        with scanned.scan("--scheduler", dask.address, "--only", scanned.names_of(fleet), *words) as run:
            scanned.until(lambda: log.exists() and f" {chosen}\n" in log.read_text(), "worker in the middle")
            killed = next(int(line.split()[0]) for line in log.read_text().splitlines() if line.endswith(f" {chosen}"))
            started[killed].kill()
            gate.touch()
            output, said = run.communicate(timeout=300)
    found = documents(output)
    assert run.returncode == 0, said
    assert sorted(document["name"] for document in found) == names
    assert all(document["result"]["marked"] == document["name"] for document in found)
    assert len({document["process_id"] for document in found}) == COUNT
    tried = Counter(line.split()[1] for line in log.read_text().splitlines())
    assert {name: count for name, count in tried.items() if count != 1} == {chosen: 2}
    assert next(item for item in found if item["name"] == chosen)["result"]["worker"] != killed
    assert said.strip().endswith(f"microvmi: {COUNT} of {COUNT} machines scanned")
    flat(found)


def flat(found: list[dict[str, Any]]) -> None:
    """No worker's memory grew by more than it may, and the large guest was read as a whole."""
    assert max(item["result"]["filled"] for item in found) >= LARGE << 19
    grown = {}
    for worker in {item["result"]["worker"] for item in found}:
        sizes = [item["result"]["resident"] for item in found if item["result"]["worker"] == worker]
        grown[worker] = max(sizes) - sizes[0]
    print(f"KiB that {len(grown)} workers grew by, over {len(found)} guests: {sorted(grown.values())}")
    assert max(grown.values()) < GROWTH


def test_without_a_scheduler_processes_of_this_host_scan_its_machines(fleet: list[Firmware]) -> None:
    words = (
        "--workers",
        "2",
        "--only",
        scanned.names_of(fleet[:1]),
        "pattern",
        f"{fleet[0].name}!",
        "hex:f1f1??f1",
    )
    with scanned.scan("--most", "2000", *words) as run:
        output, said = run.communicate(timeout=120)
    found = {document["name"]: document for document in documents(output)}
    assert (run.returncode, len(found)) == (0, COUNT), said
    assert found[fleet[0].name]["result"] == [{"address": f"{scanned.MARKED:#x}", "pattern": f"{fleet[0].name}!"}]
    assert found[fleet[1].name]["result"] == []
    assert found[fleet[-1].name]["more"] is True
    assert not any(guest.runs() for guest in fleet[:3])


def test_without_dask_one_machine_is_scanned_after_the_other(fleet: list[Firmware]) -> None:
    with scanned.scan("--only", scanned.names_of(fleet), "hashes", dask=False) as run:
        output, said = run.communicate(timeout=120)
    assert (run.returncode, len(documents(output))) == (0, COUNT), said
    assert "pip install distributed" in said
    with scanned.scan("--scheduler", "tcp://127.0.0.1:1", "hashes", dask=False) as run:
        output, said = run.communicate(timeout=60)
    assert (run.returncode, output) == (1, "")
    assert re.fullmatch(
        r"microvmi: distributed is not installed for this Python: .* -m pip install distributed\n", said
    )


def test_a_machine_that_cannot_be_scanned_is_a_line_and_the_exit_code_says_so(tmp_path: Path) -> None:
    image = tmp_path / "image.raw"
    image.write_bytes(b"A" * 4096)
    words = ("--machine", image, "--machine", tmp_path / "absent.raw", "pattern", "hex:41??4141")
    with scanned.scan("--most", "100", *words, dask=False) as run:
        output, said = run.communicate(timeout=60)
    good, bad = documents(output)
    assert (run.returncode, "error" in good, good["more"], "absent.raw" in bad["error"]) == (1, False, True, True), said
    assert said.endswith("microvmi: 1 of 2 machines scanned\n")


@pytest.mark.parametrize(("number", "dask"), [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGINT, False)])
def test_a_scan_that_is_ended_leaves_the_guest_running(number: signal.Signals, dask: bool) -> None:
    with open_folder() as folder:
        monitor = f"unix:{folder / 'qmp'},server=on,wait=off"
        flag = folder / "flag"
        with firmware(folder, "-qmp", monitor, mib=8) as guest:
            words = ("--pause", "--workers", "2", "--only", guest.name, f"{FUNCTIONS}:sleeping", flag)
            with scanned.scan(*words, dask=dask) as run:
                scanned.until(lambda: flag.exists() and flag.read_text(), "function that has begun")
                assert not guest.runs()
                run.send_signal(number)
                _, said = run.communicate(timeout=60)
            assert guest.runs()
            assert run.returncode == -number
            assert "Traceback" not in said


def test_a_worker_that_is_ended_in_order_leaves_the_guest_running(tmp_path: Path) -> None:
    """Dask does not wait for what its threads do, and kills a worker that does not end in time."""
    with open_folder() as folder, scanned.workers(tmp_path) as dask:
        monitor, flag = f"unix:{folder / 'qmp'},server=on,wait=off", folder / "flag"
        with firmware(folder, "-qmp", monitor, mib=8) as guest:
            worker = dask.worker("--nanny")
            words = ("--pause", "--only", guest.name, f"{FUNCTIONS}:sleeping", flag)
            with scanned.scan("--scheduler", dask.address, *words) as run:
                scanned.until(lambda: flag.exists() and flag.read_text(), "function that has begun")
                assert not guest.runs()
                worker.terminate()
                scanned.until(guest.runs, "guest that runs again")
                run.terminate()
                run.communicate(timeout=60)


INTRUDER = """
from libmicrovmi_py.tools.scan.cluster import connected, library
distributed = library()
if __name__ == "__main__":
    with connected(distributed, None, 1, 60) as cluster:
        found = [cluster._client.scheduler.address, *cluster.workers()]
        print({address.partition(":")[0] for address in found})
        try:
            distributed.Client(found[0].replace("tls:", "tcp:"), timeout=2)
        except OSError as err:
            print("refused")
"""


def test_processes_of_this_host_take_orders_of_nobody_else(tmp_path: Path) -> None:
    """Any user of the host can connect to their ports, and Dask runs what it is sent."""
    program = tmp_path / "intruder.py"
    program.write_text(INTRUDER)
    command = [sys.executable, str(program)]
    environment = scanned.environment()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "{'tls'}\nrefused\n", done.stderr


def test_a_scheduler_that_is_not_there_is_one_line() -> None:
    with scanned.scan("--scheduler", "tcp://127.0.0.1:1", "--timeout", "1", "hashes") as run:
        output, said = run.communicate(timeout=60)
    assert (run.returncode, output, said.count("\n")) == (1, "", 1)
    assert said.startswith("microvmi: there is no scheduler at tcp://127.0.0.1:1")
