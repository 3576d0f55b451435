# SPDX-License-Identifier: Apache-2.0
"""Show what a machine does, as it does it: switches of processes, writes of registers, breakpoints, accesses to memory.

Each event is a line; the guest waits while it is written and then does what it was about to. What is not named is
changes of the address space, which are switches between processes. Places are addresses, or names of a Linux guest's
kernel, which tells the processes too:

  microvmi events debian --breakpoint do_sys_openat2 --watch jiffies_64

Whatever ends this (Ctrl-C, the reader of a pipe who goes), the guest then runs as if nobody had listened.
"""

from __future__ import annotations

import argparse
import json
import select
import sys
import time

from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.command import ending, eventlines, kit
from libmicrovmi_py.command.guestnames import GuestNames
from libmicrovmi_py.command.intercepts import asked, intercept_arguments
from libmicrovmi_py.declare import Protocol
from libmicrovmi_py.drivers.control import Phase, SupportsPause
from libmicrovmi_py.errors import NotSupportedError, escaped
from libmicrovmi_py.events import Stands
from libmicrovmi_py.machine.microvmi import Microvmi

_LOOK = 0.1
"""Seconds between two looks at signals and at the reader of standard output."""

_KEPT = 0.05
"""Seconds that a line may wait for others that it is written with."""


class Looks(Protocol):
    """Raises what ends the command, if a signal came."""

    def __call__(self) -> None: ...


def arguments(parser: argparse.ArgumentParser) -> None:
    """The machine, what is told, and when it ends."""
    kit.machine_argument(parser)
    intercept_arguments(parser)
    parser.add_argument("--count", metavar="N", type=kit.size, help="end after so many events")
    text = "end after this time"
    parser.add_argument("--for", dest="time", metavar="SECONDS", type=kit.seconds, help=text)
    parser.add_argument("--no-symbols", action="store_true", help="look for no Linux kernel, and name nothing")
    parser.add_argument("--json", action="store_true", help="print a JSON document a line, one for each event")


def run(options: argparse.Namespace) -> int:
    """Listen, and print."""
    with kit.opened(options) as machine:
        _check(machine)
        names = GuestNames(None, "--no-symbols was asked for") if options.no_symbols else GuestNames.of(machine)
        wanted = asked(options, names, machine.vcpu_count())
        with ending.noted_signals() as look:
            for item in wanted:
                machine.toggle_intercept(item.intercept, vcpu=item.vcpu)
                look()
            _say_if_it_stands(machine)
            _listen(machine, options, names, look)
    return 0


def _check(machine: Microvmi) -> None:
    """Raise before anything else is looked at; what a machine cannot in particular is told by the intercept."""
    able = machine.abilities
    if Ability.EVENTS not in able.can:
        reason = able.events.why_not or "it has no events"
        raise NotSupportedError(f"the {machine.driver.name} driver cannot intercept events: {reason}")


def _say_if_it_stands(machine: Microvmi) -> None:
    driver = machine.driver
    if isinstance(driver, SupportsPause) and driver.run_state().phase is Phase.STOPPED:
        kit.say("the machine is paused: it tells of events when somebody lets it run")


def _listen(machine: Microvmi, options: argparse.Namespace, names: GuestNames, look: Looks) -> None:
    """Until enough events came, the time is over, a signal asks for an end, or nobody reads any more."""
    start = time.monotonic()
    end = None if options.time is None else start + options.time
    output = _Output()
    left = options.count
    while left != 0 and (end is None or time.monotonic() < end):
        event = machine.listen(output.patience)
        look()
        if event is None:
            output.rest()
            continue
        told = eventlines.document(event, names, time.monotonic() - start)
        output.write(json.dumps(told) if options.json else escaped(eventlines.line(told)))
        if event.stands is not Stands.NOTHING:
            machine.reply_event(event)
        left = None if left is None else left - 1


class _Output:
    """Lines on standard output: written soon, but not each by itself, and to somebody."""

    def __init__(self) -> None:
        self._written = time.monotonic()
        self._waiting = False
        self._reader = select.poll()
        self._reader.register(sys.stdout.fileno(), 0)

    @property
    def patience(self) -> float:
        """Seconds that the next event may be waited for."""
        return _KEPT if self._waiting else _LOOK

    def write(self, text: str) -> None:
        """A line. Raises ``OSError``."""
        print(text)
        self._waiting = True
        if time.monotonic() - self._written >= _KEPT:
            self._flush()

    def rest(self) -> None:
        """Nothing has come. Raises ``BrokenPipeError`` if nobody reads what may come."""
        self._flush()
        if any(happened & select.POLLERR for _, happened in self._reader.poll(0)):
            raise BrokenPipeError

    def _flush(self) -> None:
        sys.stdout.flush()
        self._written, self._waiting = time.monotonic(), False
