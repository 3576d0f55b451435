# SPDX-License-Identifier: Apache-2.0
"""Planted bugs of reads and writes in C, and of what stands next to them in Python."""

from __future__ import annotations

from mutants.mutant import Mutant

_N = "libmicrovmi_py/_native/"
_LEFT = "tests/memory/test_left.py::"
_MIDDLE = "tests/memory/test_middle.py::"
_CHECKS = "tests/memory/test_checks.py::"
_ARRIVING = "tests/memory/test_arriving.py"
_UNPLUGGED = "tests/drivers/test_qemu_unplugged.py"
_WAYS = "tests/memory/test_ways.py::"
_SPARSE = "tests/memory/test_sparse.py::"
_REUSED = _MIDDLE + "test_another_process_of_the_same_number_is_neither_read_nor_written"
_COUNTS = _MIDDLE + "test_a_read_counts_what_came_before_the_error"
_KILLED = _LEFT + "test_a_killed_machine_is_noticed_by_every_reader"
_BEHIND = _LEFT + "test_what_threads_leave_behind_holds_nobody_up"
_CUT = _LEFT + "test_a_file_that_is_cut_is_an_error_of_reads_that_look"

MUTANTS = (
    # ---------------------------------------------------------------------------------- pages that are kept, tables
    Mutant(
        _N + "cache.c",
        "        munmap(cache->bytes, cache->size);",
        "        (void)cache->bytes;",
        "leak of 16 MiB for each pause",
        (_MIDDLE + "test_a_cache_is_given_back",),
    ),
    Mutant(
        _N + "direct.c",
        "start < region->start ||\n",
        "false ||\n",
        "a kept page has bytes from before its region, and holes read as data",
        (_MIDDLE + "test_nor_has_it_for_c",),
    ),
    Mutant(
        _N + "cache.h",
        "(table->watched == NULL || !mvi_has_ended_by(table->watched, CLOCK_MONOTONIC_COARSE))",
        "true",
        "kept pages of a machine that was killed are read for ever",
        (_KILLED,),
    ),
    Mutant(
        _N + "table.h",
        "    return (size_t)((region->size - 1) >> MVI_CHUNK_SHIFT) + 1;",
        "    return (size_t)((region->size - 1) >> MVI_CHUNK_SHIFT);",
        "chunk map one short: heap overflow for sizes not a multiple of 64 KiB",
        (_MIDDLE + "test_files_of_any_size_around_chunks",),
        "the byte behind is read, and belongs to the allocator: make sanitize-memory sees it",
    ),
    Mutant(
        _N + "table.c",
        "    table->bucket_shift = width > bits ? width - bits : 0;",
        "    table->bucket_shift = width - bits;",
        "shift by 2^32-1 for more tiny regions than address bits",
        ("tests/memory/test_table.py",),
        "x86 takes six bits of the count: look-ups are right, and slow; make sanitize-memory (UBSan) sees it",
    ),
    Mutant(
        _N + "table.c",
        "regions[index].start <= mvi_last(&regions[index - 1])",
        "false",
        "regions that overlap or descend are searched as if they did not",
        (_CHECKS + "test_c_refuses_them_by_itself",),
    ),
    Mutant(
        _N + "table.c",
        "    return region->size > 0 && region->size - 1 <= UINT64_MAX - region->start &&",
        "    return region->size > 0 &&",
        "a region that wraps around is read out of bounds",
        (_CHECKS + "test_c_refuses_them_by_itself",),
    ),
    Mutant(
        "libmicrovmi_py/memory/direct.py",
        "        check_ranges(regions)\n",
        "",
        "a driver's wrong map is told as too little memory",
        (_CHECKS + "test_regions_that_cannot_be_are_refused_at_the_opening",),
    ),
    Mutant(
        "libmicrovmi_py/memory/direct.py",
        "not 0 <= region.offset <= len(view) - region.size",
        "not 0 <= region.offset <= len(view)",
        "a region reads beyond its mapping",
        (_CHECKS + "test_regions_beyond_their_source_are_refused",),
    ),
    Mutant(
        "libmicrovmi_py/memory/checks.py",
        "    if not 0 <= done <= asked:",
        "    if done < 0:",
        "a driver that says it read more than it was asked for is believed",
        (_CHECKS + "test_a_count_of_bytes_that_cannot_be_is_an_error",),
    ),
    # ---------------------------------------------------------------------------------- processes that end
    Mutant(
        _N + "direct.c",
        "    if (got > 0 && mvi_has_ended(first))\n        got = 0;\n",
        "",
        "batch: bytes of another process that got the pid",
        (_MIDDLE + "test_a_batch_neither",),
    ),
    Mutant(
        _N + "direct.c",
        "    if (code == MICROVMI_ERROR_VM_GONE || mvi_has_ended(region))\n",
        "    if (code == MICROVMI_ERROR_VM_GONE)\n",
        "eight readers keep a killed QEMU's memory alive and read on",
        (_KILLED, _REUSED),
    ),
    Mutant(
        _N + "direct.c",
        "        if (region->pidfd >= 0 && mvi_has_ended(region))\n            return MICROVMI_ERROR_VM_GONE;\n",
        "",
        "a write into the mapping of a QEMU that ended is a success",
        (_KILLED,),
    ),
    Mutant(
        _N + "process.c",
        "    return region->pid != 0 ? MICROVMI_ERROR_VM_GONE : MICROVMI_ERROR_IO;",
        "    return region->pid != 0 ? MICROVMI_OK : MICROVMI_ERROR_IO;",
        "a write to a QEMU that ended is a success",
        (_REUSED,),
    ),
    Mutant(
        _N + "look.h",
        "    return look->at_what == at_what && now - look->when <= MVI_LOOK_LASTS;",
        "    return now - look->when <= MVI_LOOK_LASTS;",
        "a look at one machine counts for another",
        (_MIDDLE + "test_the_end_of_one_process_says_nothing_of_another",),
    ),
    Mutant(
        _N + "look.h",
        "    return look->at_what == at_what && now - look->when <= MVI_LOOK_LASTS;",
        "    return look->at_what == at_what;",
        "a process that ran once runs for ever",
        (_KILLED,),
    ),
    # ---------------------------------------------------------------------------------- memory on its way, unplugged
    Mutant(
        _N + "process.c",
        "region->pid != 0 && !region->arriving && size - *done >= MVI_READV_FROM",
        "region->pid != 0 && size - *done >= MVI_READV_FROM",
        "a read of 64 KiB waits for a migration that hangs",
        (_ARRIVING,),
    ),
    Mutant(
        _N + "direct.c",
        "    return mvi_is_process(region) && !region->arriving && region->mapping == NULL && mvi_holds(",
        "    return mvi_is_process(region) && region->mapping == NULL && mvi_holds(",
        "a batch waits for a migration that hangs",
        (_ARRIVING,),
    ),
    Mutant(
        _N + "direct.c",
        "(region->unsteady && !checked))",
        "false)",
        "an old map writes a DIMM that was unplugged",
        (_UNPLUGGED,),
    ),
    Mutant(
        "libmicrovmi_py/memory/direct.py",
        "        self._look_again(address, size)\n",
        "",
        "the same: the map is not asked for",
        (_UNPLUGGED,),
    ),
    # ---------------------------------------------------------------------------------- errors in the middle
    Mutant(
        _N + "direct.c",
        "            code = MVI_ASK_PYTHON;\n        at += mvi_part(",
        "            code = MVI_ASK_PYTHON;\n        else\n            code = MICROVMI_OK;\n        at += mvi_part(",
        "write across two regions of which one is not open for writing: NULL write",
        (_MIDDLE + "test_a_write_across_two_regions_opens_both",),
    ),
    Mutant(
        _N + "direct.c",
        "    return (uint64_t)found - region->offset < end ? (uint64_t)found - region->offset : end;",
        "    return (uint64_t)found - region->offset;",
        "SEEK_DATA and SEEK_HOLE beyond the region's end when the file goes on",
        (_MIDDLE + "test_the_next_region_is_searched_from_its_start",),
    ),
    Mutant(
        _N + "pagemap.c",
        "        if (next > until)\n            break;\n",
        "",
        "looks at pages beyond what pagemap was asked for",
        (_MIDDLE + "test_pages_beyond_those_that_were_asked_about_are_not_taken_for_untouched",),
        "what lies behind them on the stack, its canary, looks like a page that is there: make sanitize-memory sees it",
    ),
    Mutant(
        _N + "direct.c",
        "        at += got;\n        if (code != MICROVMI_OK) {",
        "        if (code != MICROVMI_OK) {",
        "what came before an error is not counted",
        (_COUNTS,),
    ),
    Mutant(
        _N + "stream.c",
        "    mvi_cursor_set(cursor, *position + *done);",
        "    mvi_cursor_set(cursor, *position + (code == MICROVMI_OK ? *done : 0));",
        "stream cursor does not move by what was read before an error",
        (_MIDDLE + "test_both_streams_move_by_what_came_before_the_error",),
    ),
    Mutant(
        _N + "stream.c",
        "    mvi_thread.failed_done = done;",
        "    mvi_thread.failed_done = 0;",
        "Python: `completed` of a stream read that failed is 0",
        (_MIDDLE + "test_both_streams_move_by_what_came_before_the_error",),
    ),
    Mutant(
        _N + "stream.c",
        "    mvi_cursor_lock(cursor);\n    if (whence == SEEK_CUR)\n"
        "        start = mvi_moved(mvi_cursor_get(cursor), offset, maximum);",
        "    if (whence == SEEK_CUR)\n        start = mvi_moved(mvi_cursor_get(cursor), offset, maximum);\n"
        "    mvi_cursor_lock(cursor);\n    if (whence == SEEK_CUR)\n        ;",
        "SEEK_CUR reads the cursor outside the lock: lost updates",
        (_BEHIND + "[seek]",),
    ),
    Mutant(
        "libmicrovmi_py/memory/direct.py",
        "            for forget in self._forget:\n                forget()\n",
        "",
        "Python streams keep using the table from before a pause or resume",
        (_MIDDLE + "test_python_streams_forget_kept_pages_with_everybody_else",),
    ),
    Mutant(
        "libmicrovmi_py/memory/direct.py",
        "            raise read_error(code, address, len(buffer), done)\n        return done",
        "            raise read_error(code, address, len(buffer), 0)\n        return done",
        "completed of a failed read is 0",
        (_COUNTS,),
    ),
    Mutant(
        "libmicrovmi_py/memory/direct.py",
        "            region.source.open_for_writing()\n",
        "            region.source.open_for_writing()\n            break\n",
        "first write across two regions fails",
        (_MIDDLE + "test_a_write_across_two_regions_opens_both",),
    ),
    # ---------------------------------------------------------------------------------- threads
    Mutant(
        _N + "readers.c",
        "    __atomic_store_n(&((struct mvi_reader *)reader)->taken, 0, __ATOMIC_RELEASE);\n",
        "",
        "64 bytes lost for each thread that ends, and a growing list to wait for",
        (_BEHIND + "[many]",),
    ),
    Mutant(
        _N + "readers.c",
        "        (void)syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);",
        "        (void)SYS_membarrier;",
        "no membarrier: a table may be freed under a reader",
        (_BEHIND + "[fence]",),
    ),
    Mutant(
        _N + "readers.c",
        "    mvi_near_none();\n    __atomic",
        "    __atomic",
        "a destructor of the host's uses another thread's reader: a destroy does not wait, SIGSEGV",
        (_LEFT + "test_nor_what_they_leave_of_words_of_a_machine[late]",),
    ),
    Mutant(
        _N + "readers.c",
        "        __atomic_store_n(&mvi_thread.reader->used, 0, __ATOMIC_RELEASE);\n    }\n    __atomic_thread_fence",
        "    }\n    __atomic_thread_fence",
        "a destroy waits for a read that its own thread left by a jump",
        (_BEHIND + "[jump]",),
    ),
    Mutant(
        _N + "readers.c",
        "        if (mvi_clock(CLOCK_MONOTONIC) > end)\n            return false;\n",
        "",
        "a destroy waits for a stuck read for ever",
        (_LEFT + "test_a_read_that_never_ends_does_not_hold_a_destroy_up",),
    ),
    Mutant(
        "libmicrovmi_py/_capi/handles.py",
        "            if self._published is not None and _is_read(self._published):\n",
        "            if self._published is None:\n",
        "what a stuck read uses is freed",
        (_LEFT + "test_a_read_that_never_ends_does_not_hold_a_destroy_up",),
    ),
    Mutant(
        _N + "stream.c",
        "PTHREAD_MUTEX_ERRORCHECK",
        "PTHREAD_MUTEX_NORMAL",
        "a thread that left a stream's read by a jump locks itself out",
        (_BEHIND + "[jump]",),
    ),
    Mutant(
        _N + "look.h",
        "    return (ssize_t)syscall(SYS_pread64, fd, buffer, size, (off_t)offset);",
        "    return pread(fd, buffer, size, (off_t)offset);",
        "a reader that is cancelled leaves with the cursor's lock",
        (_LEFT + "test_cancelled_readers_do_not_hold_a_destroy_up",),
    ),
    # ---------------------------------------------------------------------------------- files that are cut, images
    Mutant(
        _N + "look.c",
        "    if (size < MVI_LOOK_FROM && mvi_looked(",
        "    if (mvi_looked(",
        "large reads rely on a look of before",
        (_CUT,),
        "a millisecond passes before the test reads, as no test can cut a file in less and be sure of it",
    ),
    Mutant(
        _N + "direct.c",
        "    size_t there = size >= MVI_SPARSE_FROM ? mvi_still_there(region, offset, size) : size;",
        "    size_t there = size;",
        "a large read of a file that was cut ends the process",
        (_CUT,),
    ),
    Mutant(
        _N + "sparse.h",
        "    if (region->image && (size == 0 || !mvi_may_touch(table->dense[hit], offset, size)))",
        "    if (false)",
        "small reads of an image allocate its holes",
        (_SPARSE + "test_small_reads_of_an_image_allocate_nothing",),
    ),
    Mutant(
        _N + "table.c",
        "region->bytes != NULL && !region->image && region->size >= 8 ?",
        "region->bytes != NULL && region->size >= 8 ?",
        "words of an image's holes are touched",
        (_SPARSE + "test_an_image_with_holes_is_read_on_a_file_system_that_is_full", _CUT),
    ),
    Mutant(
        "libmicrovmi_py/transport/mapping.py",
        "if self._image and self._mapped and self._readable is None:",
        "if self._image and self._readable is None:",
        "mapped=no maps",
        (_LEFT + "test_nothing_of_a_file_that_is_not_mapped_ends_the_process",),
    ),
    # --------------------------------------------------------------------------------- reads that make Python's objects
    Mutant(
        _N + "objects.c",
        "    if (done == size)\n",
        "    if (done >= 0)\n",
        "a read that ends early hands out what was in memory before",
        (_WAYS + "test_read_of_a_stream_is_readinto",),
    ),
    Mutant(
        _N + "objects.c",
        "        PyBuffer_Release(&views[taken]);",
        "        (void)views[taken];",
        "the buffers of a batch stay locked",
        (_WAYS + "test_buffers_are_let_go_of_after_a_batch",),
    ),
    Mutant(
        _N + "objects.c",
        "        if (taken == wanted) {",
        "        if (taken > 0) {",
        "a batch with a request that cannot be reads something",
        (_WAYS + "test_a_batch_with_a_request_that_cannot_be_reads_nothing",),
    ),
    Mutant(
        "libmicrovmi_py/memory/io.py",
        "        except OverflowError:  # more than 64 bits\n            return self._seek(offset, whence)",
        "        except OverflowError:  # more than 64 bits\n            return self.tell()",
        "a seek by more than 64 bits goes nowhere",
        (_WAYS + "test_a_seek_saturates_whatever_it_is_handed",),
    ),
    Mutant(
        "libmicrovmi_py/memory/io.py",
        "        self._direct = None\n        super().close()",
        "        super().close()",
        "a closed stream is read",
        (_WAYS + "test_a_closed_stream_is_not_read_or_moved",),
    ),
    # ---------------------------------------------------------------------------------- the start, and turns
    Mutant(
        "libmicrovmi_py/errors.py",
        "import errno\n",
        "import errno\nimport logging\n",
        "every program waits for a module that it does not need",
        ("tests/startup/test_start.py",),
    ),
    Mutant(
        "libmicrovmi_py/declare.py",
        "if value is None or value is kind",
        "if value is kind",
        "a driver that takes a method away has the ability all the same",
        ("tests/test_declare.py::test_protocols_are_had_or_lacked_as_typing_says",),
    ),
    Mutant(
        "libmicrovmi_py/declare.py",
        "if type(other) is type(self) else NotImplemented",
        "if isinstance(other, type(self)) or True else NotImplemented",
        "values of two classes are compared as if they were of one",
        ("tests/test_declare.py::test_objects_are_made_compared_and_shown_alike",),
    ),
    Mutant(
        "libmicrovmi_py/transport/native.py",
        "    if lib.mvi_turns_wanted:",
        "    if lib.mvi_turns_wanted > 100:",
        "small reads wait for Python beside a long one",
        ("tests/capi/test_turns.py::test_small_reads_get_their_turn_beside_a_long_one",),
    ),
)
