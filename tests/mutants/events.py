# SPDX-License-Identifier: Apache-2.0
"""Bugs of the event session and of the object on top of a driver."""

from mutants.mutant import Mutant

SESSION = "libmicrovmi_py/machine/events.py"
BOOKS = "libmicrovmi_py/machine/books.py"
TESTS = "tests/test_event_session.py"

MUTANTS = (
    Mutant(
        SESSION,
        "number not in registers.INTERCEPTED_CONTROL:",
        "number > 4:",
        "an intercept of CR2 reaches the hypervisor",
        (f"{TESTS}::test_what_needs_no_hypervisor_is_refused_without_it",),
    ),
    Mutant(
        SESSION,
        "            if after != before:\n                self._order(intercept, before, after)",
        "            self._order(intercept, before, after)",
        "a driver is told what is so already",
        (f"{TESTS}::test_the_driver_is_told_changes_only",),
    ),
    Mutant(
        SESSION,
        "self._listens = listened or not isinstance(err, DriverUnavailableError)",
        "self._listens = True",
        "events of another context of the process are answered at the end of one that may not listen",
        (f"{TESTS}::test_who_is_no_listener_takes_no_stops_at_the_end",),
    ),
    Mutant(
        SESSION,
        "        if not before and not failures:\n            del",
        "        if not before:\n            del",
        "an order that may have been carried out is not undone at the end",
        (f"{TESTS}::test_one_that_cannot_be_taken_back_is_disarmed_at_the_end",),
    ),
    Mutant(
        SESSION,
        "        if after != before and not enabled:\n            self._drop_unwanted()",
        "",
        "a vCPU that stopped just before its intercept went stays stopped",
        (f"{TESTS}::test_after_an_intercept_goes_what_nobody_has_seen_is_answered",),
    ),
    Mutant(
        SESSION,
        "                if unwanted is not None:\n                    with self._orders:",
        "                if unwanted is None:\n                    with self._orders:",
        "a vCPU that nobody asked for stays stopped",
        (f"{TESTS}::test_what_nobody_wants_goes_on_and_what_comes_behind_it_is_told",),
    ),
    Mutant(
        SESSION,
        "            self._driver.resume(stop, ReplyAction.RETRY, None)\n",
        "            raise\n",
        "a vCPU whose event cannot be continued stays stopped when nobody listens any more",
        (f"{TESTS}::test_what_cannot_be_continued_is_retried_where_nobody_else_could_answer_it",),
    ),
    Mutant(
        SESSION,
        "            if reply.action not in allowed:",
        "            if False:",
        "an answer that the hypervisor does not have reaches the driver",
        (f"{TESTS}::test_answers_are_those_that_the_driver_s_data_has",),
    ),
    Mutant(
        SESSION,
        "        if stop.waits:\n            self._open",
        "        if True:\n            self._open",
        "a vCPU is answered that does not wait",
        (f"{TESTS}::test_a_vcpu_that_goes_on_by_itself_has_no_answer",),
    ),
    Mutant(
        SESSION,
        "            except NotSupportedError:\n                if before is None:",
        "            except BaseException:\n                if before is None:",
        "a page that was taken by an order without an answer is not given back",
        (f"{TESTS}::test_a_page_that_was_refused_is_not_in_the_books_and_one_of_an_unknown_fate_is",),
    ),
    Mutant(
        SESSION,
        "                done = self._driver.end_events()",
        "                self._driver.end_events()",
        "vCPUs that wait for room in the ring wait for ever after the end",
        (f"{TESTS}::test_vcpus_that_wait_for_room_are_let_run_and_answered",),
    ),
    Mutant(
        SESSION,
        "            if failures.gone:\n                self._forget()\n",
        "",
        "what a machine that ended would have to be told is in the books for ever",
        (),
        "nobody asks the books of a machine that ended",
    ),
    Mutant(
        SESSION,
        "        if self._ended:\n            raise was_closed()",
        "        if False:\n            raise was_closed()",
        "an intercept that races with a close stays",
        (f"{TESTS}::test_what_is_being_closed_arms_nothing_and_ends_waits",),
    ),
    Mutant(
        "libmicrovmi_py/machine/failures.py",
        "        except BaseException as err:",
        "        except OSError as err:",
        "one step of the end that fails in an odd way keeps the others from being done",
        (f"{TESTS}::test_whatever_fails_the_other_steps_are_done_and_it_is_told",),
    ),
    Mutant(
        BOOKS,
        "                books.end()\n",
        "                pass\n",
        "a wait for events outlasts a close",
        ("tests/test_fake_events.py::test_a_wait_ends_when_it_is_not_wanted_any_more",),
    ),
)
