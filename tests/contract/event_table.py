# SPDX-License-Identifier: Apache-2.0
"""The table in docs/drivers.md of what drivers stop a guest at, with which flags, what stands then, and the answers.

It is made of the drivers' own data, of machines whose hypervisor has everything that the driver knows: those of the
contract test's stands. ``PYTHONPATH=.:tests build/venv/bin/python -m contract.event_table`` writes it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from libmicrovmi_py import EventKind, Microvmi
from libmicrovmi_py.drivers.base import SupportsEvents
from libmicrovmi_py.events import Breakpoints, EventAbilities, InterceptFlag, Stands

PAGE = Path(__file__).resolve().parents[2] / "docs" / "drivers.md"

_BEGIN, _END = "<!-- events: tests/contract/event_table.py -->\n", "<!-- end of events -->\n"

_FORMS = {Breakpoints.OWN: "the guest's own", Breakpoints.PLACED: "at an address"}
_STANDS = {Stands.VCPU: "the vCPU", Stands.MACHINE: "the machine"}


def row(name: str, can: EventAbilities) -> str:
    """The line of a driver."""
    return f"| {name} | {' | '.join((_STANDS[can.stands], *(_cell(kind, can) for kind in EventKind)))} |\n"


def _cell(kind: EventKind, can: EventAbilities) -> str:
    if kind not in can.kinds:
        return "no"
    answers = ", ".join(action.name for action in sorted(can.kinds[kind]))
    flags = [flag.name or "" for flag in InterceptFlag if flag & can.flags.get(kind, InterceptFlag.NONE)]
    with_flags = "; ".join(filter(None, [answers, ", ".join(flags)]))
    if kind is not EventKind.BREAKPOINT:
        return with_flags
    return f"{' and '.join(_FORMS[form] for form in Breakpoints if form in can.breakpoints)}: {with_flags}"


def table(rows: Mapping[str, EventAbilities]) -> str:
    """All of it, by the drivers' names."""
    head = f"| driver | stands | {' | '.join(kind.name for kind in EventKind)} |\n|{'---|' * (2 + len(EventKind))}\n"
    return head + "".join(row(name, rows[name]) for name in sorted(rows))


def documented(text: str) -> str:
    """What stands in the page."""
    return text.partition(_BEGIN)[2].partition(_END)[0]


def collected() -> Iterator[tuple[str, EventAbilities]]:
    """What the machines of the stands tell."""
    from contract.stock import provoking

    for stand in provoking().values():
        made, folders = contextmanager(stand), tempfile.TemporaryDirectory()
        with folders as folder, made(Path(folder)) as target, Microvmi.open(target.uri) as machine:
            assert isinstance(machine.driver, SupportsEvents)
            yield machine.driver.name, machine.driver.event_abilities


if __name__ == "__main__":
    page = PAGE.read_text()
    PAGE.write_text(page.replace(_BEGIN + documented(page), _BEGIN + table(dict(collected()))))
