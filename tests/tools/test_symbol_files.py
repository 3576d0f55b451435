# SPDX-License-Identifier: Apache-2.0
"""Symbol files for volatility out of types and symbols that a guest tells, right ones and wrong ones."""

from __future__ import annotations

import base64
import contextlib
import json
import random
from typing import Any

import pytest
from typetables import TypeTable

from libmicrovmi_py.errors import IoError, MicrovmiError
from libmicrovmi_py.linux.btf import Kind, Types
from libmicrovmi_py.tools.volatility import isf

BANNER = b"Linux version 6.1.0 (somebody)\n\0"


def file_of(table: TypeTable, *symbols: tuple[int, str]) -> dict[str, Any]:
    """What a symbol file of a table says, after a trip through JSON."""
    content = isf.symbol_file(Types(table.content()), symbols, BANNER, "6.1.0")
    found: dict[str, Any] = json.loads(json.dumps(content))
    return found


def fields(found: dict[str, Any], name: str) -> dict[str, Any]:
    """The members of a structure."""
    told: dict[str, Any] = found["user_types"][name]["fields"]
    return told


@pytest.fixture
def table() -> TypeTable:
    """A table with an int as type 1."""
    made = TypeTable()
    made.integer("int", 4, signed=True)
    return made


def test_members_of_a_structure_without_a_name_are_the_outer_one_s(table: TypeTable) -> None:
    inner = table.structure("", 8, ("left", 1, 0), ("right", 1, 4))
    table.structure("pair", 12, ("first", 1, 0), ("", inner, 4))
    told = fields(file_of(table), "pair")
    assert {name: field["offset"] for name, field in told.items()} == {"first": 0, "left": 4, "right": 8}


def test_bit_fields_lie_within_their_integer(table: TypeTable) -> None:
    table.bit_fields("flags", 8, ("low", 1, 0, 3), ("high", 1, 35, 5), ("plain", 1, 0, 0))
    told = fields(file_of(table), "flags")
    high = told["high"]
    assert (high["offset"], high["type"]["bit_position"], high["type"]["bit_length"]) == (4, 3, 5)
    assert told["plain"]["type"] == {"kind": "base", "name": "int"}


def test_a_structure_without_a_name_is_called_as_what_stands_for_it(table: TypeTable) -> None:
    nameless = table.structure("", 4, ("value", 1, 0))
    table.typedef("atomic_t", nameless)
    table.structure("holder", 4, ("count", nameless, 0))
    found = file_of(table)
    assert fields(found, "holder")["count"]["type"] == {"kind": "struct", "name": "atomic_t"}
    assert found["user_types"]["atomic_t"]["size"] == 4


def test_a_second_name_of_a_structure_is_a_type_as_well(table: TypeTable) -> None:
    table.typedef("other_t", table.structure("one", 4, ("value", 1, 0)))
    assert "value" in fields(file_of(table), "other_t")


def test_constants_that_are_negative_have_a_base_with_a_sign(table: TypeTable) -> None:
    table.enumeration("state", 4, {"NONE": -1, "SOME": 1}, signed=True)
    told = file_of(table)["enums"]["state"]
    assert told == {"size": 4, "base": "int", "constants": {"NONE": -1, "SOME": 1}}


def test_variables_have_the_type_of_the_table_or_of_the_kernel(table: TypeTable) -> None:
    task = table.structure("task_struct", 64, ("pid", 1, 0))
    table.structure("taint_flag", 3, ("name", 1, 0))
    table.add(Kind.VAR, "current_task", table.pointer(task), 0)
    told = file_of(table, (0, "current_task"), (4096, "init_task"), (8192, "taint_flags"), (8222, "other"))["symbols"]
    assert told["init_task"] == {"type": {"kind": "struct", "name": "task_struct"}, "address": 4096}
    assert told["current_task"]["type"]["subtype"] == {"kind": "struct", "name": "task_struct"}
    assert told["taint_flags"]["type"]["count"] == 10
    assert told["other"]["type"] == {"kind": "base", "name": "void"}


