# SPDX-License-Identifier: Apache-2.0
"""Bugs of the command: machines that are left paused, dumps that are mixed, output that is lost or unsafe."""

from __future__ import annotations

from mutants.mutant import Mutant

COMMAND, EXPORT = "libmicrovmi_py/command", "libmicrovmi_py/export"
ENDING, MAIN, KIT = f"{COMMAND}/ending.py", f"{COMMAND}/main.py", f"{COMMAND}/kit.py"
PARTIAL, LAYOUT, WRITING = f"{EXPORT}/partial.py", f"{EXPORT}/layout.py", f"{EXPORT}/writing.py"
VIEW, KDUMP = f"{EXPORT}/view.py", f"{EXPORT}/kdump.py"
PAGE, PARSER = f"{COMMAND}/page.py", f"{COMMAND}/parser.py"

ENDS = "tests/command/test_ending.py::test_"
DUMPS = "tests/command/test_command_dump.py::test_"
SHOWN = "tests/command/test_views.py::test_"
COMPLETED = "tests/command/test_completion.py::test_"
USED = "tests/command/test_subcommands.py::test_"

MUTANTS = (
    Mutant(
        ENDING,
        "            signal.signal(number, _end)\n",
        "            signal.signal(number, signal.SIG_DFL)\n",
        "a signal leaves the machine paused",
        (f"{USED}a_signal_leaves_the_machine_as_it_was[read-SIGTERM]",),
    ),
    Mutant(
        ENDING,
        "        if signal.getsignal(number) is not signal.SIG_IGN:\n",
        "        if True:\n",
        "what nohup started ends with its terminal",
        (f"{ENDS}what_was_ignored_stays_ignored",),
    ),
    Mutant(
        ENDING,
        "            os.set_inheritable(os.open(os.devnull, flags), True)\n",
        "            pass\n",
        "a file that is opened gets the number of a closed standard stream",
        (f"{ENDS}closed_standard_streams_are_no_files_of_ours",),
    ),
    Mutant(
        MAIN,
        "    except BrokenPipeError:\n        ending.leave_standard_output()\n        ending.end_by(13)\n",
        "",
        "a reader who goes is told of as an error",
        (f"{ENDS}a_reader_that_goes_ends_it_quietly",),
    ),
    Mutant(
        MAIN,
        "        code = run(options)\n        sys.stdout.flush()\n        return code\n",
        "        return run(options)\n",
        "what could not be written is no error",
        (f"{ENDS}standard_output_that_is_full_is_an_error",),
    ),
    Mutant(
        PARTIAL,
        "        if before.machine != self.subject.machine:\n",
        "        if False:\n",
        "a dump is of two machines",
        (f"{DUMPS}it_does_not_go_on_for_another_machine_or_format_nor_without_being_asked",),
    ),
    Mutant(
        PARTIAL,
        "                os.unlink(self._name)\n",
        "                pass\n",
        "a part of a moment that is over stays",
        (f"{DUMPS}of_one_moment_nothing_stays",),
    ),
    Mutant(
        PARTIAL,
        "            self.done = self._continued(found, resume=resume)\n",
        "            self._continued(found, resume=resume)\n",
        "every dump begins anew",
        (f"{DUMPS}a_live_dump_goes_on_where_it_ended",),
    ),
    Mutant(
        PARTIAL,
        "            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "",
        "two write into one file",
        (f"{DUMPS}two_do_not_write_one_file",),
    ),
    Mutant(
        LAYOUT,
        "        if not buffer.startswith(_EMPTY[: size - start], start):\n",
        "        if buffer.startswith(_EMPTY[: size - start], start):\n",
        "zeros are written, and nothing else",
        (f"{DUMPS}a_raw_dump_has_zeros_for_what_does_not_exist",),
    ),
    Mutant(
        WRITING,
        "        _zeros(number, offset - at)\n",
        "",
        "a pipe gets memory at the wrong place behind the first hole",
        (f"{DUMPS}a_pipe_gets_what_a_file_gets",),
    ),
    Mutant(
        KDUMP,
        "            self._add_zeros(end - at)\n",
        "",
        "a kdump file lacks the descriptors of what is a hole at the end of memory, and all behind it is elsewhere",
        ("tests/export/test_kdump.py::test_memory_that_is_a_hole_is_not_read",),
    ),
    Mutant(
        VIEW,
        "    if size > SMALL and not isinstance(machine.driver, SupportsSnapshots):\n",
        "    if False:\n",
        "a large machine stands for seconds, and nobody asked for that",
        (f"{SHOWN}a_large_machine_that_its_hypervisor_cannot_copy_in_the_background_is_not_stopped_unasked",),
    ),
    Mutant(
        KIT,
        "    for line in text():\n        print(escaped(line))\n",
        "    for line in text():\n        print(line)\n",
        "a guest moves the cursor of a terminal",
        (f"{SHOWN}what_a_guest_says_is_escaped",),
    ),
    Mutant(
        PAGE,
        '    vars(parser)["color"] = False  # which Python has from 3.14 on\n',
        "",
        "a manual page has colours of a terminal in it",
        (),
        "only a Python of 3.14 and later has them",
    ),
    Mutant(
        PARSER,
        "    return parser.parse_intermixed_args(words)\n",
        "    return parser.parse_args(words)\n",
        "options have to stand behind all else",
        (f"{USED}its_json_is_a_document[regs]",),
    ),
)
