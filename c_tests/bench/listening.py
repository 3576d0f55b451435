# SPDX-License-Identifier: Apache-2.0
"""What events of a QEMU guest cost, beside the bare loop at its debugger's stub that stub_loop.c is.

The guest has two processes that take turns: each turn is a change of the address space.

listening.py PACKAGE DIRECTORY STUB_LOOP LISTEN SECONDS
    prints pairs (see bench.h), in ns per event
"""

from __future__ import annotations

import functools
import importlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import pairs
from live.guest import Guest, obtain_boot

TURNS, FEW_TURNS = 2000, 150
"""Of a round; those with breakpoints are slow."""

ONE = ("-smp", "1")
"""Two that stop at the same moment are more than a bare loop takes account of."""

PAIR = "/switcher 0 &\n"

GUESTS = 3
"""That are tried."""

FROM_C, FROM_PYTHON, WATCHED, BREAKPOINT = NAMES = (
    "changes of CR3, from C",
    "changes of CR3, from Python",
    "changes of CR3, watched",
    "breakpoint",
)

SWITCH = "__switch_to_asm"
"""A function that each turn passes once."""

PATIENCE = 20.0


class StuckError(Exception):
    """A guest that the bare loop left in a state in which it does nothing any more."""


class Places:
    """Where the guest is stopped by the bare loop: what each turn writes and where it passes, in hexadecimal."""

    def __init__(self, package: Any, guest: Guest) -> None:
        with package.Microvmi.open(guest.uri) as machine:
            kernel = importlib.import_module("libmicrovmi_py.linux.kernel").Kernel.find(machine)
            table, variable = (kernel.symbols.address(name) for name in ("__per_cpu_offset", "cpu_tlbstate"))
            self.vcpus = machine.vcpu_count()
            bases = (kernel.space.read_virtual(table + 8 * vcpu, 8) for vcpu in range(self.vcpus))
            self.variables = [f"{(int.from_bytes(base, 'little') + variable) % (1 << 64):x}" for base in bases]
            self.switch = f"{kernel.symbols.address(SWITCH):x}"


class Rounds:
    """Ways to listen, each of which has the guest take so many turns and tells the nanoseconds of one event."""

    def __init__(self, package: Any, guest: Guest, programs: tuple[str, str]) -> None:
        self._package = package
        self._guest = guest
        self._stub_loop, self._listen = programs
        self._switcher: Any = importlib.import_module("live.switching").Switcher(guest, 0)
        self.places = Places(package, guest)

    def bare(self, turns: int, way: str, *addresses: str) -> float:
        """By the stub alone."""
        path = self._guest.directory / "stub"
        path.unlink(missing_ok=True)
        self._guest.monitor.human(f"gdbserver unix:{path},server=on,wait=off")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            number = connection.fileno()
            command = [self._stub_loop, str(number), str(self.places.vcpus), str(turns), way, *addresses]
            try:
                taken = self._run(turns, command, (number,))
            except RuntimeError as err:
                raise StuckError(str(err)) from err
        self._guest.monitor.human("gdbserver none")
        for order in ("stop", "cont"):  # whatever a step left behind
            self._guest.monitor.execute(order)
        self._await_done()
        return taken

    def _await_done(self) -> None:
        try:
            self._switcher.await_done()
        except AssertionError as err:
            raise StuckError(str(err)) from err

    def by_program(self, turns: int, way: str, *addresses: str) -> float:
        """By the library, from C."""
        taken = self._run(turns, [self._listen, self._guest.uri, str(turns), way, *addresses])
        self._switcher.await_done()
        return taken

    def _run(self, turns: int, command: Sequence[str], descriptors: tuple[int, ...] = ()) -> float:
        with subprocess.Popen(command, pass_fds=descriptors, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            if running.stdout.readline() != "ready\n":
                raise RuntimeError(f"{Path(command[0]).name} does not begin")
            self._switcher.order(turns + turns // 10)
            events, *_, taken = map(int, running.stdout.readline().split())
        if events < turns:
            raise RuntimeError(f"{Path(command[0]).name}: {events} of {turns} events")
        return taken / (events - 1)

    def by_python(self, turns: int) -> float:
        """Changes of CR3 by the library, from Python."""
        events: Any = importlib.import_module("libmicrovmi_py.events")
        with self._package.Microvmi.open(self._guest.uri) as machine:
            machine.toggle_intercept(events.Intercept(events.EventKind.CR, 3))
            self._switcher.order(turns + turns // 10)
            first = 0
            for _ in range(turns):
                event = machine.listen(PATIENCE)
                last = time.perf_counter_ns()
                first = first or last
                machine.reply_event(event)
        self._switcher.await_done()
        return (last - first) / (turns - 1)

    def close(self) -> None:
        """The guest's memory is not looked at any more."""
        self._switcher.close()


def ways(rounds: Rounds) -> dict[str, tuple[Callable[[], float], Callable[[], float]]]:
    """By name: ours, and the partner."""
    change = functools.partial(rounds.by_program, TURNS, "cr3")
    watch = functools.partial(rounds.bare, TURNS, "watch", *rounds.places.variables)
    return {
        FROM_C: (change, watch),
        FROM_PYTHON: (functools.partial(rounds.by_python, TURNS), watch),
        WATCHED: (change, functools.partial(rounds.by_program, FEW_TURNS, "every")),
        BREAKPOINT: (
            functools.partial(rounds.by_program, FEW_TURNS, "break", rounds.places.switch),
            functools.partial(rounds.bare, FEW_TURNS, "break", rounds.places.switch),
        ),
    }


def measured(library: Any, folder: Path, programs: tuple[str, str], name: str, seconds: float) -> pairs.Samples:
    """A pair on a guest of its own, and on another one if that gets stuck."""
    switching: Any = importlib.import_module("live.switching")
    for left in reversed(range(GUESTS)):
        with switching.switching_guest(obtain_boot(folder), folder, options=ONE, setup=PAIR) as guest:
            rounds = Rounds(library, guest, programs)
            try:
                return pairs.take_turns(*ways(rounds)[name], seconds)
            except StuckError:
                if not left:
                    raise
            finally:
                rounds.close()
    raise AssertionError


def main(package: str, directory: str, stub_loop: str, listen: str, seconds: str) -> None:
    sys.path.insert(0, package)
    os.environ.setdefault("PATH", os.defpath)  # for the compiler, which makes the guest's program
    library: Any = importlib.import_module("libmicrovmi_py")
    for name in NAMES:
        samples = measured(library, Path(directory), (stub_loop, listen), name, float(seconds))
        pairs.print_pair(f"events {name}", samples)


if __name__ == "__main__":
    main(*sys.argv[1:])
