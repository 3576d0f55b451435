# SPDX-License-Identifier: Apache-2.0
"""Types for drgn out of types that a guest tells, right ones and wrong ones; in a process that has drgn."""

from __future__ import annotations

import subprocess
import sys

import pytest
from needs import with_extra
from typetables import TypeTable

from libmicrovmi_py.linux.btf import Kind

CODE = """
import sys
import drgn
from libmicrovmi_py.linux.btf import Types
from libmicrovmi_py.tools.drgn.types import TypeMaker
prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
maker = TypeMaker(prog, Types(sys.stdin.buffer.read()))
prog.register_type_finder("table", lambda prog, kinds, name, filename: maker.find(kinds, name), enable_index=0)
"""


def printed(table: TypeTable, *lines: str) -> list[str]:
    """What lines of Python print, with ``prog`` and ``maker``."""
    done = subprocess.run(
        [sys.executable, "-c", CODE + "\n".join(lines)],
        input=table.content(),
        env=with_extra("drgn"),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().splitlines()


@pytest.fixture
def table() -> TypeTable:
    """A table with an int as type 1."""
    made = TypeTable()
    made.integer("int", 4, signed=True)
    return made


def test_types_are_found_by_name_and_kind(table: TypeTable) -> None:
    inner = table.structure("", 8, ("left", 1, 0), ("right", 1, 4))
    pair = table.structure("pair", 16, ("", inner, 0), ("next", table.pointer(4), 8))
    table.typedef("pair_t", table.add(Kind.CONST, "", pair))
    table.bit_fields("flags", 4, ("low", 1, 0, 3), ("high", 1, 3, 5))
    table.enumeration("state", 4, {"NONE": -1, "SOME": 7}, signed=True)
    shown = printed(
        table,
        "pair = prog.type('struct pair')",
        "print(pair.size, pair.member('right').bit_offset, pair.member('next').type.type_name())",
        "print(prog.type('pair_t').type.type_name(), prog.type('struct flags').member('high').bit_field_size)",
        "print(prog.type('enum state').enumerators[0].value, prog.type('int').is_signed)",
    )
    assert shown == ["16 32 struct pair *", "const struct pair 5", "-1 True"]


def test_a_name_of_a_guest_does_nothing_to_a_terminal(table: TypeTable) -> None:
    table.structure("one\x1b[2J", 4, ("two\x1b[2J", 1, 0))
    shown = printed(table, "made = maker.made(2)", "print(made.tag, made.members[0].name)")
    assert shown == ["one\\x1b[2J two\\x1b[2J"]


def test_a_type_without_an_end_is_an_error(table: TypeTable) -> None:
    table.pointer(2)
    shown = printed(table, "try: maker.made(2)", "except OSError as err: print(err)")
    assert shown == ["type 2 of the kernel's BTF has no end"]
