# SPDX-License-Identifier: Apache-2.0
"""Bugs of what undoes what a killed process left in QEMU: the watcher, and the next opening."""

from __future__ import annotations

from mutants.mutant import Mutant

EVENTS, PAUSE = "libmicrovmi_py/_native/watcher_events.c", "libmicrovmi_py/_native/watcher_pause.c"
MONITOR = "libmicrovmi_py/_native/watcher_monitor.c"
OPENING, LATE = "libmicrovmi_py/drivers/qemu/events/opening.py", "libmicrovmi_py/drivers/qemu/late.py"
PAUSING = "libmicrovmi_py/drivers/qemu/pausing.py"

KILLED = "tests/live/test_events_killed.py::test_"
PAUSED = "tests/live/test_pause_watched.py::test_"
ANSWERED = "tests/transport/test_watcher_answers.py::test_so_it_is_"

MUTANTS = (
    Mutant(
        EVENTS,
        """        if (!ask("?"))\n            return false;\n""",
        "",
        "what is placed stays there when its program is killed",
        (f"{KILLED}killed_at_any_moment_the_guest_runs_on",),
    ),
    Mutant(
        EVENTS,
        "        return machine->runs && machine->interrupted;\n",
        "        return machine->runs;\n",
        "a machine runs that somebody else has paused, when a program is killed",
        (f"{KILLED}what_somebody_else_has_paused_later_stays_paused",),
    ),
    Mutant(
        EVENTS,
        "((runs || held) && !unmark_all())",
        "(runs && !unmark_all())",
        "a machine that its program had paused stands as by a debugger when that is killed",
        (f"{KILLED}what_its_program_has_paused_stays_paused",),
    ),
    Mutant(
        LATE,
        "            heal(client)\n",
        "            pass\n",
        "what a killed watcher has not undone stays there",
        (f"{KILLED}what_its_watcher_did_not_live_to_undo_the_next_opening_undoes",),
    ),
    Mutant(
        PAUSE,
        """    if (watch_has("\\"status\\":\\"paused\\""))\n        watch_ask(monitor, WATCH_EXECUTE("cont"));\n""",
        "",
        "a machine stays paused though its program asked for a watcher",
        (f"{PAUSED}of_a_killed_program_that_asked_for_it_the_machine_runs",),
    ),
    Mutant(
        PAUSING,
        "        self._stood = True\n",
        "",
        "a pause of others is undone that came after ours",
        (f"{PAUSED}what_runs_again_is_not_ours_any_more",),
    ),
    Mutant(
        MONITOR,
        """        if (begins(message.text, "{\\"QMP\\":"))\n            return true;\n""",
        "        return true;\n",
        "a monitor is told something before it has greeted, which it may carry out much later",
        ("tests/transport/test_watcher_answers.py::test_what_comes_before_the_greeting_is_not_taken_for_it",),
    ),
    Mutant(
        MONITOR,
        "    if (found == NULL)\n        return NULL;\n",
        """    if (found == NULL)
        return begins(first, "\\"return\\":") || begins(first, "\\"error\\":") ? first : NULL;\n""",
        "an answer without an id to the client before is taken for the watcher's, and a snapshot's capability stays on",
        (f"{ANSWERED}by_a_monitor_that_answers_the_client_before",),
    ),
    Mutant(
        MONITOR,
        "    number = moment();\n",
        "",
        "an answer to a client before that numbers its commands alike is taken for the watcher's",
        (f"{ANSWERED}by_a_monitor_that_answers_the_client_before",),
    ),
    Mutant(
        MONITOR,
        """ || watch_has("\\"class\\":\\"CommandNotFound\\"")""",
        "",
        "nothing is undone where the client before has ended the negotiation late",
        (f"{ANSWERED}where_the_client_before_has_ended_the_negotiation",),
    ),
)
