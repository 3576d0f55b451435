# SPDX-License-Identifier: Apache-2.0
"""Bugs of what is written in C: contexts, cursors, tables, kept pages, the walk over regions."""

from mutants.mutant import Mutant

HERE = "libmicrovmi_py/_native"
REUSE = "tests/capi/test_context_reuse.py"
READS_OF_GONE = f"{REUSE}::test_reads_of_any_size_are_refused_and_leave_the_buffer_alone"
RIGHT_AFTER = f"{REUSE}::test_a_word_is_refused_right_after_the_end_and_after_another_took_the_place"
WORDS_IN_TURN = f"{REUSE}::test_words_of_two_machines_in_turn_are_each_its_own"
WORDS_AND_ERRORS = f"{REUSE}::test_a_word_that_was_read_clears_the_error"
TABLE = "tests/memory/test_table.py"
HAMMER = "tests/threads/test_hammer.py"
ON_IMAGE = f"{HAMMER}::test_on_a_mapped_image"
FAILURES = "tests/contract/test_contract_failures.py"
STREAM = f"{FAILURES}::test_a_stream_moves_by_what_it_read"
C_READS = f"{FAILURES}::test_a_read_tells_what_it_has"
C_WRITES = f"{FAILURES}::test_a_write_that_fails_is_seen_as_far_as_it_got"
PY_STREAM = f"{FAILURES}::test_streams_of_python_move_by_what_they_read"
FILES = "tests/memory/test_io.py"
CACHE = "tests/memory/test_cache.py"
STALE = "tests/memory/test_stale_streams.py"

