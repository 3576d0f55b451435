# SPDX-License-Identifier: Apache-2.0
"""States of vCPUs through the C API: numbers and names, lists of structs that may be larger, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from ctypes import POINTER, addressof, byref, c_size_t, c_uint8, memset, sizeof
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from libmicrovmi_py import Microvmi
from libmicrovmi_py.arch.state import NAMES
from libmicrovmi_py.model import Architecture

if TYPE_CHECKING:
    from programs import Programs

HEADER = (Path(__file__).resolve().parents[2] / "include/libmicrovmi.h").read_text()
INVALID_ARGUMENT, NOT_SUPPORTED = 1, 5
PREFIXES = {Architecture.X86: "MICROVMI_X86_", Architecture.AARCH64: "MICROVMI_AARCH64_"}

Open = Callable[[str], int]


def new_state(stubs: ModuleType, **values: Any) -> Any:
    return stubs.microvmi_vcpu_state(**{"struct_size": sizeof(stubs.microvmi_vcpu_state), **values})


def values_of(state: Any) -> dict[str, int]:
    names = NAMES[Architecture(state.architecture)]
    known = [number for number in range(256) if state.known[number // 64] >> number % 64 & 1]
    return {names[number]: state.value[number] for number in known}


def put(state: Any, values: dict[str, int]) -> None:
    names = NAMES[Architecture(state.architecture)]
    for name, value in values.items():
        number = names.index(name)
        state.known[number // 64] |= 1 << number % 64
        state.value[number] = value


def refused(lib: Any, done: bool, words: bytes, code: int = INVALID_ARGUMENT) -> None:
    assert not done
    assert lib.microvmi_last_error_code() == code
    assert words in lib.microvmi_last_error()


@pytest.mark.parametrize("architecture", Architecture)
def test_header_library_and_python_have_the_same_numbers(
    stubs: ModuleType, lib: Any, architecture: Architecture
) -> None:
    names = NAMES[architecture]
    assert [getattr(stubs, PREFIXES[architecture] + name.upper()) for name in names] == list(range(len(names)))
    found = [lib.microvmi_register_name(architecture, number) for number in range(len(names))]
    assert found == [name.encode() for name in names]
    told = set(re.findall(rf"^    {PREFIXES[architecture]}([A-Z0-9_]+)", HEADER, re.MULTILINE))
    assert told == {name.upper() for name in names}


def test_a_number_that_is_none_has_no_name(lib: Any) -> None:
    for architecture in Architecture:
        for number in (len(NAMES[architecture]), 255, 0xFFFFFFFF):
            assert lib.microvmi_register_name(architecture, number) is None
    assert lib.microvmi_register_name(2, 0) is None


def test_all_vcpus_come_in_one_call(stubs: ModuleType, lib: Any, opened: Open) -> None:
    vm, count = opened("vmi://fake/?vcpus=3"), c_size_t()
    written = new_state(stubs)
    put(written, {"rax": 0x1234, "lstar": (1 << 64) - 1})
    assert lib.microvmi_write_vcpu_state(vm, 2, byref(written)), lib.microvmi_last_error()
    states = (stubs.microvmi_vcpu_state * 3)()
    states[0].struct_size = sizeof(stubs.microvmi_vcpu_state)
    assert lib.microvmi_read_vcpu_states(vm, states, 3, byref(count)), lib.microvmi_last_error()
    assert (count.value, [state.vcpu for state in states]) == (3, [0, 1, 2])
    assert {state.struct_size for state in states} == {sizeof(stubs.microvmi_vcpu_state)}
    one = new_state(stubs)
    for vcpu in range(3):
        assert lib.microvmi_read_vcpu_state(vm, vcpu, byref(one)), lib.microvmi_last_error()
        assert bytes(one) == bytes(states[vcpu])
    with Microvmi.open("vmi://fake/") as machine:
        assert values_of(states[0]) == dict(machine.read_state())
    assert values_of(states[2]) == {**values_of(states[0]), "rax": 0x1234, "lstar": (1 << 64) - 1}


def test_a_short_list_is_filled_and_told_how_many_there_are(stubs: ModuleType, lib: Any, opened: Open) -> None:
    vm, count = opened("vmi://fake/?vcpus=3"), c_size_t(77)
    states = (stubs.microvmi_vcpu_state * 3)()
    states[0].struct_size = sizeof(stubs.microvmi_vcpu_state)
    assert lib.microvmi_read_vcpu_states(vm, states, 2, byref(count))
    assert (count.value, states[1].vcpu, bytes(states[2])) == (3, 1, bytes(sizeof(states[2])))
    assert lib.microvmi_read_vcpu_states(vm, None, 0, byref(count))
    assert count.value == 3


def test_structs_of_a_later_version_are_stepped_over(stubs: ModuleType, lib: Any, opened: Open) -> None:
    vm, count, size = opened("vmi://fake/?vcpus=2"), c_size_t(), sizeof(stubs.microvmi_vcpu_state)
    room = (c_uint8 * (2 * (size + 64)))()
    memset(room, 0xEE, sizeof(room))
    first, second = (stubs.microvmi_vcpu_state.from_address(addressof(room) + n * (size + 64)) for n in range(2))
    first.struct_size = size + 64
    states = POINTER(stubs.microvmi_vcpu_state)(first)
    assert lib.microvmi_read_vcpu_states(vm, states, 2, byref(count)), lib.microvmi_last_error()
    assert [(item.struct_size, item.vcpu) for item in (first, second)] == [(size, 0), (size, 1)]
    assert bytes(room[size : size + 64]) == bytes(room[-64:]) == b"\xee" * 64


def test_what_is_wrong_is_refused_and_changes_nothing(stubs: ModuleType, lib: Any, opened: Open) -> None:
    vm, count = opened("vmi://fake/"), c_size_t(5)
    before, after = new_state(stubs), new_state(stubs)
    assert lib.microvmi_read_vcpu_state(vm, 0, byref(before))
    for size in (0, sizeof(stubs.microvmi_vcpu_state) - 1):
        small = new_state(stubs, struct_size=size)
        words = b"start from MICROVMI_VCPU_STATE_INIT"
        refused(lib, lib.microvmi_read_vcpu_states(vm, byref(small), 1, byref(count)), words)
        refused(lib, lib.microvmi_read_vcpu_state(vm, 0, byref(small)), words)
        refused(lib, lib.microvmi_write_vcpu_state(vm, 0, byref(small)), words)
        assert bytes(small) == bytes(new_state(stubs, struct_size=size))
    assert count.value == 0
    refused(lib, lib.microvmi_read_vcpu_states(vm, None, 1, byref(count)), b"states is NULL")
    refused(lib, lib.microvmi_read_vcpu_state(vm, 0, None), b"state is NULL")
    refused(lib, lib.microvmi_write_vcpu_state(vm, 0, None), b"state is NULL")
    refused(lib, lib.microvmi_read_vcpu_states(vm, byref(after), 1, None), b"count is NULL")
    refused(lib, lib.microvmi_read_vcpu_state(vm, 1, byref(after)), b"no vCPU 1")
    refused(lib, lib.microvmi_write_vcpu_state(vm, 1, byref(after)), b"no vCPU 1")
    assert bytes(after) == bytes(new_state(stubs))
    assert lib.microvmi_read_vcpu_state(vm, 0, byref(after))
    assert bytes(after) == bytes(before)


def test_what_cannot_be_written_is_refused_and_nothing_is_written(stubs: ModuleType, lib: Any, opened: Open) -> None:
    vm, before, after = opened("vmi://fake/"), new_state(stubs), new_state(stubs)
    assert lib.microvmi_read_vcpu_state(vm, 0, byref(before))
    wrong = new_state(stubs, architecture=2)
    refused(lib, lib.microvmi_write_vcpu_state(vm, 0, byref(wrong)), b"there is no architecture 2")
    wrong = new_state(stubs, architecture=1)
    put(wrong, {"x0": 5})
    refused(lib, lib.microvmi_write_vcpu_state(vm, 0, byref(wrong)), b"of architecture AARCH64: the machine's is X86")
    for number in (len(NAMES[Architecture.X86]), 255):
        wrong = new_state(stubs)
        put(wrong, {"rax": 5})
        wrong.known[number // 64] |= 1 << number % 64
        refused(lib, lib.microvmi_write_vcpu_state(vm, 0, byref(wrong)), b"no register of the number %d" % number)
    wrong = new_state(stubs)
    put(wrong, {"rax": 5, "cs_attributes": 0x1000})
    refused(lib, lib.microvmi_write_vcpu_state(vm, 0, byref(wrong)), b"cs_attributes: 0x1000 does not fit")
    assert lib.microvmi_read_vcpu_state(vm, 0, byref(after))
    assert bytes(after) == bytes(before)


def test_values_that_are_not_known_are_not_written(stubs: ModuleType, lib: Any, opened: Open) -> None:
    vm, state, back = opened("vmi://fake/"), new_state(stubs), new_state(stubs)
    for number in range(256):
        state.value[number] = 0x77
    put(state, {"rbx": 0x55})
    assert lib.microvmi_write_vcpu_state(vm, 0, byref(state)), lib.microvmi_last_error()
    assert lib.microvmi_read_vcpu_state(vm, 0, byref(back))
    values = values_of(back)
    assert (values["rbx"], values["rax"], values["tr_limit"]) == (0x55, 0, 0xFFFF)


def test_a_c_program_reads_and_writes_them(programs: Programs) -> None:
    programs.run(programs.linked("vcpu_states"))
