# SPDX-License-Identifier: Apache-2.0
"""The drivers that docs/drivers.md shows: one keeps the contract, as a plugin of somebody else, one has events."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from libmicrovmi_py import EventKind, Intercept, Microvmi, Reply, ReplyAction
from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.events import EventAbilities, InterceptFlag, Stands, Stop

ROOT = Path(__file__).resolve().parents[2]

STAND = """
from contract.target import Target

def stand(folder):
    yield Target("vmi://mine/?host=here", {0: b"\\x11" * (1 << 20)}, writable=False)
"""


def example(title: str = "## Write one") -> str:
    """The first Python block of a section."""
    section = (ROOT / "docs" / "drivers.md").read_text().partition(f"\n{title}\n")[2]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


class Told(NamedTuple):
    """What the hypervisor of the example tells of a write to a control register."""

    vcpu: int
    cr: int
    value: int


class Hypervisor:
    """The one that the example speaks to: what it tells, and what it was told."""

    def __init__(self) -> None:
        self.tells: deque[Told] = deque()
        self.told: list[tuple[object, ...]] = []

    def watch_cr(self, number: int, vcpus: frozenset[int]) -> None:
        self.told.append(("watch", number, set(vcpus)))

    def next(self, timeout: float) -> Told | None:
        return self.tells.popleft() if self.tells else None

    def answer(self, told: Told, *, deny: bool, registers: object) -> None:
        self.told.append(("deny" if deny else "continue", told.value))

    def held(self) -> AbstractContextManager[None]:
        return nullcontext()

    def hang_up(self) -> None:
        self.told.append(("hang up",))


def with_events() -> tuple[Driver, Hypervisor]:
    """A driver made of both examples, and what it speaks to."""
    names: dict[str, Any] = {}
    exec(example(), names)
    used = (EventAbilities, EventKind, InterceptFlag, ReplyAction, Stands, Stop)
    words = {**{word.__name__: word for word in used}, "Driver": names["Mine"]}
    exec(example("### Telling events"), words)
    made = type("Mine", (words["Mine"],), {"vcpu_count": lambda self: 1})("here")
    made._hypervisor = hypervisor = Hypervisor()
    assert isinstance(made, Driver)
    return made, hypervisor


def test_the_example_keeps_the_contract(tmp_path: Path) -> None:
    for folder, text in (("plugins", example()), ("stands", STAND)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(text)
    places = {"MICROVMI_PLUGIN_PATH": f"{tmp_path}/plugins", "MICROVMI_STANDS": f"{tmp_path}/stands"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "mine", "tests/contract"]
    done = subprocess.run(
        [*command, f"--basetemp={tmp_path}/t"], env={**os.environ, **places}, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 80


def test_the_example_of_events_is_told_and_answered() -> None:
    driver, hypervisor = with_events()
    with Microvmi.from_driver(driver) as machine:
        machine.toggle_intercept(Intercept(EventKind.CR, 3))
        hypervisor.tells += (Told(0, 3, 0x1000), Told(0, 3, 0x2000))
        event = machine.listen(5)
        assert event is not None
        assert (event.kind, event.number, event.new_value) == (EventKind.CR, 3, 0x1000)
        machine.reply_event(event, Reply(ReplyAction.DENY))
    answers = [("watch", 3, {0}), ("deny", 0x1000), ("watch", 3, set()), ("continue", 0x2000), ("hang up",)]
    assert hypervisor.told == answers
