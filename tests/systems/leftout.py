# SPDX-License-Identifier: Apache-2.0
"""Tests that are left out where qemu-user runs the programs, which is no kernel, and with a QEMU that is too old."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

DIFFERENCE = "tests/memory/test_difference.py::test_"
LEFT = "tests/memory/test_left.py::test_"
DIFFERENT = "tests/capi/test_diff.py::test_"
Tests = Mapping[str, tuple[str, ...]]
"""Why, and the tests, as ``--deselect`` takes them."""

EMULATED: Tests = {
    "no program opens /proc/PID/mem, nor /proc/self/fd/N, there (ELOOP)": (
        "tests/memory/test_cache.py::test_the_memory_of_a_process_is_kept_in_c",
        "tests/memory/test_cache.py::test_another_memory_map_has_other_pages",
        f"{DIFFERENCE}a_machine_does_not_differ_from_itself",
        f"{DIFFERENCE}frames_beside_every_way_to_memory",
        f"{DIFFERENCE}holes_stay_holes",
        f"{DIFFERENCE}it_begins_with_the_frame_of_an_address",
        f"{DIFFERENCE}memory_at_the_end_of_all_addresses",
        f"{DIFFERENCE}memory_that_was_unplugged_is_an_error_whatever_is_there_now",
        f"{DIFFERENCE}regions_that_begin_and_end_anywhere",
        f"{LEFT}a_killed_machine_is_noticed_by_every_reader",
        f"{LEFT}cancelled_readers_do_not_hold_a_destroy_up",
        f"{LEFT}nor_what_they_leave_of_words_of_a_machine",
        "tests/memory/test_middle.py",
        *(
            f"{DIFFERENT}{name}"
            for name in (
                "exactly_the_frames_that_were_written",
                "a_full_call_goes_on_with_the_frame_that_had_no_room",
                "machines_of_different_drivers_and_processors",
            )
        ),
    ),
    "there is no process_vm_readv()": (
        "tests/capi/test_virtual_ways.py::test_words_take_one_system_call_and_scattered_pages_one_a_level",
    ),
    "their machines are processes too, so they were not tried": (
        "tests/memory/test_moved.py",
        "tests/memory/test_stale_streams.py",
        "tests/memory/test_untouched.py",
    ),
    "there are no seccomp filters": (f"{LEFT}what_threads_leave_behind_holds_nobody_up",),
    "there is no userfaultfd(), by which a machine's memory does not arrive": (
        "tests/memory/test_arriving.py",
        f"{LEFT}a_read_that_never_ends_does_not_hold_a_destroy_up",
    ),
}

BACKGROUND, TABLES = "tests/live/test_background.py::test_", "test_the_table_of_changes_is_what_happens"
REGISTERS, LIBVIRT = "tests/live/test_registers.py::test_", "tests/live/test_libvirt.py::test_"
OLD_QEMU: Tests = {
    "it takes no snapshot in the background, as QEMU does since 6.0": (
        *(
            f"{BACKGROUND}{name}"
            for name in (
                "memory_and_registers_are_of_one_instant_in_every_snapshot",
                "every_byte_is_what_pmemsave_says",
                "registers_are_those_of_the_instant_msrs_too",
                "a_large_machine_stands_for_a_moment_only",
                "who_is_told_of_the_progress_keeps_nobody_waiting",
                "a_machine_that_others_pause_meanwhile_stays_paused",
                "we_and_the_watcher_are_killed_meanwhile",
                "the_same_capability_of_the_user_stays_on",
                "a_machine_with_a_device_that_cannot_be_migrated_is_not_taken",
            )
        ),
        "tests/live/test_command.py::test_a_snapshot_is_the_default_and_standard_error_says_so",
        "tests/live/test_dump_files.py::test_a_snapshot_in_the_background_is_of_the_moment_that_it_was_begun_at",
        "tests/live/test_finding.py::test_a_write_during_a_background_snapshot_tells_what_may_be_in_the_way",
        f"{LIBVIRT}a_snapshot_in_the_background_is_taken_of_a_qemu_that_may",
        "tests/live/test_watcher.py",
    ),
    "before 6.0 it does not tell whether to save its devices would end it: no MSRs, nor AArch64's registers": (
        "tests/live/test_blocked.py",
        f"{LIBVIRT}registers_of_all_vcpus_with_msrs_are_told",
        f"{LIBVIRT}what_libvirt_sees_is_what_the_page_says[registers]",
        "tests/live/test_linux.py::test_without_a_note_the_kernel_is_found_by_the_registers[common-arm64]",
        "tests/live/test_mount.py::test_the_core_opens_as_the_machine",
        "tests/live/test_rdmsr.py::test_msrs_are_what_rdmsr_tells_the_guest",
        *(
            f"{REGISTERS}{name}"
            for name in (
                "msrs_are_what_rdmsr_tells_the_guest",
                "all_vcpus_are_told_at_once",
                "a_register_that_is_written_is_seen_by_qemu_and_by_the_guest",
                "system_registers_are_those_that_the_guest_set",
                "the_struct_that_does_not_grow_has_the_tables_of_an_aarch64_vcpu_that_runs",
            )
        ),
        "tests/live/test_virtual_aarch64.py",
    ),
    "the test's own machine does not start there": (
        f"tests/live/test_changes.py::{TABLES}[reset",
        "tests/live/test_run_states.py::test_the_table_of_run_states_is_what_happens[watchdog]",
        "tests/live/test_run_states.py::test_the_table_of_run_states_is_what_happens[guest-panicked]",
    ),
    "they fail there, and why was not looked into": (
        f"tests/live/test_changes.py::{TABLES}[1 GiB",
        "tests/live/test_bench.py::test_a_part_that_needs_no_kernel_is_measured[vcpus",
        "tests/live/test_events_exact.py::test_a_watch_tells_each_of_two_who_write_at_the_same_time",
        "tests/live/test_events_killed.py::test_what_its_watcher_did_not_live_to_undo_the_next_opening_undoes[step]",
        "tests/live/test_events_libvirt.py::test_a_suspend_and_a_resume_while_it_is_listened_to_change_nothing",
        "tests/live/test_right_machine.py::test_a_socket_that_was_handed_over_is_proven_by_who_has_it",
    ),
}


def options(left_out: Tests) -> str:
    """What pytest is told to leave them out, as a shell's words."""
    return " ".join(shlex.quote(f"--deselect={test}") for tests in left_out.values() for test in tests)
