# SPDX-License-Identifier: Apache-2.0
"""Bugs of memory by address, of the streams, of batches and of kept pages, above the drivers."""

from mutants.mutant import Mutant

HERE = "libmicrovmi_py/memory"
CONTRACT = "tests/contract"
FAILURES = f"{CONTRACT}/test_contract_failures.py"
OWN = "tests/memory/test_failures.py"
VANISHES = f"{OWN}::test_a_frame_that_vanishes_while_it_is_written_is_no_hole"
NOT_WRITTEN = f"{OWN}::test_what_was_read_to_look_does_not_count_as_written"
RANGES = f"{OWN}::test_kept_pages_are_not_read_after_a_write_of_ranges"
CLOSED = f"{OWN}::test_nothing_is_read_or_written_once_the_machine_is_closed"
READS = f"{FAILURES}::test_errors_of_python_tell_the_same"
BATCH = f"{FAILURES}::test_so_do_results_of_a_batch"
STREAMS = f"{FAILURES}::test_streams_of_python_move_by_what_they_read"
WRITES = f"{FAILURES}::test_writes_of_python_tell_how_much_was_written"
C_WRITES = f"{FAILURES}::test_a_write_that_fails_is_seen_as_far_as_it_got"
FILES = "tests/memory/test_io.py"
PHYSICAL = "tests/memory/test_physical.py"

