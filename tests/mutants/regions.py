# SPDX-License-Identifier: Apache-2.0
"""Bugs of regions: tables in C and their Python side, kept pages, another process's memory; and of who undoes what."""

from mutants.mutant import Mutant

NATIVE = "libmicrovmi_py/_native"
DIRECT = "libmicrovmi_py/memory/direct.py"
MIDDLE = "tests/memory/test_middle.py"
STALE = "tests/memory/test_stale_streams.py"
FAILURES = "tests/contract/test_contract_failures.py"
CHILD = "tests/test_microvmi.py::test_the_end_of_the_process_resumes_but_not_that_of_a_child"

MUTANTS = (
    Mutant(
        f"{NATIVE}/hot.c",
        "start < region->start ||\n        PAGE_SIZE > region->size - (start - region->start))",
        "false)",
        "a region that begins within a page keeps bytes from before it, holes then read as data",
        (f"{MIDDLE}::test_a_kept_page_has_nothing_from_before_its_region",),
    ),
    Mutant(
        f"{NATIVE}/hot.c",
        "            (region->unsteady && !checked))\n            code = MVI_ASK_PYTHON;",
        "            (region->unsteady && !checked))\n            code = at == 0 ? MVI_ASK_PYTHON : code;",
        "write across two regions of which the second is not open for writing: NULL write",
        (f"{MIDDLE}::test_a_write_across_two_regions_opens_both",),
    ),
    Mutant(
        f"{NATIVE}/hot.c",
        "    if (got > 0 && mvi_has_ended(first))\n        got = 0;\n",
        "",
        "batch: bytes of another process that got the pid",
        (f"{MIDDLE}::test_a_batch_neither",),
    ),
    Mutant(
        f"{NATIVE}/hot.c",
        "    return (uint64_t)found - region->offset < region->size ? (uint64_t)found - region->offset : region->size;",
        "    return (uint64_t)found - region->offset;",
        "SEEK_DATA or SEEK_HOLE beyond the region's end when the file goes on",
        (f"{MIDDLE}::test_data_and_holes_end_with_the_region",),
    ),
    Mutant(
        f"{NATIVE}/pagemap.h",
        "    until = until < end ? until : end;\n",
        "    until = end;\n",
        "looks at pages beyond what pagemap was asked for",
        (f"{MIDDLE}::test_pages_beyond_those_that_were_asked_about_are_not_taken_for_untouched",),
    ),
    Mutant(
        f"{NATIVE}/table.h",
        "    return (size_t)((region->size - 1) >> MVI_CHUNK_SHIFT) + 1;",
        "    return (size_t)(region->size >> MVI_CHUNK_SHIFT);",
        "chunk map one short: heap overflow for sizes not a multiple of 64 KiB",
        (f"{MIDDLE}::test_files_of_any_size_around_chunks",),
    ),
    Mutant(
        f"{NATIVE}/table.h",
        "width > bits ? width - bits : 0",
        "width - bits",
        "shift by 2^32-1 for more tiny regions than address bits",
        ("tests/memory/test_table.py",),
    ),
    Mutant(
        f"{NATIVE}/cache.h",
        "        munmap(cache->bytes, cache->places << PAGE_SHIFT);\n    free(cache);\n}",
        "        (void)cache->bytes;\n    free(cache);\n}",
        "leak of 16 MiB for each pause",
        (f"{MIDDLE}::test_a_cache_is_given_back",),
    ),
    Mutant(
        DIRECT,
        "            for forget in self._forget:\n                forget()\n",
        "",
        "Python streams keep using the table from before a pause or resume",
        (f"{STALE}::test_a_stream_follows_pause_and_resume",),
    ),
    Mutant(
        DIRECT,
        "        if code and code != NotMappedError.code:\n            raise _error(code, address, len(buffer), done)",
        "        if code and code != NotMappedError.code:\n            raise _error(code, address, len(buffer), 0)",
        "completed of a failed read is 0",
        (f"{FAILURES}::test_errors_of_python_tell_the_same[qemu-running]",),
    ),
    Mutant(
        DIRECT,
        "        if code:\n            raise _error(code, address, len(buffer), done)\n\n    def _read(",
        "        if code:\n            raise _error(code, address, len(buffer), 0)\n\n    def _read(",
        "completed of a failed padded read is 0",
        (f"{FAILURES}::test_errors_of_python_tell_the_same[qemu-running]",),
    ),
    Mutant(
        DIRECT,
        "if item.start < address + size and address < item.end]",
        "if item.start <= address < item.end]",
        "first write across two regions fails",
        (f"{MIDDLE}::test_a_write_across_two_regions_opens_both",),
    ),
    Mutant(
        DIRECT,
        "    error = _error(row.error, row.physical_address, row.size, row.bytes_read) if row.error else None",
        "    error = _error(row.error, row.physical_address, row.size, 0) if row.error else None",
        "batch: an error of one request says that nothing was read",
        (f"{FAILURES}::test_so_do_results_of_a_batch[qemu-running]",),
    ),
    Mutant(
        DIRECT,
        "                del target  # the error's traceback holds this frame: see _address()\n",
        "",
        "an error of a stream that is kept crashes the host",
        (
            f"{FAILURES}::test_an_error_that_is_kept_in_a_cycle_harms_nothing_when_it_is_collected[qemu-running]",
            f"{FAILURES}::test_an_error_that_is_kept_in_a_cycle_harms_nothing_when_it_is_collected[qemu-paused]",
        ),
    ),
    Mutant(
        "libmicrovmi_py/control.py",
        "self._keep_pages(self._cache_size if wanted else 0)",
        "self._keep_pages(self._cache_size)",
        "pages are still served from the cache after the machine runs",
        (f"{STALE}::test_a_stream_follows_pause_and_resume",),
    ),
    Mutant(
        "libmicrovmi_py/release.py",
        "for machine, pid in list(_touched.values()) if pid == os.getpid()], timeout)",
        "for machine, pid in list(_touched.values())], timeout)",
        "a forked Python child undoes at its exit what its parent did",
        (CHILD,),
    ),
)
