# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - the texts of the tree that are replaced
"""Bugs of the run state: whose stop it is, what is in the books, what is let run, and leaving machines as they were."""

from mutants.mutant import Mutant

BOOKS = "libmicrovmi_py/machine/runstate.py"
RELEASE = "libmicrovmi_py/machine/release.py"
MACHINE = "libmicrovmi_py/machine/microvmi.py"
MACHINE_BOOKS = "libmicrovmi_py/machine/books.py"
EVENTS = "libmicrovmi_py/machine/events.py"
QEMU = "libmicrovmi_py/drivers/qemu/stops.py"
LAYOUT = "libmicrovmi_py/drivers/qemu/layout.py"
UNPLUGGED = "tests/drivers/test_qemu_unplugged.py"
TRIPS = "tests/drivers/test_qemu_trips.py"
STATES = "tests/test_run_state.py"
RELEASES = "tests/test_release.py"
QEMU_STATES = "tests/drivers/test_qemu_run_state.py"
XEN_RUN_STATE = "tests/drivers/xen/test_xen_run_state.py"
XEN_MEMORY = "tests/drivers/xen/test_xen_memory.py"
EXAMPLES = "tests/examples/test_examples.py"

MUTANTS = (
    # What is let run.
    Mutant(
        BOOKS,
        "if over or state.phase is Phase.HALTED:",
        "if over:",
        "a machine that was reset or halted by others is let run at close, or taken for ours later",
        (f"{STATES}::test_one_that_was_let_run_and_stopped_by_others_is_theirs",),
    ),
    Mutant(
        BOOKS,
        "over = state.phase is Phase.RUNS and self._stop is _Stop.DONE  # somebody else let it run",
        "over = False",
        "a stop of somebody else is taken for ours, though the machine was seen to run",
        (f"{STATES}::test_one_that_was_let_run_and_stopped_by_others_is_theirs",),
    ),
    Mutant(
        BOOKS,
        "            if self._stop is _Stop.DONE:\n                self._driver.run(whoever=False)",
        "            if self.owes:\n                self._driver.run(whoever=True)",
        "pauses of others are taken back at close",
        (f"{STATES}::test_a_machine_that_stands_by_our_stop_runs_after_close",),
    ),
    Mutant(
        BOOKS,
        "        except VmGoneError:\n            self._forget()\n            raise",
        "        except VmGoneError:\n            raise",
        "a machine that came back from a migration is taken for one that we stopped",
        (f"{STATES}::test_a_machine_that_comes_back_is_not_ours_any_more",),
    ),
    Mutant(
        BOOKS,
        "            if state.no_resume:\n                raise DriverUnavailableError(state.no_resume)\n            self._keep(False)",
        "            self._keep(False)",
        "a machine that is being saved, or sleeps, is let run",
        (f"{STATES}::test_a_resume_that_would_do_harm_is_an_error",),
    ),
    Mutant(
        BOOKS,
        "                raise DriverUnavailableError(state.no_pause)\n            if state.phase is Phase.RUNS:",
        "                pass\n            if state.phase is Phase.RUNS:",
        "a pause that stops nothing is a success",
        (f"{STATES}::test_a_pause_that_would_be_none_is_an_error",),
    ),
    Mutant(
        BOOKS,
        "while state.phase is Phase.PASSING or (",
        "while (",
        "a machine that is being saved at the moment of a close stays paused for ever",
        (f"{STATES}::test_what_others_are_in_the_middle_of_is_awaited",),
    ),
    Mutant(
        QEMU,
        'if told == "postmigrate":',
        'if told == "postmigrated":',
        "a machine that was migrated away goes on as if it were there",
        (f"{QEMU_STATES}::test_a_machine_that_was_migrated_away_says_so",),
    ),
    Mutant(
        QEMU,
        '    "inmigrate": RunState(\n        Phase.HALTED,\n        "the machine waits for an incoming migration (inmigrate) and cannot be paused before it",',
        '    "inmigrate": RunState(\n        Phase.HALTED,\n        "",',
        "pause of a machine that waits for a migration",
        (f"{QEMU_STATES}::test_a_pause_that_is_none_is_refused",),
    ),
    Mutant(
        QEMU,
        "if state.phase is Phase.STOPPED or (whoever and state.phase is Phase.HALTED):",
        "if state.phase is not Phase.RUNS:",
        "the driver lets a machine run that somebody halted between our look and the order",
        (f"{QEMU_STATES}::test_taking_back_leaves_what_others_halted",),
    ),
    Mutant(
        QEMU,
        "    if state.phase is Phase.RUNS or state.no_pause:\n        reason",
        "    if state.no_pause:\n        reason",
        "a machine that sleeps counts as paused, and runs on under us when it wakes up",
        (f"{QEMU_STATES}::test_a_machine_that_sleeps_is_not_paused_and_says_so",),
    ),
    Mutant(
        "libmicrovmi_py/drivers/qemu/__init__.py",
        "                    self._take_map(client, asked, filled)\n            except",
        "                    pass\n            except",
        "map is not read at pause",
        ("tests/drivers/test_qemu_driver.py::test_the_map_is_read_again_by_a_stop",),
    ),
    # What is in the books.
    Mutant(
        BOOKS,
        "self._stop, self._awaited_until = _Stop.SENT, _NEVER",
        "self._awaited_until = _NEVER",
        "a stop whose answer is late leaves the machine stopped for ever",
        (f"{STATES}::test_a_stop_whose_answer_is_late_is_taken_back",),
    ),
    Mutant(
        BOOKS,
        "if state.phase is Phase.STOPPED and self._stop is _Stop.SENT:",
        "if False:",
        "a stop that was late is not ours though it happened",
        (f"{STATES}::test_a_pause_after_a_late_stop_is_ours",),
    ),
    Mutant(
        BOOKS,
        "            state = self._decided(state)\n",
        "",
        "a late stop comes after the resume, and nobody takes it back",
        (f"{STATES}::test_a_resume_after_a_late_stop_comes_after_it",),
    ),
    Mutant(
        BOOKS,
        "                if self._look().phase is Phase.RUNS:\n                    self._forget()\n",
        "                pass\n",
        "a stop of somebody else is taken back, as ours was refused",
        (f"{STATES}::test_a_stop_that_was_refused_is_not_in_the_books",),
    ),
    Mutant(
        BOOKS,
        "        if self._ended:\n            raise was_closed()",
        "        if False:\n            raise InvalidContextError",
        "a pause that races with a close stops the machine after it was settled",
        (f"{STATES}::test_nothing_is_stopped_by_a_machine_that_is_being_closed",),
    ),
    Mutant(
        BOOKS,
        "            self._keep(False)\n            state = self._decided(state)\n            self._driver.run(whoever=True)",
        "            state = self._decided(state)\n            self._driver.run(whoever=True)\n            self._keep(False)",
        "pages are still served from the cache after the machine runs (and for ever if resume fails)",
        (f"{STATES}::test_a_resume_that_fails_stays_in_the_books_and_keeps_no_page",),
    ),
    Mutant(
        BOOKS,
        "            self._look()\n            self._keep(self._stop is _Stop.DONE)\n\n    def settle",
        "            self._look()\n\n    def settle",
        "a call for the map does not help against old pages, after somebody loaded a snapshot",
        (f"{STATES}::test_pages_are_read_anew_after_a_second_pause_and_after_the_map",),
    ),
    Mutant(
        BOOKS,
        "                self._order_stop()\n            self._keep(self._stop is _Stop.DONE)",
        "                self._order_stop()\n                self._keep(self._stop is _Stop.DONE)",
        "a second pause serves old pages, after somebody loaded a snapshot",
        (f"{STATES}::test_pages_are_read_anew_after_a_second_pause_and_after_the_map",),
    ),
    # Leaving.
    Mutant(
        RELEASE,
        "    except BaseException as err:\n        return err",
        "    except MicrovmiError as err:\n        return err",
        "one odd machine leaves all others paused at exit",
        (f"{RELEASES}::test_one_odd_machine_keeps_nobody_from_the_others",),
    ),
    Mutant(
        RELEASE,
        "        with limited(seconds):\n            machine.settle()",
        "        machine.settle()",
        "machines that hang add up at exit",
        (f"{RELEASES}::test_machines_that_hang_do_not_add_up",),
    ),
    Mutant(
        RELEASE,
        '        _log.error("not undone: %s", _text(err))\n',
        "",
        "what failed at exit is told nobody",
        (f"{RELEASES}::test_one_odd_machine_keeps_nobody_from_the_others",),
    ),
    Mutant(
        RELEASE,
        "        if not again or deadline.expired:\n            break",
        "        break",
        "a machine that needs more than its first turn stays paused",
        (f"{RELEASES}::test_one_that_answers_late_is_settled_all_the_same",),
    ),
    Mutant(
        RELEASE,
        "    return _touched.get(id(machine), (None, 0))[1] == os.getpid()",
        "    return id(machine) in _touched",
        "a child that closes a machine lets its parent's run",
        (f"{STATES}::test_a_child_lets_nothing_run",),
    ),
    Mutant(
        RELEASE,
        "[machine for machine, pid in list(_touched.values()) if pid == os.getpid()]",
        "[machine for machine, pid in list(_touched.values())]",
        "a forked Python child releases its parent's events at its exit",
        (f"{RELEASES}::test_a_forked_child_releases_nothing_of_its_parents",),
        why="each machine is asked whose it is once more when it is settled",
    ),
    Mutant(
        MACHINE_BOOKS,
        "            if self._run is not None:\n                steps.callback(settle, self._run)\n"
        "            if self._events is not None:\n                steps.callback(self._events.release)",
        "            if self._events is not None:\n                steps.callback(self._events.release)\n"
        "            if self._run is not None:\n                steps.callback(settle, self._run)",
        "the machine runs before its intercepts are given back",
        (f"{RELEASES}::test_intercepts_are_given_back_before_the_machine_runs",),
    ),
    Mutant(
        EVENTS,
        "        with self._orders:\n            stop = self._open",
        "        if True:\n            stop = self._open",
        "two threads answer one event at once",
        ("tests/test_fake_events.py::test_of_two_threads_that_answer_one_event_one_does",),
    ),
    Mutant(
        MACHINE,
        '"pause the machine")\n        with self._books.touched():\n            run.pause()',
        '"pause the machine")\n        run.pause()',
        "a machine stays paused at the end of the process",
        (f"{RELEASES}::test_the_end_settles_each_machine_and_tells_what_failed",),
    ),
    Mutant(
        "libmicrovmi_py/_native/entry.c",
        "return !mvi_context_any() || (mvi_start() && mvi_leave(mvi_py_release_all(timeout_ms)));",
        "return true;",
        "microvmi_release_all does nothing",
        (f"{RELEASES}::test_c_releases_every_context",),
    ),
    Mutant(
        "c_tests/examples/ending.h",
        "static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};",
        "static const int numbers[] = {SIGINT, SIGHUP};",
        "a program ended by SIGTERM leaves its machine paused",
        (f"{EXAMPLES}::TestPause::test_ended_by_a_signal_resumes",),
    ),
    Mutant(
        "c_tests/examples/ending.h",
        "&& action.sa_handler != SIG_IGN",
        "",
        "under nohup a program ends with its terminal",
        (f"{EXAMPLES}::TestPause::test_started_to_ignore_a_signal_ignores_it",),
    ),
    # Drivers.
    Mutant(
        "libmicrovmi_py/drivers/kvm/stops.py",
        "                self._go_on()\n                self._owed.clear()\n                self._let_go_of(count)\n                raise",
        "                raise",
        "failed pause leaves vCPUs stopped and counts as paused",
        ("tests/drivers/kvm/test_kvm_control.py::test_after_a_pause_that_failed_the_vcpus_run",),
    ),
    Mutant(
        "libmicrovmi_py/drivers/kvm/stops.py",
        "                self._let_go_of(count)\n",
        "",
        "a failed pause leaves vCPUs stopped until the next call",
        ("tests/drivers/kvm/test_kvm_control.py::test_after_a_pause_that_failed_the_vcpus_run",),
    ),
    Mutant(
        "libmicrovmi_py/drivers/xen/driver.py",
        "            return STOPPED\n        self._memory.keep(False)",
        "            self._memory.keep(True)\n            return STOPPED\n        self._memory.keep(False)",
        "mappings kept although somebody else paused",
        (f"{XEN_MEMORY}::test_no_mapping_is_kept_of_a_domain_that_somebody_else_paused",),
    ),
    Mutant(
        "libmicrovmi_py/drivers/xen/driver.py",
        "            self._domain.take_back()\n            return",
        "            self._domain.resume()\n            return",
        "a close takes back the pauses of others",
        (f"{XEN_RUN_STATE}::test_a_pause_that_somebody_else_added_stays",),
    ),
    Mutant(
        "libmicrovmi_py/drivers/xen/xenctrl.py",
        "            self._ours = self._ours and paused\n",
        "",
        "a pause of somebody else is taken for ours, which was taken back before",
        (f"{XEN_RUN_STATE}::test_a_pause_of_ours_that_somebody_took_back_is_not_taken_back_again",),
        why="the books above know it as well, and order nothing",
    ),
    Mutant(
        "libmicrovmi_py/drivers/qemu/__init__.py",
        "self._regions = read_from(tuple(self._regions), Departed(self._process, str(err)))",
        "pass",
        "a machine that was migrated away is read on as if alive",
        ("tests/drivers/test_qemu_run_state.py::test_memory_of_a_machine_that_was_migrated_away_says_so_from_then_on",),
    ),
    Mutant(
        "libmicrovmi_py/_capi/boundary.py",
        "isinstance(err, VmGoneError):",
        "False:",
        "C reads on in a machine that was migrated away",
        ("tests/drivers/test_qemu_run_state.py::test_memory_of_a_machine_that_was_migrated_away_says_so_from_then_on",),
    ),
    # What is not asked again.
    Mutant(
        LAYOUT,
        "self._view and self._is_there(asked.hosts):",
        "self._view:",
        "a DIMM that took another's place is read where the other was",
        (f"{UNPLUGGED}::test_another_dimm_in_the_place_of_one_is_read_where_it_is",),
    ),
    Mutant(
        LAYOUT,
        "return self._extents, all(item.whose.startswith(_DEVICES) for item in self._loose)",
        "return self._extents, True",
        "a DIMM that is a file's, where a private one was, reads as zeros",
        (f"{UNPLUGGED}::test_another_dimm_in_the_place_of_one_is_read_where_it_is",),
    ),
    Mutant(
        "libmicrovmi_py/drivers/qemu/__init__.py",
        "if same and filled == self._filled and not (self._memory.has_unsteady_files or self._memory.has_moved):",
        "if same and filled == self._filled:",
        "a device whose memory came to be another file is read in the file before",
        (f"{UNPLUGGED}::test_another_dimm_in_the_place_of_one_is_read_where_it_is",),
    ),
    Mutant(
        LAYOUT,
        "if extent.unsteady and not _stays(item.whose):",
        "if False:",
        "what was plugged in is looked for where it once was",
        (f"{UNPLUGGED}::test_another_dimm_in_the_place_of_one_is_read_where_it_is",),
    ),
    Mutant(
        LAYOUT,
        "        if item.whose.startswith(_BACKENDS):\n            largest",
        "        if True:\n            largest",
        "memory of one device is read in another block of its",
        ("tests/drivers/test_qemu_answers.py::test_blocks_of_one_name_are_asked_for_one_by_one",),
    ),
    Mutant(
        BOOKS,
        "                self._driver.leave_session()\n",
        "                pass\n",
        "who ends what we wait for gets no turn at the monitor",
        (f"{TRIPS}::test_a_close_that_waits_lets_others_have_the_monitor",),
    ),
    Mutant(
        BOOKS,
        "            with one_session(self._driver):\n                yield\n",
        "            yield\n",
        "a pause connects three times",
        (f"{TRIPS}::test_a_pause_and_a_resume_are_one_connection_each",),
    ),
)
