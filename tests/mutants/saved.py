# SPDX-License-Identifier: Apache-2.0
"""Bugs planted in what reads saved machines of QEMU, and keeps indexes of them."""

from __future__ import annotations

from mutants.mutant import Mutant

_DUMP = "libmicrovmi_py/drivers/dump"
_INDEX = "tests/drivers/dump/test_dump_index.py"
_PASSED_OVER = f"{_INDEX}::test_an_index_that_does_not_fit_is_passed_over_and_made_anew"
_RECORDS = "tests/drivers/dump/test_saved_records.py"

MUTANTS = (
    Mutant(
        f"{_DUMP}/kept.py",
        "if zlib.crc32(content, zlib.crc32(told)) != checksum or",
        "if",
        "an index that is damaged is believed",
        (_PASSED_OVER,),
    ),
    Mutant(
        f"{_DUMP}/kept.py",
        " {status.st_mtime_ns}",
        "",
        "an index of a file that was written since is believed",
        (_PASSED_OVER,),
    ),
    Mutant(
        f"{_DUMP}/kept.py",
        " or status.st_mode & 0o022",
        "",
        "an index that anybody may have written is believed",
        (_PASSED_OVER,),
    ),
    Mutant(
        f"{_DUMP}/savedindex.py",
        "if stream.mapped is None and not stream.pages.shared_left_out:",
        "if True:",
        "an index is kept of a file whose pages it does not know",
        (f"{_INDEX}::test_no_index_is_kept_of_a_file_whose_pages_lie_as_they_are",),
    ),
    Mutant(
        f"{_DUMP}/savedram.py",
        "if entry >> 3 >= len(self._changes):",
        "if False:",
        "an index that tells of changes that there are not ends in an internal error",
        (f"{_INDEX}::test_an_index_that_lies_is_an_error_or_another_memory_and_nothing_else",),
    ),
    Mutant(
        "libmicrovmi_py/_native/saved.c",
        "if (offset >= walk->size || number >= walk->room)",
        "if (offset >= walk->size)",
        "a page without an entry is written behind the entries",
        (f"{_RECORDS}::test_it_ends_before_a_page_without_an_entry_or_outside_of_the_block",),
    ),
    Mutant(
        "libmicrovmi_py/_native/saved.c",
        "walk->end - position < length",
        "false",
        "a page of which a part is in the file counts as there",
        (f"{_RECORDS}::test_it_ends_where_the_buffer_or_the_file_does",),
    ),
)