MUTANTS = (
    Mutant(
        f"{HERE}/readers.h",
        "current = __builtin_expect(__atomic_load_n(near->place, __ATOMIC_ACQUIRE) == edition, 1)",
        "current = __builtin_expect(__atomic_load_n(near->place, __ATOMIC_ACQUIRE) != 0, 1)",
        "an 8-byte read through a destroyed context reads another machine",
        (RIGHT_AFTER,),
    ),
    Mutant(
        f"{HERE}/readers.h",
        "near->context != context || offset",
        "offset",
        "words are read of the machine that the thread read last, whichever was asked for",
        (READS_OF_GONE, WORDS_IN_TURN),
    ),
    Mutant(
        f"{HERE}/error.c",
        "    mvi_near_none(); /* the next word clears the error */\n",
        "",
        "a word that was read leaves the error of the call before",
        (WORDS_AND_ERRORS,),
    ),
    Mutant(
        f"{HERE}/context.c",
        "    slot->generation = (slot->generation + 1) & ((1u << MVI_GENERATION_BITS) - 1);\n",
        "",
        "a destroyed context is that of the next machine",
        (REUSE,),
    ),
    Mutant(
        f"{HERE}/context.c",
        "        slot->cursors[0] = plain;\n            slot->cursors[1] = padded;",
        "        slot->cursors[0] = padded;\n            slot->cursors[1] = plain;",
        "the streams have each other's cursor",
        ("tests/contract/test_contract_writes.py::test_the_plain_stream_writes_and_moves[qemu]",),
    ),
    Mutant(
        f"{HERE}/stream.c",
        "    mvi_cursor_lock(cursor);\n    if (whence == SEEK_CUR)\n"
        "        start = mvi_moved(mvi_cursor_get(cursor), offset, maximum);",
        "    if (whence == SEEK_CUR)\n        start = mvi_moved(mvi_cursor_get(cursor), offset, maximum);\n"
        "    mvi_cursor_lock(cursor);\n    if (whence == SEEK_CUR)\n        ;",
        "SEEK_CUR reads the cursor outside the lock: lost updates",
        (ON_IMAGE,),
    ),
    Mutant(
        f"{HERE}/stream.c",
        "    mvi_cursor_set(cursor, *position + *done);",
        "    mvi_cursor_set(cursor, *position + (code == MICROVMI_OK ? *done : 0));",
        "stream cursor does not move by what was read before an error",
        (f"{STREAM}[qemu-running-]",),
    ),
    Mutant(
        f"{HERE}/stream.c",
        "    mvi_thread.failed_done = done;",
        "    mvi_thread.failed_done = 0;",
        "Python: `completed` of a stream read that failed is 0",
        (f"{PY_STREAM}[qemu-running-False]",),
    ),
    Mutant(
        f"{HERE}/stream.c",
        "        from = from + distance < from ? maximum : from + distance;",
        "        from = from + distance;",
        "a seek far ahead wraps round",
        (
            "tests/capi/test_memory.py::test_seek_saturates",
            "tests/contract/test_contract_reads.py::test_seek_saturates[dump-0-]",
        ),
        "offsets have 63 bits and addresses 52: their sum does not wrap",
    ),
    Mutant(
        f"{HERE}/stream.c",
        "from = from > distance ? from - distance : 0;",
        "from = from - distance;",
        "a seek back beyond the start ends at the maximum",
        ("tests/capi/test_context_reuse.py", "tests/contract/test_contract_reads.py::test_seek_saturates[dump-1-]"),
    ),
    Mutant(
        f"{HERE}/table.c",
        "region->size >= 8 ? region->size - 7 : 0",
        "region->size >= 8 ? region->size : 0",
        "words across the end of a mapping are read from behind it",
        ("tests/contract/test_contract_reads.py::test_around_every_edge[qemu-8]",),
    ),
    Mutant(
        f"{HERE}/table.c",
        "        if (mvi_last(&regions[middle]) < address)",
        "        if (mvi_last(&regions[middle]) <= address)",
        "the last byte of a region is missing",
        (TABLE,),
    ),
    Mutant(
        f"{HERE}/cache.c",
        "    if (mvi_cache_epoch(cache) == epoch) {",
        "    if (true) {",
        "a page read before a write is kept after it",
        (f"{CACHE}::test_what_is_written_while_it_is_fetched_is_not_kept_as_it_was",),
    ),
    Mutant(
        f"{HERE}/cache.h",
        "    bool there = place->page == page + 1;",
        "    bool there = place->page != 0;",
        "a page is taken for another that shares its place",
        (CACHE,),
    ),
    Mutant(
        f"{HERE}/cache.c",
        "    pages = ((address + (size - 1)) >> PAGE_SHIFT) - page + 1;",
        "    pages = ((address + (size - 1)) >> PAGE_SHIFT) - page;",
        "the last page of a write stays as it was kept",
        (f"{C_WRITES}[kvm-paused-False]", CACHE, f"{STALE}::test_a_stream_of_a_paused_machine_sees_what_is_written"),
    ),
    Mutant(
        f"{HERE}/cache.h",
        "size <= PAGE_SIZE - (address & (PAGE_SIZE - 1)) &&",
        "size <= PAGE_SIZE &&",
        "a read across two pages takes bytes of a page that has nothing to do with it",
        (f"{CACHE}::test_large_and_crossing_reads_are_right_and_go_past_the_cache", "tests/capi/test_kept_streams.py"),
    ),
    Mutant(
        f"{HERE}/direct.c",
        "        if (part > 0 && !padded)\n            break;",
        "        if (part > 1 && !padded)\n            break;",
        "a hole of one byte is no hole",
        (TABLE,),
    ),
    Mutant(
        f"{HERE}/direct.c",
        "        if (region->kind == MICROVMI_MEMORY_ROM)\n            return MICROVMI_ERROR_READ_ONLY;",
        "        if (region->kind == MICROVMI_MEMORY_ROM && at == 0)\n            return MICROVMI_ERROR_READ_ONLY;",
        "a write that runs into ROM changes it",
        ("tests/contract/test_contract_writes.py::test_memory_that_is_read_only_is_told_as_such[qemu]",),
    ),
    Mutant(
        f"{HERE}/direct.c",
        "    if (table->cache != NULL)\n        mvi_cache_drop(table->cache, address, size);",
        "    if (table->cache != NULL && code == MICROVMI_OK)\n        mvi_cache_drop(table->cache, address, size);",
        "a write that fails in the middle leaves kept pages stale",
        (f"{C_WRITES}[qemu-paused-False]", f"{C_WRITES}[qemu-paused-True]"),
    ),
    Mutant(
        f"{HERE}/error.c",
        "void mvi_clear_error(void)\n{",
        "void mvi_clear_error(void)\n{\n    if (mvi_thread.code != MICROVMI_OK)\n        return;",
        "a success leaves the error of the call before",
        ("tests/capi/test_open.py::test_a_success_clears_the_error_pointer_and_the_error",),
    ),
    Mutant(
        f"{HERE}/exports.map",
        "        microvmi_open;\n",
        "",
        "programs that use a function of the header cannot be linked",
        ("tests/startup/test_exports.py::test_exactly_the_functions_of_the_header_are_exported",),
    ),
    Mutant(
        f"{HERE}/look.c",
        '#include "look.h"\n',
        '#include "look.h"\n\n__thread int mvi_own;\n',
        "a thread has things in two places, of which a fork or its end clears one",
        ("tests/test_native.py::test_what_a_thread_has_is_defined_once",),
    ),
)
