# SPDX-License-Identifier: Apache-2.0
"""The table in docs/changes.md of what each call says of a machine to which others did something while it was open.

It is made of what is seen on real QEMUs. ``PYTHONPATH=.:tests build/venv/bin/python -m live.change_table`` writes it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import AccessError, MicrovmiError, NotMappedError, NotSupportedError, VmGoneError

from .changes import AFTER, BEFORE, EVENTS, MIB, NOT_PAUSED, TABLES, Event, Stage, staged
from .packages import ROOT

PAGE = ROOT / "docs" / "changes.md"
_BEGIN, _END = "<!-- changes: tests/live/change_table.py -->\n", "<!-- end of changes -->\n"
AT_ONCE = 8
SIZE = len(BEFORE)

Call = Callable[[Microvmi, Event], str]


def told(content: bytes) -> str:
    """What was read, in a word."""
    words = {BEFORE: "old", AFTER: "new", bytes(SIZE): "zeros"}
    return words.get(content, f"garbage {content!r}")


def said(err: MicrovmiError) -> str:
    """An error, in a word."""
    if isinstance(err, NotMappedError):
        return "no memory"
    if isinstance(err, VmGoneError):
        return "VM gone"
    if isinstance(err, NotSupportedError):
        return "-"
    return "I/O error" if isinstance(err, AccessError) else "refused"


def attempt(call: Callable[[], str]) -> str:
    try:
        return call()
    except MicrovmiError as err:
        return said(err)


def read(machine: Microvmi, event: Event) -> str:
    return told(machine.read_physical(event.address, SIZE))


def padded(machine: Microvmi, event: Event) -> str:
    buffer = bytearray(SIZE)
    machine.read_physical_padded_into(event.address, buffer)
    return told(bytes(buffer))


def stream(machine: Microvmi, event: Event) -> str:
    machine.memory.seek(event.address)
    content = machine.memory.read(SIZE)
    return told(content) if content else "the end"


def virtual(machine: Microvmi, event: Event) -> str:
    return told(machine.address_space(TABLES).read_virtual(0, SIZE))


def registers(machine: Microvmi, event: Event) -> str:
    machine.read_registers(0)
    return "told"


def write(machine: Microvmi, event: Event) -> str:
    machine.write_physical(event.address + 64, b"written")
    return "done" if machine.read_physical(event.address + 64, 7) == b"written" else "lost"


def memory_map(machine: Microvmi, event: Event) -> str:
    there = any(item.start <= event.address < item.start + item.size for item in machine.memory_map())
    return f"{'' if there else 'not '}there, {machine.max_addr // MIB} MiB"


def pause(machine: Microvmi, event: Event) -> str:
    machine.pause()
    return "done"


def resume(machine: Microvmi, event: Event) -> str:
    machine.resume()
    return "done"


READS: dict[str, Call] = {"read": read, "padded read": padded, "stream": stream, "virtual": virtual}
ASKING: dict[str, Call] = {
    "registers": registers,
    "write": write,
    "memory map": memory_map,
    "pause": pause,
    "resume": resume,
}
COLUMNS = (*READS, "pointer", *(f"{name}, then read" for name in ASKING))


class Seen:
    """A machine before the event: opened, paused if it is to be, and with everything read once."""

    def __init__(self, event: Event, stage: Stage, *, paused: bool) -> None:
        self.event = event
        self.machine = stage.stack.enter_context(_closed(Microvmi.open(stage.guest.uri)))
        if paused:
            self.machine.pause()
        for call in READS.values():
            attempt(partial(call, self.machine, event))
        self.pointer: memoryview | None = None
        with suppress(MicrovmiError):
            self.pointer = self.machine.map_physical(event.address, SIZE)

    def call(self, call: Call) -> str:
        return attempt(partial(call, self.machine, self.event))

    def at_pointer(self) -> str:
        return told(bytes(self.pointer)) if self.pointer is not None else "-"


@contextmanager
def _closed(machine: Microvmi) -> Iterator[Microvmi]:
    """A machine that is closed at the end, whatever that says."""
    try:
        yield machine
    finally:
        with suppress(MicrovmiError):
            machine.close()


def cells_of(event: Event, folder: Path, firsts: Sequence[str], *, shared: bool, paused: bool) -> list[str]:
    """The cells that one guest gives: those of the reads, and of calls each followed by a read, by a context each."""
    with staged(event, folder, shared=shared) as stage:
        machines = {first: Seen(event, stage, paused=paused) for first in firsts}
        event.happen(stage)
        found = []
        for first, seen in machines.items():
            if first == "read":
                found += [*(seen.call(call) for call in READS.values()), seen.at_pointer()]
            else:
                found.append(f"{seen.call(ASKING[first])}; {seen.call(read)}")
        return found


def rows() -> dict[str, tuple[Event, bool]]:
    """The rows: events, and whether we keep the machine paused."""
    found = {}
    for name, event in EVENTS.items():
        found[name] = event, False
        if not name.startswith(NOT_PAUSED):
            found[f"{name}, while we keep it paused"] = event, True
    return found


ROWS = rows()


Cells = list[str]


def look(folder: Path, pool: ThreadPoolExecutor) -> dict[str, tuple[Future[Cells], Future[Cells]]]:
    """Begin to see what is seen, row by row: of private, and of shared memory."""
    return {
        row: (
            pool.submit(seen_of, event, folder, shared=False, paused=paused),
            pool.submit(seen_of, event, folder, shared=True, paused=paused),
        )
        for row, (event, paused) in ROWS.items()
    }


def seen_of(event: Event, folder: Path, *, shared: bool, paused: bool) -> Cells:
    """The cells of a row. Who keeps a machine paused has it for himself; those that run serve all calls."""
    calls = ("read", *ASKING)
    guests: Iterable[Sequence[str]] = [[name] for name in calls] if paused else [calls]
    found = (cells_of(event, folder, firsts, shared=shared, paused=paused) for firsts in guests)
    return [cell for cells in found for cell in cells]


def cells(private: Cells, shared: Cells) -> Cells:
    """Both in one row: what is seen of shared memory is told where it is something else."""
    return [one if one == other else f"{one} (shared: {other})" for one, other in zip(private, shared, strict=True)]


def line(row: str, found: Cells) -> str:
    """A line of the table."""
    return f"| {row} | {' | '.join(found)} |\n"


def table(found: Mapping[str, Cells]) -> str:
    """The whole table."""
    head = f"| | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}\n"
    return head + "".join(line(row, row_cells) for row, row_cells in found.items())


def shown() -> str:
    """The table of the page."""
    return PAGE.read_text().partition(_BEGIN)[2].partition(_END)[0]


def main() -> None:
    """Write the table into the page."""
    with tempfile.TemporaryDirectory(prefix="mvc-") as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        seen = look(Path(folder), pool)
        found = {row: cells(private.result(), shared.result()) for row, (private, shared) in seen.items()}
    before, _, rest = PAGE.read_text().partition(_BEGIN)
    PAGE.write_text(f"{before}{_BEGIN}{table(found)}{_END}{rest.partition(_END)[2]}")


if __name__ == "__main__":
    main()
