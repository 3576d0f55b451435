# SPDX-License-Identifier: Apache-2.0
"""Bugs of ``microvmi events``, of the debugger's places and of the examples that listen."""

from __future__ import annotations

from mutants.mutant import Mutant

COMMAND = "libmicrovmi_py/command"
EVENTS, ENDING = f"{COMMAND}/subcommands/events.py", f"{COMMAND}/ending.py"
LINES, INTERCEPTS = f"{COMMAND}/eventlines.py", f"{COMMAND}/intercepts.py"
PLACES = "libmicrovmi_py/tools/gdb/places.py"
LISTENING, ENDS = "c_tests/examples/listening.h", "c_tests/examples/ending.h"

TOLD = "tests/command/test_command_events.py::test_"
PLACED = "tests/tools/gdb/test_gdb_places.py::test_"
EXAMPLES = "tests/examples/test_listening_examples.py::"

MUTANTS = (
    Mutant(
        EVENTS,
        "        if any(happened & select.POLLERR for _, happened in self._reader.poll(0)):\n",
        "        if False:\n",
        "who waits for what never happens is not ended by the end of his reader",
        (f"{TOLD}it_ends_when_its_reader_does_though_nothing_happens",),
    ),
    Mutant(
        EVENTS,
        "        if event.stands is not Stands.NOTHING:\n",
        "        if True:\n",
        "what waits for no answer is answered",
        (f"{TOLD}cr3_is_told_in_three_ways[way2-None]",),
    ),
    Mutant(
        EVENTS,
        "        left = None if left is None else left - 1\n",
        "",
        "the count is no limit",
        (f"{TOLD}cr3_is_told_in_three_ways[way0-0]",),
    ),
    Mutant(
        ENDING,
        "            signal.signal(number, lambda came, _: noted.append(came))\n",
        "            signal.signal(number, signal.SIG_IGN)\n",
        "a signal is not noticed while events are listened to",
        (f"{TOLD}a_signal_ends_it_between_two_events_and_not_within_one",),
    ),
    Mutant(
        LINES,
        "    vcpu = None if event.vcpu == UNKNOWN_VCPU else event.vcpu\n",
        "    vcpu = event.vcpu\n",
        "a vCPU that is not known is told by a number",
        (f"{TOLD}cr3_is_told_in_three_ways[way2-None]",),
    ),
    Mutant(
        INTERCEPTS,
        "        flags = InterceptFlag.EVERY_WRITE\n",
        "        pass\n",
        "every write is asked for and changes are told",
        (),
        why="the made-up machine tells both alike; tests/live/test_events_command.py has the difference",
    ),
    Mutant(
        PLACES,
        "        if intercept not in self._placed.values():\n",
        "        if False:\n",
        "nothing is placed",
        (f"{PLACED}a_watchpoint_stops_behind_an_access",),
    ),
    Mutant(
        PLACES,
        "        if intercept is not None and all(self._placed[other] != intercept for other in others):\n",
        "        if intercept is not None:\n",
        "a breakpoint goes with another one at the same address",
        (f"{PLACED}two_of_one_address_are_removed_one_by_one",),
    ),
    Mutant(
        LISTENING,
        "    if (event->stands != MICROVMI_STANDS_NOTHING && !microvmi_reply_event(vm, event, NULL)) {\n",
        "    if (!microvmi_reply_event(vm, event, NULL)) {\n",
        "what waits for no answer is answered",
        (f"{EXAMPLES}TestCr3Watch::test_observes_without_a_vcpu_and_without_an_answer",),
    ),
    Mutant(
        ENDS,
        "{SIGINT, SIGTERM, SIGHUP, SIGPIPE}",
        "{SIGINT, SIGTERM, SIGHUP}",
        "a reader who goes leaves a guest stopped",
        (f"{EXAMPLES}test_a_reader_who_goes_ends_it[trace]",),
    ),
)
