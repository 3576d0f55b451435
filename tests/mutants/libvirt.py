# SPDX-License-Identifier: Apache-2.0
"""Bugs of machines of libvirt's: another machine, a wrong view of libvirt's, calls that wait, and what stays."""

from __future__ import annotations

from mutants.mutant import Mutant

NATIVE, LIBRARY = "libmicrovmi_py/_native/libvirt.c", "libmicrovmi_py/transport/libvirt.py"
CLIENT, MONITOR = "libmicrovmi_py/drivers/qemu/libvirt.py", "libmicrovmi_py/drivers/qemu/monitor.py"

FAKE = "tests/transport/test_libvirt.py::test_"
LIVE = "tests/live/test_libvirt.py::test_"

RIGHT = "tests/live/test_right_machine.py::test_"
TOLD = "tests/drivers/qemu/test_libvirt_client.py::test_"

MUTANTS = (
    Mutant(
        NATIVE,
        "mvi_libvirt_ignore);",
        "NULL);",
        "errors of ours are printed in a host that had the library before us",
        (f"{FAKE}errors_of_ours_are_not_printed_in_a_host_that_had_the_library_before",),
    ),
    Mutant(
        NATIVE,
        "    if (limit > 0 && ",
        "    if (",
        "a pause is ordered whose caller is told that it failed",
        (f"{FAKE}an_order_whose_time_is_over_is_not_given",),
    ),
    Mutant(
        NATIVE,
        "count += libvirt->owner == getpid() && strcmp(libvirt->uri, uri) == 0;",
        "count += libvirt->owner == getpid();",
        "a libvirtd of another user that hangs keeps all others from being asked",
        (f"{FAKE}a_libvirtd_that_hangs_does_not_keep_others_from_being_asked",),
    ),
    Mutant(
        CLIENT,
        '        if not self._process.alive:\n            raise QmpHangupError("the process ended")\n',
        "",
        "a domain that was started anew is let run in place of the one that we paused",
        (f"{TOLD}a_domain_whose_process_ended_is_told_nothing",),
    ),
    Mutant(
        NATIVE,
        "libvirt->owner == getpid() && ",
        "",
        "a child of a process whose calls hang never asks that libvirtd",
        (f"{FAKE}the_child_of_a_process_with_calls_that_hang_has_none",),
    ),
    Mutant(
        "libmicrovmi_py/drivers/qemu/discovery.py",
        "nearest([*named, by_id] if by_id else named)",
        "nearest(named or ([by_id] if by_id else []))",
        "a stranger whose machine has the process id of ours for a name is opened in its place",
        (f"{RIGHT}a_stranger_who_calls_his_machine_by_the_process_id_of_ours_is_not_found_in_its_place",),
    ),
    Mutant(
        "libmicrovmi_py/drivers/qemu/discovery.py",
        "    near = nearest(named + [",
        "    near = nearest(named) or nearest([",
        "a stranger whose machine has the UUID of ours for a name is opened in its place",
        (f"{RIGHT}a_stranger_who_calls_his_machine_by_the_uuid_of_ours_is_not_found_in_its_place",),
    ),
    Mutant(
        CLIENT,
        "if not threads or not threads <= self._process.threads():",
        "if not threads:",
        "a process that claims the UUID of a domain is that domain",
        (f"{LIVE}who_only_claims_to_be_a_domain_is_found_out",),
    ),
    Mutant(
        CLIENT,
        '{"stop": domain.suspend, "cont": domain.resume}',
        "{}",
        "libvirt does not know that it was we who stopped the machine",
        (f"{LIVE}pause_and_resume_are_libvirts_own",),
    ),
    Mutant(
        MONITOR,
        "        if kept or is_of_libvirt(self._qemu):\n            return self._carried",
        "        if kept:\n            return self._carried",
        "whoever may not see QEMU's open files is told that it has no monitor",
        (f"{LIVE}who_may_not_use_the_libvirtd_is_told_so",),
    ),
    Mutant(
        LIBRARY,
        "if listener.uid not in {0, os.geteuid(), *trusted}:",
        "if False:",
        "a libvirtd of anybody is given orders and descriptors",
        (f"{FAKE}a_libvirtd_of_a_stranger_is_not_trusted",),
    ),
    Mutant(
        LIBRARY,
        "        if left >= _MOST_LEFT:\n",
        "        if False:\n",
        "each try at a libvirtd that hangs leaves a thread and a connection",
        (f"{FAKE}a_libvirtd_that_hangs_again_and_again_is_not_asked_any_more",),
    ),
    Mutant(
        LIBRARY,
        "    if not there:  # whoever",
        "    if True:  # whoever",
        "a host's own handler of libvirt's errors is replaced",
        (f"{FAKE}the_handler_of_a_host_that_had_the_library_before_is_its_own",),
    ),
    Mutant(
        LIBRARY,
        "self._lib.mvi_libvirt_free(made, 0 if self._late else _nanoseconds(_HANGING_UP))",
        "pass",
        "each use of a machine leaves a thread and a connection",
        (f"{FAKE}orders_go_through_and_everything_is_given_back",),
    ),
    Mutant(
        NATIVE,
        "    if (!mvi_thread.hushed)\n",
        "",
        "what libvirt says of our errors is printed",
        (f"{FAKE}errors_are_of_their_kind_and_nothing_is_printed",),
    ),
    Mutant(
        NATIVE,
        "        mvi_libvirt_count(libvirt, false);\n        mvi_libvirt_destroy(libvirt);\n",
        "        mvi_libvirt_count(libvirt, false);\n",
        "what a call needed that nobody waited for stays",
        (f"{FAKE}a_call_that_hangs_ends_in_time_and_is_left_to_itself",),
        why="memory alone: no test without a checker of leaks sees it",
    ),
    Mutant(
        NATIVE,
        "            close(descriptors[index]); /* none of our commands returns any */\n",
        "            (void)descriptors[index];\n",
        "descriptors that nobody asked for stay open",
        (f"{FAKE}a_descriptor_is_handed_over_and_none_stays",),
    ),
)
