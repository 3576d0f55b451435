# SPDX-License-Identifier: Apache-2.0
"""Tests that are left out where qemu-user runs the programs: it is no kernel."""

from __future__ import annotations

DIFFERENCE = "tests/memory/test_difference.py::test_"
LEFT = "tests/memory/test_left.py::test_"
DIFFERENT = "tests/capi/test_diff.py::test_"
LEFT_OUT: dict[str, tuple[str, ...]] = {
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
"""Why, and the tests, as ``--deselect`` takes them."""


def options() -> str:
    """What pytest is told to leave them out."""
    return " ".join(f"--deselect={test}" for tests in LEFT_OUT.values() for test in tests)
