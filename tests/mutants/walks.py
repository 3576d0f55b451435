# SPDX-License-Identifier: Apache-2.0
"""Bugs of virtual memory in C: the rules of tables, what is remembered of walks, reads of many pages."""

from mutants.mutant import Mutant

HERE = "libmicrovmi_py/_native"
RULES = "tests/capi/test_virtual.py"
EVERY_BIT = f"{RULES}::test_every_bit_of_every_entry_counts_as_the_reference_says"
WAYS = "tests/capi/test_virtual_ways.py"
AT_ONCE = f"{WAYS}::test_tables_that_are_written_count_at_once"
FLUSH = f"{WAYS}::test_what_others_write_to_tables_of_a_paused_machine_is_seen_after_a_flush"
MIXED_UP = f"{WAYS}::test_many_spaces_and_many_contexts_do_not_get_mixed_up"
BATCH = f"{WAYS}::test_a_batch_has_what_each_request_has_alone"
ENDS = f"{WAYS}::test_a_read_ends_at_the_first_page_that_is_not_mapped_or_no_memory"

MUTANTS = (
    Mutant(
        f"{HERE}/paging.c",
        "reserved | mvi_bits(13, 20), gigabytes",
        "reserved, gigabytes",
        "bits that are reserved in the entry of a page of 2 MiB are taken",
        (EVERY_BIT,),
    ),
    Mutant(
        f"{HERE}/paging.h",
        "return half->plain ? rights : mvi_allow_aarch64_table(entry, rights);",
        "return rights;",
        "what tables of AArch64 forbid is told to be allowed",
        (EVERY_BIT,),
    ),
    Mutant(
        f"{HERE}/direct.c",
        "    if (table->lasts)\n        mvi_table_flush(table);\n",
        "",
        "tables that were written through the context are not seen while the machine is paused",
        (AT_ONCE,),
    ),
    Mutant(
        f"{HERE}/path.c",
        " || !mvi_path_holds(path, read.entries))",
        ")",
        "a walk through a machine that runs is believed though its tables changed",
        (AT_ONCE,),
    ),
    Mutant(
        f"{HERE}/readers.h",
        "__builtin_expect(own->near.flushes == __atomic_load_n(&own->near.table->flushes, __ATOMIC_ACQUIRE), 1) &&",
        "true &&",
        "words go on by translations that were to be forgotten",
        (FLUSH,),
    ),
    Mutant(
        f"{HERE}/translations.h",
        "return (address & ~(uint64_t)(PAGE_SIZE - 1)) | key;",
        "return (address & ~(uint64_t)(PAGE_SIZE - 1)) | 1;",
        "a translation of one address space is taken for another one's",
        (MIXED_UP,),
    ),
    Mutant(
        f"{HERE}/gather.c",
        "    part->walk.level = 0; /* nothing to be kept, unless a walk says so */\n",
        "",
        "a translation that was found is remembered for another page",
        (BATCH,),
    ),
    Mutant(
        f"{HERE}/gather.c",
        "        else if (mvi_is_end(part, padded))\n            ended = part->request;\n",
        "",
        "a read writes to the buffer behind the first page that is missing",
        (ENDS,),
    ),
    Mutant(
        f"{HERE}/virtual.c",
        "if (__builtin_expect(from < address, 0))",
        "if (__builtin_expect(from < address, 0) && false)",
        "a read at the end of all addresses goes on at address 0",
        (f"{WAYS}::test_nothing_goes_on_at_address_0",),
    ),
    Mutant(
        f"{HERE}/path.c",
        "    if (path->tag == mvi_kept_tag(address, key) && mvi_path_take",
        "    if (path->tag != mvi_kept_tag(address, key) && mvi_path_take",
        "a word of a machine that runs is walked to again each time",
        (f"{WAYS}::test_words_take_one_system_call_and_scattered_pages_one_a_level",),
    ),
)
