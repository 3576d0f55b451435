# SPDX-License-Identifier: Apache-2.0
"""Bugs of the core of QEMU's events, which a guest of two vCPUs that count finds out."""

from mutants.mutant import Mutant

EVENTS = "libmicrovmi_py/drivers/qemu/events"
EXACT = "tests/live/test_events_exact.py"
LIVE = "tests/live/test_events.py"

MUTANTS = (
    Mutant(
        f"{EVENTS}/mechanisms/access.py",
        "            self._look_at_others(stopped)\n",
        "            pass\n",
        "of two vCPUs who write in one moment one is never told",
        (f"{EXACT}::test_a_watch_tells_each_of_two_who_write_at_the_same_time",),
    ),
    Mutant(
        "libmicrovmi_py/transport/packets.py",
        'return b"++" + framed(packet)',
        'return b"+" + framed(packet)',
        "a packet to a machine that somebody let run is lost, and its answer awaited",
        (f"{EXACT}::test_somebody_who_lets_it_run_at_an_event_takes_nothing_from_the_next",),
    ),
    Mutant(
        f"{EVENTS}/openstub.py",
        "        if not self.others:\n            return False\n",
        "        return False\n",
        "a machine that others stopped and let run is not listened to any more",
        (f"{EXACT}::test_what_others_stopped_and_let_run_is_heard_again",),
    ),
    Mutant(
        f"{EVENTS}/run.py",
        '"HLT=1" in parts.get(index, "")',
        "False",
        "a vCPU that sleeps is waited for",
        (f"{EXACT}::test_a_vcpu_that_sleeps_is_not_waited_for",),
    ),
    Mutant(
        f"{EVENTS}/answers.py",
        "                self._run.lead_over(vcpu)\n",
        "                pass\n",
        "what is placed is told again and again",
        (f"{EXACT}::test_every_hit_of_a_hardware_breakpoint_of_both_vcpus_is_told",),
    ),
    Mutant(
        f"{EVENTS}/answers.py",
        "told.sort(key=lambda pair: pair[0].token is not None)",
        "pass",
        "a step is told after the breakpoint that it came to",
        (f"{LIVE}::test_a_step_that_comes_to_a_breakpoint_is_told_before_it",),
    ),
)
