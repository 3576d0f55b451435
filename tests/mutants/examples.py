# SPDX-License-Identifier: Apache-2.0
"""Bugs in the example programs for virtual memory."""

from __future__ import annotations

from mutants.mutant import Mutant

TESTS = "tests/examples/test_virtual_examples.py"
USAGE = "tests/examples/test_examples.py::test_a_wrong_command_line_is_told_apart"
READ = "c_tests/examples/read-virtual.c"
TRANSLATE = "c_tests/examples/translate.c"

MUTANTS = (
    Mutant(
        READ,
        "static uint8_t buffer[PIECE + BANNER_SIZE + 1];",
        "static uint8_t buffer[PIECE];",
        "a banner that lies across two pieces is not found",
        (f"{TESTS}::test_read_virtual_finds_a_banner_that_lies_across_pages",),
    ),
    Mutant(
        READ,
        "buffer[at + BANNER_SIZE] >= '0' &&",
        "",
        "a format for printing is taken for the banner",
        (f"{TESTS}::test_read_virtual_finds_a_banner_that_lies_across_pages",),
    ),
    Mutant(
        TRANSLATE,
        "if (letters[bit] != '.' && (told->rights >> bit & 1) != 0) {",
        "if (letters[bit] != '.') {",
        "every page may be written and executed by everybody",
        (f"{TESTS}::test_translate_tells_where_addresses_lie_and_why_not",),
    ),
    Mutant(
        TRANSLATE,
        "    pause_if_possible(PROGRAM, vm);\n",
        "",
        "tables are read while the machine changes them",
        (f"{TESTS}::test_the_machine_is_paused_meanwhile_and_runs_on",),
    ),
    Mutant(
        "c_tests/examples/space.h",
        "wanted->paging != 0 ? wanted->paging : (uint32_t)MICROVMI_PAGING_X86_4_LEVELS;",
        "(uint32_t)MICROVMI_PAGING_X86_4_LEVELS;",
        "a mode that was named is not used",
        (f"{TESTS}::test_translate_tells_where_addresses_lie_and_why_not",),
    ),
    Mutant(
        "c_tests/examples/space.h",
        "*number <= limit && strchr(text, '-') == NULL;",
        "*number <= limit;",
        "-1 is taken for the last address",
        (USAGE,),
    ),
)
