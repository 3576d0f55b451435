# SPDX-License-Identifier: Apache-2.0
"""Bugs in what a root reader believes, in how answers are read, and in what errors say."""

from __future__ import annotations

from mutants.mutant import Mutant

RIGHTS = "tests/transport/test_rights.py"
ANSWERS = "tests/drivers/test_qemu_answers.py"
USERS = "tests/drivers/test_qemu_rights.py"
QMP = "tests/transport/test_qmp.py"
ERRORS = "tests/test_errors.py"
FUZZ = "tests/fuzz/test_texts.py"
FDP = "tests/drivers/virtualbox/test_virtualbox_trouble.py"
MEMFLOW = "tests/drivers/memflow_package/test_memflow_driver.py"

MUTANTS = (
    # what was planted before
    Mutant(
        "libmicrovmi_py/drivers/qemu/flatview.py",
        "return same and self.start == other.start + distance and self.host == other.host + distance",
        "return (self.kind, self.block) == (other.kind, other.block) and self.start == other.start + distance",
        "pieces apart in the host are joined: wrong bytes",
        ("tests/drivers/test_qemu_driver.py::test_memory_that_is_together_in_the_guest_only_is_read_where_it_is",),
    ),
    Mutant(
        "libmicrovmi_py/drivers/qemu/memory.py",
        "    if done != extent.size:\n",
        "    if done == 0:\n",
        "memory of the guest is missing silently",
        (f"{RIGHTS}::test_memory_that_the_process_does_not_have_is_an_error",),
    ),
    Mutant(
        "libmicrovmi_py/drivers/qemu/memory.py",
        "self._anonymous if self._filled and vma.is_anonymous else",
        "self._anonymous if self._filled else",
        "untouched pages of a private file mapping read as zeros",
        (f"{RIGHTS}::test_untouched_pages_of_a_private_file_mapping_are_those_of_the_file",),
    ),
    Mutant(
        "libmicrovmi_py/transport/backing.py",
        " or (status.st_dev, status.st_ino) != (vma.device, vma.inode)",
        "",
        "a file that took the RAM file's name is read instead",
        (f"{RIGHTS}::test_without_privileges_files_of_one_name_are_told_apart",),
    ),
    Mutant(
        "libmicrovmi_py/transport/processes.py",
        "return same and self.offset == other.offset + (other.end - other.start)",
        "return same",
        "mappings of a file that do not follow in it are joined: wrong bytes",
        (f"{RIGHTS}::test_mappings_of_a_file_that_do_not_follow_in_it_are_two",),
    ),
    Mutant(
        "libmicrovmi_py/transport/procmem.py",
        "failed(self.pid, err) from err\n        if not self._process.alive:\n            raise self._gone()\n",
        "failed(self.pid, err) from err\n",
        "memory of another process of the same pid is opened",
        (f"{RIGHTS}::test_a_process_that_got_the_id_of_one_that_ended_is_not_taken_for_it",),
    ),
    # a root reader beside other users
    Mutant(
        "libmicrovmi_py/drivers/qemu/memory.py",
        "HostMapping(fd, vma.offset, size, writable=vma.writable,",
        "HostMapping(fd, vma.offset, size, writable=True,",
        "a file that the process may only read is written with root's rights",
        (f"{RIGHTS}::test_a_file_that_a_process_may_only_read_is_not_written_for_it",),
    ),
    Mutant(
        "libmicrovmi_py/drivers/qemu/memory.py",
        "        if not vma.writable:\n            return self._read_only[0 if self._filled else 1], host\n",
        "",
        "a write is forced into memory that the process has mapped read-only",
        (f"{RIGHTS}::test_memory_that_is_mapped_read_only_is_not_forced",),
    ),
    Mutant(
        "libmicrovmi_py/transport/processes.py",
        "return same and self.writable == other.writable",
        "return same",
        "private RAM cannot be written, as QEMU has a page beside it that nobody may touch",
        (f"{RIGHTS}::test_private_memory_beside_a_page_that_nobody_may_touch_is_written",),
    ),
    Mutant(
        "libmicrovmi_py/transport/backing.py",
        "for vma, fd in found.items() if vma in mapped}",
        "for vma, fd in found.items()}",
        "a file is opened whose inode number was that of a mapped one",
        (f"{RIGHTS}::test_a_file_that_is_not_mapped_any_more_is_not_taken",),
    ),
    Mutant(
        "libmicrovmi_py/transport/processes.py",
        "writable=last.writable and vma.writable)",
        "writable=last.writable)",
        "a page that the process may not write is written beside one that it may",
        (f"{RIGHTS}::test_memory_of_which_a_part_is_read_only_is_not_written",),
    ),
    Mutant(
        "libmicrovmi_py/transport/processes.py",
        'return _content(self.path("maps")).split(b"\\n")',
        'return _content(self.path("maps")).replace(b"\\r", b"\\n").split(b"\\n")',
        "a file name with a carriage return makes every look at that process a defect",
        (f"{RIGHTS}::test_a_mapped_file_with_a_line_end_in_its_name_breaks_no_list_of_mappings",),
    ),
    Mutant(
        "libmicrovmi_py/drivers/qemu/files.py",
        " or status.st_uid != user or",
        " or",
        "a hostile process has the reader's own file read and written as its guest's memory",
        (f"{USERS}::test_a_file_of_another_user_than_qemus_is_not_opened_on_its_word",),
    ),
    Mutant(
        "libmicrovmi_py/drivers/qemu/files.py",
        "        if content != before and before == os.pread(fd.number, _SAMPLE, offset):\n            return False\n",
        "",
        "a file that took the name of the RAM file is read instead, by another user",
        (f"{USERS}::test_a_file_that_took_the_name_of_the_memory_file_is_not_read",),
    ),
    Mutant(
        "libmicrovmi_py/_native/process.c",
        "    case EBADF: /* no descriptor: the process may not be looked into */\n",
        "",
        "memory that may not be looked into is told as an I/O error",
        (f"{USERS}::test_what_is_in_no_file_exists_and_is_refused",),
    ),
    Mutant(
        "libmicrovmi_py/drivers/qemu/memory.py",
        "        return SharedFiles(process, err, mapped=mapped)\n",
        "        raise\n",
        "shared RAM of another user takes a debugger's rights",
        (f"{USERS}::test_shared_memory_is_read_and_written_through_its_file",),
    ),
    Mutant(
        "libmicrovmi_py/drivers/virtualbox/owner.py",
        "    if status.st_mode & others:\n",
        "    if False:\n",
        "whoever can write the channel plays the machine",
        (f"{FDP}::test_shared_memory_that_others_can_write_is_not_touched",),
    ),
    Mutant(
        "libmicrovmi_py/drivers/virtualbox/owner.py",
        "    if not (named and ours) and not _is_served(status):\n",
        "    if not named and not ours:\n",
        "a bare name wipes a file in /dev/shm that no machine has",
        (f"{FDP}::test_a_bare_name_touches_no_shared_memory_that_no_machine_has",),
    ),
    Mutant(
        "libmicrovmi_py/drivers/memflow.py",
        "package.Inventory(folder).create",
        "package.Inventory().create",
        "every file of the working directory is read as a whole",
        (f"{MEMFLOW}::test_arguments_and_target_reach_the_connector",),
    ),
    # answers
    Mutant(
        "libmicrovmi_py/transport/messages.py",
        " and not _too_deep(line):\n",
        ":\n",
        "a nested answer overruns a host thread's stack",
        (f"{QMP}::test_deeper_ones_are_refused_before_they_take_stack",),
    ),
    Mutant(
        "libmicrovmi_py/transport/messages.py",
        '.replace(b\'\\\\"\', b"")',
        "",
        "an answer with quotes and brackets in a text is refused",
        (f"{QMP}::test_objects_within_each_other_are_read_to_a_depth",),
    ),
    Mutant(
        "libmicrovmi_py/transport/messages.py",
        "LARGEST_MESSAGE = 4 << 20",
        "LARGEST_MESSAGE = 64 << 20",
        "an answer takes 1.8 GB",
        (f"{QMP}::test_an_answer_takes_memory_and_time_by_its_limit",),
    ),
    Mutant(
        "libmicrovmi_py/transport/qmp.py",
        'told = reply.get("id")\n',
        'told = reply.get("id", number)\n',
        "what another client had asked without an id is taken for an answer of ours",
        (f"{QMP}::test_nor_is_what_it_asked_without_an_id",),
    ),
    Mutant(
        "libmicrovmi_py/drivers/qemu/layout.py",
        "_HOST.fullmatch(question",
        "_HOST.search(question",
        "a text of 240 KB is searched for half a minute",
        (f"{ANSWERS}::test_a_text_made_to_be_searched_for_ever_is_read_in_no_time",),
    ),
    Mutant(
        "libmicrovmi_py/transport/processes.py",
        "bisect.bisect_right(lines, start, key=_end)",
        "next((at for at, line in enumerate(lines) if _end(line) > start), len(lines))",
        "4000 ranges in 60,000 mappings take half a minute",
        (f"{ANSWERS}::test_many_ranges_in_a_process_of_many_mappings_take_no_time",),
    ),
    Mutant(
        "libmicrovmi_py/drivers/qemu/memory.py",
        "        if len(parts) > _PARTS:\n",
        "        if False:\n",
        "part of the guest's memory is missing silently, or the host's memory is used up",
        (f"{ANSWERS}::test_ranges_that_lie_in_more_mappings_than_can_be_are_an_error",),
    ),
    Mutant(
        "libmicrovmi_py/drivers/qemu/memory.py",
        "[: max(0, _FILES - len(self._files))]",
        "",
        "a process with many mappings uses up the host's descriptors",
        (f"{ANSWERS}::test_no_more_files_are_mapped_than_a_qemu_has",),
    ),
    Mutant(
        "libmicrovmi_py/transport/shape.py",
        "not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high",
        "not isinstance(value, int) or not low <= value <= high",
        "true is taken for the number of a vCPU",
        (f"{ANSWERS}::test_an_answer_of_the_wrong_shape_is_an_io_error",),
    ),
    Mutant(
        "libmicrovmi_py/transport/shape.py",
        "    if value >> bits:\n",
        "    if False:\n",
        "a register value of 40 digits is an internal error",
        (f"{ANSWERS}::test_a_value_that_no_register_can_hold_is_an_io_error",),
    ),
    Mutant(
        "libmicrovmi_py/transport/shape.py",
        "not _DIGITS.issuperset(digits)",
        "not digits.isdigit()",
        "a superscript two as a port is an internal error",
        (FUZZ,),
    ),
    Mutant(
        "libmicrovmi_py/transport/unixsock.py",
        "(OSError, ValueError, OverflowError)",
        "OSError",
        "a host label of 64 characters is an internal error",
        (f"{FUZZ}::test_places_where_nothing_can_listen_are_told",),
    ),
    # what errors and log lines say
    Mutant(
        "libmicrovmi_py/errors.py",
        "super().__init__(*(escaped(item) if isinstance(item, str) else item for item in args))",
        "super().__init__(*args)",
        "a machine's name moves the cursor of whoever reads the error",
        (f"{ERRORS}::test_the_text_of_every_error_is_one_safe_line",),
    ),
    Mutant(
        "libmicrovmi_py/errors.py",
        "        self._found.addFilter(_as_one_line)\n",
        "",
        "a file's name forges lines in a host's log",
        (f"{ERRORS}::test_log_lines_are_safe_for_every_handler_of_a_host",),
    ),
    Mutant(
        "libmicrovmi_py/errors.py",
        "\\u2029\\u202a\\u202b\\u202c\\u202d\\u202e",
        "\\u2029",
        "a machine's name turns the text of an error around",
        (f"{ERRORS}::test_the_text_of_every_error_is_one_safe_line",),
    ),
)