def test_the_banner_is_the_kernel_s_whole_one(table: TypeTable) -> None:
    told = file_of(table, (1 << 63, "linux_banner"))["symbols"]["linux_banner"]
    assert base64.b64decode(told["constant_data"]) == BANNER
    assert told["type"]["count"] == len(BANNER)


def test_a_structure_in_itself_is_an_error(table: TypeTable) -> None:
    table.structure("", 8, ("", 2, 0), ("value", 1, 0))
    table.structure("outer", 8, ("", 2, 0))
    with pytest.raises(IoError, match="is in itself"):
        file_of(table)


def test_a_pointer_to_itself_is_an_error(table: TypeTable) -> None:
    table.structure("holder", 8, ("next", table.pointer(2), 0))
    with pytest.raises(IoError, match="has no end"):
        file_of(table)


def test_structures_that_double_with_each_step_are_an_error_and_not_all_memory(table: TypeTable) -> None:
    number = table.structure("", 8, ("left", 1, 0), ("right", 1, 4))
    for _ in range(30):
        number = table.structure("", 8, ("", number, 0), ("", number, 0))
    table.structure("bomb", 8, ("", number, 0))
    with pytest.raises(IoError, match="more than 5000 members"):
        isf.symbol_file(Types(table.content()), [], BANNER, "6.1.0", most=5000)


def test_names_for_a_large_structure_count_as_its_members_do(table: TypeTable) -> None:
    large = table.structure("large", 8, *((f"member_{number}", 1, 0) for number in range(100)))
    for number in range(100):
        table.typedef(f"name_{number}", large)
    with pytest.raises(IoError, match="more than 5000 members"):
        isf.symbol_file(Types(table.content()), [], BANNER, "6.1.0", most=5000)


def test_pointers_to_pointers_that_are_told_one_by_one_have_an_end(table: TypeTable) -> None:
    number = 1
    for step in range(100):
        number = table.pointer(number)
        table.structure(f"holder_{step}", 8, ("next", number, 0))
    with pytest.raises(IoError, match="has no end"):
        file_of(table)


def test_a_type_that_names_one_that_is_not_there_is_an_error(table: TypeTable) -> None:
    table.structure("holder", 8, ("next", 77, 0))
    with pytest.raises(IoError, match="no type 77"):
        file_of(table)


def test_a_corrupted_table_is_an_error_or_a_file(table: TypeTable) -> None:
    inner = table.structure("", 8, ("left", 1, 0), ("right", table.pointer(1), 4))
    table.structure("pair", 12, ("first", table.array(1, 3), 0), ("", inner, 4))
    table.enumeration("state", 4, {"NONE": 0})
    table.typedef("pair_t", inner)
    right, chance = table.content(), random.Random(6)
    for _ in range(400):
        wrong = bytearray(right)
        for _ in range(chance.randrange(1, 4)):
            wrong[chance.randrange(24, len(wrong))] = chance.randrange(256)
        with contextlib.suppress(MicrovmiError):
            isf.symbol_file(Types(bytes(wrong)), [(1, "init_task")], BANNER, "6.1.0")


def test_names_that_overlap_do_not_make_much_of_little(table: TypeTable) -> None:
    at = table.name("n" * 100_000 + "end")
    words = [word for place in range(0x10000) for word in (at + 100_000 - 500 + place % 500, place)]
    one = table.add(Kind.ENUM, "many", 4, *words, items=0x10000)
    types = Types(table.content())
    with pytest.raises(IoError, match="more than 65535 values"):
        types.values(types.record(one))


def test_constants_of_all_enumerations_together_are_bounded(table: TypeTable) -> None:
    at = table.name("n" * 500)
    words = [word for place in range(50_000) for word in (at + place % 500, place)]
    for number in range(11):
        table.add(Kind.ENUM, f"many{number}", 4, *words, items=50_000)
    with pytest.raises(IoError, match="more than 500000 constants"):
        for _ in Types(table.content()).constants():
            pass