MUTANTS = (
    # ------------------------------------------------------------------------------------------------------- batch
    Mutant(
        f"{HERE}/batch.py",
        "return Result(err.completed, err)",
        "return Result(0, err)",
        "batch: prefix before an I/O error is lost",
        (f"{BATCH}[fake-running]",),
    ),
    Mutant(
        f"{HERE}/batch.py",
        "None if done == size else not_mapped(address, size, done)",
        "None if done else not_mapped(address, size, done)",
        "batch: a request that got a part counts as whole",
        (f"{CONTRACT}/test_contract_reads.py::test_each_request_of_a_batch_has_its_own_result[fake]",),
    ),
    Mutant(
        "libmicrovmi_py/errors.py",
        "address=address + done, requested",
        "address=address, requested",
        "the address of a hole is where the read began",
        (f"{CONTRACT}/test_contract_reads.py::test_the_same_from_python[fake]",),
    ),
    # ------------------------------------------------------------------------------------------------------ frames
    Mutant(
        f"{HERE}/frames.py",
        "        finally:\n            for cache in (*caches, *self._caches):\n                cache",
        "        for cache in (*caches, *self._caches):\n            cache",
        "drivers that write ranges, and writes that fail in the middle, leave kept pages stale",
        (RANGES,),
    ),
    Mutant(
        f"{HERE}/frames.py",
        "cache.drop(address, len(data))",
        "cache.drop(address, 1)",
        "only the first page of a write is forgotten",
        (RANGES,),
    ),
    Mutant(
        f"{HERE}/frames.py",
        "kind = IoError if isinstance(err, NotMappedError) else type(err)",
        "kind = type(err)",
        "a frame that vanishes during a write is told as not mapped",
        (VANISHES,),
    ),
    Mutant(
        f"{HERE}/frames.py",
        "    done += min(max(err.completed, 0), size - done)\n",
        "",
        "what a driver of ranges did before an error is not told",
        (f"{RANGES}[True]",),
    ),
    Mutant(
        f"{HERE}/frames.py",
        "kind(str(err), address=address + done,",
        "kind(str(err), address=address,",
        "an error tells where the access began",
        (f"{READS}[fake-running]",),
    ),
    Mutant(
        f"{HERE}/frames.py",
        "            raise _unwritten(err, address, len(data)) from err\n",
        "            raise\n",
        "bytes read to look count as written, and move the cursor",
        (NOT_WRITTEN,),
    ),
    Mutant(
        f"{HERE}/frames.py",
        "                done = piece.end\n",
        "",
        "a write that fails says that nothing was written",
        (f"{WRITES}[fake-paused]",),
    ),
    Mutant(
        f"{HERE}/frames.py",
        "        return [read_one(self.read_into, request) for request in requests]",
        "        return [read_one(self.read_into, requests[0]) for request in requests]",
        "batch: every request gets the result of the first",
        (f"{BATCH}[fake-running]",),
    ),
    Mutant(
        f"{HERE}/frames.py",
        "            with contextlib.suppress(AccessError):\n                return _read_many",
        "            if True:\n                return _read_many",
        "batch: one frame that fails fails all requests",
        ("tests/memory/test_trips.py::test_an_error_in_a_batch_is_that_of_its_request[Batches]",),
    ),
    Mutant(
        f"{HERE}/frames.py",
        "        clear(buffer[done:])\n",
        "",
        "a padded read beyond the addresses that there are leaves the buffer as it was",
        (f"{PHYSICAL}::test_padded_reads_are_zeros_beyond_the_machine",),
    ),
    Mutant(
        f"{HERE}/frames.py",
        "                if not exists:\n                    clear(buffer[ready + begin : ready + end])",
        "                if not exists:\n                    pass",
        "padded: a hole keeps what the buffer held",
        (f"{CONTRACT}/test_contract_reads.py::test_the_same_from_python[fake]",),
    ),
    Mutant(
        f"{HERE}/frames.py",
        "        if cache is not None and len(buffer) <= PAGE_SIZE:",
        "        if cache is not None and len(buffer) <= 0:",
        "small reads over the end of a page, and padded ones, keep no pages for Python",
        ("tests/memory/test_cache.py::test_small_reads_over_the_end_of_a_page_and_padded_ones_keep_both_pages",),
    ),
    Mutant(
        f"{HERE}/frames.py",
        "        cache.keep(epoch, content,",
        "        cache.keep(cache.epoch, content,",
        "a page read before a write of another thread is kept after it",
        ("tests/memory/test_cache.py",),
    ),
    Mutant(
        f"{HERE}/frames.py",
        "            if len(pieces) > 1 or part:\n                self._check_rom",
        "            if len(pieces) > 2 or part:\n                self._check_rom",
        "a write into ROM lands in front of it",
        (PHYSICAL, FILES),
    ),
    Mutant(
        f"{HERE}/frames.py",
        "known.start < end and start < known.end:",
        "known.start < end and start <= known.end:",
        "a write right behind ROM is refused",
        (f"{OWN}::test_writes_right_beside_read_only_memory_land",),
    ),
    Mutant(
        f"{HERE}/frames.py",
        "min(size, (1 << PHYSICAL_BITS) - address)\n    while begin",
        "size\n    while begin",
        "frames above 2^52 are asked for",
        (f"{OWN}::test_no_driver_is_asked_for_a_frame_that_no_machine_has",),
    ),
    Mutant(
        f"{HERE}/frames.py",
        "            done, end = hole, min(hole + PAGE_SIZE, size)",
        "            done, end = hole, size",
        "a padded read over a hole asks for all that is left, frame by frame",
        (
            "tests/drivers/virtualbox/test_virtualbox_memory.py::test_a_padded_read_over_a_large_hole_costs_a_request_a_frame",
        ),
    ),
    Mutant(
        f"{HERE}/frames.py",
        "        valid = parts[: exist.index(False)] if False in exist else parts",
        "        valid = [part for part, there in zip(parts, exist) if there]",
        "batch: what is behind a hole counts as valid",
        ("tests/memory/test_trips.py", PHYSICAL),
    ),
    # ---------------------------------------------------------------------------------------------------------- io
    Mutant(
        f"{HERE}/io.py",
        "            try:\n                done = self._read(position, view)\n            except AccessError as err:\n"
        "                cursor.position = position + err.completed\n                raise",
        "            done = self._read(position, view)",
        "Python stream (frames) does not move by what was read before an error",
        (f"{STREAMS}[fake-running-False]", f"{STREAMS}[fake-running-True]"),
    ),
    Mutant(
        f"{HERE}/io.py",
        '        vars(self).pop("readinto", None)\n',
        "",
        "a closed stream can still be read",
        ("tests/memory/test_stale_streams.py::test_a_closed_stream_is_not_read",),
    ),
    Mutant(
        f"{HERE}/io.py",
        "            try:\n                self._memory.write_from(position, view)\n"
        "            except AccessError as err:\n"
        "                cursor.position = position + err.completed\n                raise",
        "            self._memory.write_from(position, view)",
        "cursor stays although part was written before an error",
        (f"{WRITES}[fake-paused]",),
    ),
    Mutant(
        f"{HERE}/io.py",
        "            cursor.position = position + len(view)\n",
        "            cursor.position += len(view) + 1\n",
        "a write moves the cursor a byte too far",
        (FILES,),
    ),
    Mutant(
        f"{HERE}/io.py",
        "min(max(self._target(cursor.position, offset, whence), 0), self.max_addr)",
        "min(max(self._target(cursor.position, offset, whence), 0), self.max_addr - 1)",
        "the end of memory cannot be sought",
        (FILES,),
    ),
    Mutant(
        f"{HERE}/io.py",
        "            view = view[: max(self.max_addr - position, 0)]\n",
        "",
        "a stream reads beyond the maximum address",
        (FILES,),
    ),
    Mutant(
        f"{HERE}/io.py",
        "        if done == 0 and len(view) > 0:\n",
        "        if done > len(view):\n",
        "a hole under the cursor reads as the end of the file",
        (FILES,),
    ),
    # ---------------------------------------------------------------------------------------------------- physical
    Mutant(
        f"{HERE}/physical.py",
        "        if done < size:\n",
        "        if done == 0 and size:\n",
        "a read of which a part is missing is a success",
        (PHYSICAL, "tests/drivers/test_fake.py"),
    ),
    Mutant(
        f"{HERE}/batch.py",
        "    for address, _ in views:\n        check(address)\n",
        "",
        "batch: an address below 0 reads somewhere",
        (f"{OWN}::test_a_batch_with_an_address_that_cannot_be_reads_nothing",),
    ),
    Mutant(
        f"{HERE}/checks.py",
        "    if not 0 <= address <= U64_MAX:\n        raise Invalid",
        "    if not 0 <= address < U64_MAX:\n        raise Invalid",
        "the last address is refused",
        (PHYSICAL,),
    ),
    Mutant(
        f"{HERE}/physical.py",
        "PageCache(size) if size else None",
        "PageCache(size)",
        "pages are kept although the machine runs",
        ("tests/memory/test_cache.py",),
    ),
    # ------------------------------------------------------------------------------------------------------- whole
    Mutant(
        "libmicrovmi_py/machine/microvmi.py",
        "        self._check_open()\n        return self._physical.read_batch(",
        "        return self._physical.read_batch(",
        "batch read after close",
        (CLOSED,),
    ),
    Mutant(
        "libmicrovmi_py/machine/microvmi.py",
        "        self._check_open()\n        self._physical.write_from(",
        "        self._physical.write_from(",
        "write after close",
        (CLOSED,),
    ),
    Mutant(
        "libmicrovmi_py/machine/microvmi.py",
        "        self._check_open()\n        if size < 1:",
        "        if size < 1:",
        "memory is mapped after close",
        (CLOSED,),
    ),
    Mutant(
        "libmicrovmi_py/machine/microvmi.py",
        "        if size < 1:",
        "        if size < 0:",
        "a mapping of no bytes",
        ("tests/capi/test_map.py",),
    ),
    Mutant(
        "libmicrovmi_py/machine/keeping.py",
        "    if not 0 <= size <= LARGEST_CACHE:",
        "    if not size <= LARGEST_CACHE:",
        "cache=-1 is accepted",
        ("tests/memory/test_cache.py", "tests/capi/test_open.py"),
    ),
)
