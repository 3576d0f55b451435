# SPDX-License-Identifier: Apache-2.0
"""Bugs in how changes of the address space are told, and observed."""

from __future__ import annotations

from mutants.mutant import Mutant

QEMU = "libmicrovmi_py/drivers/qemu"
SPACES = f"{QEMU}/events/mechanisms/spaces.py"
TRIAL = f"{QEMU}/events/trial.py"
LOG = f"{QEMU}/events/logpipe.py"
UNITS = "tests/drivers/qemu/test_switches.py"
CHANGES = "tests/live/test_cr3.py"
OBSERVE = "tests/live/test_observe.py"

MUTANTS = (
    Mutant(
        SPACES,
        "        for vcpu in self.machine.vcpus:\n            new, old",
        "        for vcpu in self.machine.vcpus[:1]:\n            new, old",
        "the address space of one vCPU is compared at a stop",
        (f"{CHANGES}::test_every_change_is_told_and_no_other",),
    ),
    Mutant(
        TRIAL,
        "elif not disturbed:",
        "else:",
        "what was forgotten as two vCPUs stopped at once counts against a variable",
        (f"{UNITS}::test_what_another_vcpu_disturbed_says_nothing",),
    ),
    Mutant(
        TRIAL,
        "if not seen.failed and",
        "if",
        "a variable serves that was not written once",
        (f"{UNITS}::test_a_variable_that_was_not_written_once_does_not_serve",),
    ),
    Mutant(
        LOG,
        "        if logs(self._process):",
        "        if False:",
        "the log that somebody switched on in the monitor is taken",
        (f"{OBSERVE}::test_a_log_of_somebody_else_is_not_taken",),
    ),
    Mutant(
        LOG,
        "return not any(events & select.POLLERR for _, events in poll.poll(0))",
        "return True",
        "the log of who was killed is his for ever",
        (f"{OBSERVE}::test_the_next_observer_ends_what_nobody_could",),
    ),
    Mutant(
        "libmicrovmi_py/_native/watcher_observe.c",
        "lost += lost < UINT32_MAX;",
        "lost = 0;",
        "what found no room is not counted",
        (f"{OBSERVE}::test_what_finds_no_room_is_counted",),
    ),
)
