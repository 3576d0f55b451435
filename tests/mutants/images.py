# SPDX-License-Identifier: Apache-2.0
"""Bugs planted in what an image tells of itself, and in what a file is taken for."""

from __future__ import annotations

from mutants.mutant import Mutant

_DUMP = "libmicrovmi_py/drivers/dump"
_BODY = "libmicrovmi_py/_capi/entry_image.py"
_INFO = "tests/drivers/dump/test_dump_info.py"
_CALLS = "tests/capi/test_image_info.py"
_RECOGNITION = "tests/drivers/dump/test_dump_recognition.py"

MUTANTS = (
    Mutant(
        f"{_DUMP}/about.py",
        "max(start >> PAGE_SHIFT, last)",
        "start >> PAGE_SHIFT",
        "pages of ranges that overlap are counted twice, and so as absent",
        (_INFO,),
    ),
    Mutant(
        f"{_DUMP}/about.py",
        " if not file.made",
        "",
        "a file that we made ourselves is one of the dump's",
        (_INFO,),
    ),
    Mutant(
        f"{_DUMP}/savedram.py",
        ".count(_BYTE) for",
        ".count(0) for",
        "pages of zeros of a saved machine are not counted",
        (_INFO,),
    ),
    Mutant(
        f"{_DUMP}/probing.py",
        "    image.opening.let_go(known)\n",
        "",
        "a file of a similar name that has nothing to do with an image is one of its files",
        (f"{_RECOGNITION}::test_files_that_a_probe_looked_at_are_released",),
    ),
    Mutant(
        _BODY,
        '"\\n".join(map(escaped, lines))',
        '"\\n".join(lines)',
        "a name of a file moves the cursor of a terminal",
        (f"{_CALLS}::test_so_are_names_of_files",),
    ),
    Mutant(
        _BODY,
        "len(room) - 1",
        "len(room)",
        "a text that is cut has no zero byte at its end",
        (f"{_CALLS}::test_lists_have_a_line_for_each_and_what_is_too_long_is_cut",),
    ),
)
