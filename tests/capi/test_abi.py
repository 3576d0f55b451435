# SPDX-License-Identifier: Apache-2.0
"""The frozen ABI, seen by a C compiler, by the ctypes stubs and by cffi; and what the built library exports."""

from __future__ import annotations

import ctypes
import enum
import re
import subprocess
from dataclasses import fields
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

import cffi
import pytest
from capi import abi_0_4, snapshot
from capi.snapshot import compiled

from libmicrovmi_py import errors, model, version
from libmicrovmi_py.arch import Aarch64Registers, X86Registers
from libmicrovmi_py.events import (
    ALL_VCPUS,
    UNKNOWN_ADDRESS,
    UNKNOWN_VCPU,
    Event,
    EventKind,
    Intercept,
    InterceptFlag,
    PageAccess,
    ReplyAction,
    Stands,
)
from libmicrovmi_py.header import declarations

AARCH64 = (
    *(f"x{number}" for number in range(31)),
    *("pc", "pstate", "sp_el0", "sp_el1", "ttbr0_el1", "ttbr1_el1", "tcr_el1", "sctlr_el1", "mair_el1", "vbar_el1"),
    *("esr_el1", "far_el1", "elr_el1", "spsr_el1", "tpidr_el0", "tpidr_el1", "contextidr_el1", "midr_el1"),
    "id_aa64mmfr0_el1",
)
"""50 words, all that the frozen union has room for."""

HEADER = Path(__file__).resolve().parents[2] / "include" / "libmicrovmi.h"

IN_THE_ROOM_OF_UNIONS = {"Registers": ("aarch64",)}
"""What came to frozen structs without a change of their size."""

Facts = dict[str, int]


def frozen_facts() -> Facts:
    """Every number of the frozen ABI, by the C expression that gives it."""
    facts = dict(abi_0_4.MACROS)
    for name, values in abi_0_4.ENUMS.items():
        facts |= {f"sizeof(enum {name})": abi_0_4.ENUM_SIZE, f"sizeof({name})": abi_0_4.ENUM_SIZE, **values}
    for name, (size, members) in abi_0_4.STRUCTS.items():
        facts |= {f"sizeof(struct {name})": size, f"sizeof({name})": size}
        facts |= {f"offsetof({name}, {member})": offset for member, offset in members.items()}
    for name, paths in abi_0_4.PATHS.items():
        facts |= {f"offsetof({name}, {path})": offset for path, offset in paths.items()}
    return facts


def parts(expression: str) -> tuple[str, str]:
    """The type and the member of ``sizeof(T)`` or ``offsetof(T, member)``, without ``struct`` and ``enum``."""
    kind, _, member = expression.partition("(")[2].removesuffix(")").partition(", ")
    return kind.removeprefix("struct ").removeprefix("enum "), member


def ctypes_value(stubs: ModuleType, expression: str) -> int:
    if "(" not in expression:
        return int(getattr(stubs, expression))
    name, path = parts(expression)
    kind = getattr(stubs, name)
    if not path:
        return ctypes.sizeof(ctypes.c_uint if name in abi_0_4.ENUMS else kind)
    sample = kind()
    last = path.rpartition(".")
    owner = reduce(getattr, filter(None, last[0].split(".")), sample)
    return ctypes.addressof(owner) - ctypes.addressof(sample) + int(getattr(type(owner), last[2]).offset)


def cffi_value(ffi: Any, expression: str) -> int:
    if "(" not in expression:
        return int(getattr(ffi.dlopen(None), expression))
    kind, _, path = expression.partition("(")[2].removesuffix(")").partition(", ")
    return int(ffi.offsetof(kind, *path.split(".")) if path else ffi.sizeof(kind))


@pytest.fixture(scope="module")
def ffi() -> Any:
    result = cffi.FFI()
    result.cdef(declarations(HEADER))
    return result


@pytest.fixture(scope="module")
def names(ffi: Any) -> list[str]:
    """The functions that the header declares, by the text itself."""
    found = re.findall(r"^[\w ]+[ *](\w+)\((?:[^;{}]*)\);", declarations(HEADER), re.MULTILINE)
    assert set(abi_0_4.FUNCTIONS) < set(found)
    return sorted(found)


def test_a_c_compiler_sees_the_frozen_abi(tmp_path: Path) -> None:
    expected = frozen_facts()
    assert compiled(list(expected), tmp_path) == expected


def test_the_stubs_have_the_frozen_abi(stubs: ModuleType) -> None:
    expected = frozen_facts()
    assert {expression: ctypes_value(stubs, expression) for expression in expected} == expected


def test_cffi_sees_the_frozen_abi(ffi: Any) -> None:
    expected = frozen_facts()
    assert {expression: cffi_value(ffi, expression) for expression in expected} == expected


def test_frozen_members_are_all_members_in_their_order(stubs: ModuleType) -> None:
    for name, (_, members) in abi_0_4.STRUCTS.items():
        annotated = getattr(stubs, name).__annotations__
        assert list(annotated) == [*members, *IN_THE_ROOM_OF_UNIONS.get(name, ())], name


@pytest.mark.parametrize("name", abi_0_4.FUNCTIONS)
def test_frozen_prototypes_are_exact(name: str, tmp_path: Path) -> None:
    pointer = abi_0_4.FUNCTIONS[name].replace("(*)", "(*const frozen)", 1)
    source = tmp_path / "prototype.c"
    source.write_text(f"#include <libmicrovmi.h>\nextern {pointer};\n{pointer} = {name};\n")
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    subprocess.run(["cc", *flags, f"-I{HEADER.parent}", source], check=True)


def test_new_structs_have_one_layout_in_all_views(stubs: ModuleType, ffi: Any, tmp_path: Path) -> None:
    layouts = {
        "microvmi_memory_range": (32, {"start": 0, "size": 8, "kind": 16, "reserved": 20}),
        "microvmi_intercept": (
            40,
            {
                **{"struct_size": 0, "kind": 4, "number": 8, "flags": 12, "address": 16},
                **{"size": 24, "access": 32, "reserved": 36},
            },
        ),
        "microvmi_abilities": (
            208,
            {"struct_size": 0, "breakpoints": 4, "can": 8, "answers": 16, "flags": 80, "stands": 144},
        ),
        "microvmi_event": (
            88,
            {
                **{"struct_size": 0, "kind": 4, "id": 8, "vcpu": 16, "number": 20, "old_value": 24, "new_value": 32},
                **{"physical_address": 40, "virtual_address": 48, "access": 56, "instruction_length": 60},
                **{"instruction_pointer": 64, "stands": 72, "reserved": 76, "lost": 80},
            },
        ),
        "microvmi_reply": (16, {"struct_size": 0, "action": 4, "registers": 8}),
        "microvmi_aarch64_registers": (400, {name: 8 * place for place, name in enumerate(AARCH64)}),
        "Registers": (408, {"aarch64": 8, "aarch64.pc": 8 + 31 * 8}),
    }
    sizes = {f"sizeof({name})": size for name, (size, _) in layouts.items()}
    offsets = {f"offsetof({name}, {at})": place for name, (_, found) in layouts.items() for at, place in found.items()}
    expected = sizes | offsets
    assert compiled(list(expected), tmp_path) == expected
    assert {expression: ctypes_value(stubs, expression) for expression in expected} == expected
    assert {expression: cffi_value(ffi, expression) for expression in expected} == expected


def test_error_codes_are_those_of_the_header(stubs: ModuleType) -> None:
    """Each exception's name is its code's name in words: ``NoDriverError`` is ``MICROVMI_ERROR_NO_DRIVER``."""
    prefix = "MICROVMI_ERROR_"
    expected = {item.name.removeprefix(prefix): int(item) for item in stubs.microvmi_error if item}
    spelled = {"MICROVMI": "INTERNAL", "PERMISSION_DENIED": "PERMISSION", "TIMEOUT_EXPIRED": "TIMEOUT"}
    actual = {}
    for name, item in vars(errors).items():
        if isinstance(item, type) and issubclass(item, errors.MicrovmiError) and item is not errors.AccessError:
            words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.removesuffix("Error")).upper()
            actual[spelled.get(words, words)] = item.code
    assert actual == expected


def test_driver_types_are_those_of_the_header(stubs: ModuleType) -> None:
    header = {item.name.upper().removeprefix("MICROVMI_DRIVER_"): int(item) for item in stubs.DriverType}
    assert header.pop("UNKNOWN") == 0x7FFFFFFF
    assert {item.name: int(item) for item in model.DriverType} == header


def test_memory_kinds_are_those_of_the_header(stubs: ModuleType) -> None:
    header = {item.name.removeprefix("MICROVMI_MEMORY_"): int(item) for item in stubs.microvmi_memory_kind}
    assert {item.name: int(item) for item in model.MemoryKind} == header


def test_architectures_are_those_of_the_header(stubs: ModuleType) -> None:
    header = {item.name.removeprefix("MICROVMI_REGISTERS_"): int(item) for item in stubs.Registers_Tag}
    assert {item.name: int(item) for item in model.Architecture} == header


@pytest.mark.parametrize("kind", [EventKind, InterceptFlag, PageAccess, ReplyAction, Stands])
def test_the_words_of_events_are_those_of_the_header(stubs: ModuleType, kind: type[enum.IntEnum]) -> None:
    name, prefix = {
        EventKind: ("microvmi_event_kind", "MICROVMI_EVENT_"),
        PageAccess: ("microvmi_page_access", "MICROVMI_PAGE_ACCESS_"),
        ReplyAction: ("microvmi_reply_action", "MICROVMI_REPLY_"),
        Stands: ("microvmi_stands", "MICROVMI_STANDS_"),
        InterceptFlag: ("microvmi_intercept_flag", "MICROVMI_INTERCEPT_"),
    }[kind]
    header = {item.name.removeprefix(prefix): int(item) for item in getattr(stubs, name)}
    assert {key: int(item) for key, item in kind.__members__.items()} == header


def test_the_numbers_of_events_are_those_of_the_header(stubs: ModuleType, ffi: Any) -> None:
    told = stubs.MICROVMI_ALL_VCPUS, stubs.MICROVMI_VCPU_UNKNOWN, stubs.MICROVMI_ADDRESS_UNKNOWN
    assert told == (ALL_VCPUS, UNKNOWN_VCPU, UNKNOWN_ADDRESS)
    nothing = {"struct_size", "reserved"}
    assert set(Event.__slots__) == set(stubs.microvmi_event.__annotations__) - nothing
    assert set(Intercept.__slots__) == set(stubs.microvmi_intercept.__annotations__) - nothing


def test_python_registers_are_those_of_the_header(stubs: ModuleType) -> None:
    for kind, struct in ((X86Registers, stubs.X86Registers), (Aarch64Registers, stubs.microvmi_aarch64_registers)):
        assert list(struct.__annotations__) == [item.name for item in fields(kind)]
    assert (model.PAGE_SHIFT, model.PAGE_SIZE) == (stubs.PAGE_SHIFT, stubs.PAGE_SIZE)


def test_header_and_package_have_one_version(stubs: ModuleType) -> None:
    numbers = (stubs.MICROVMI_VERSION_MAJOR, stubs.MICROVMI_VERSION_MINOR, stubs.MICROVMI_VERSION_PATCH)
    assert ".".join(map(str, numbers)) == version.__version__


def test_the_library_has_the_version_of_the_package(stubs: ModuleType, library_path: Path) -> None:
    assert stubs.load(library_path).microvmi_version() == version.__version__.encode()


def test_the_library_exports_what_the_header_declares_and_no_more(library_path: Path, names: list[str]) -> None:
    command = ["nm", "-D", "--defined-only", "--format=posix", str(library_path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    symbols = [line.split()[:2] for line in output.splitlines()]
    assert {name for name, kind in symbols if kind == "A"} == {"MICROVMI_0.4", "MICROVMI_0.5"}
    assert sorted(name.split("@")[0] for name, kind in symbols if kind != "A") == names


def test_the_whole_abi_is_the_one_that_is_kept(library_path: Path, tmp_path: Path) -> None:
    now = snapshot.taken(library_path, tmp_path)
    for path in snapshot.KEPT.parent.glob("abi_*.txt"):
        broken = snapshot.broken(snapshot.kept(path.read_text()), now)
        assert broken == [], f"{path.name}: docs/abi.md says what may change"
    before = snapshot.kept(snapshot.KEPT.read_text())
    new = sorted(set(now) - set(before))
    assert now == before, f"new: {new}; keep it: PYTHONPATH=tests build/venv/bin/python -m capi.snapshot"


def test_the_kept_abi_has_all_of_the_frozen_one() -> None:
    kept = snapshot.kept(snapshot.KEPT.read_text())
    numbers = {name: int(line.split()[0]) for name, line in kept.items() if re.match(r"-?\d", line)}
    frozen = {name: value for name, value in frozen_facts().items() if name in numbers}
    assert frozen == {name: numbers[name] for name in frozen}
    assert {name for name in abi_0_4.FUNCTIONS if kept[name] == "MICROVMI_0.4"} == set(abi_0_4.FUNCTIONS)
    assert len(frozen) > len(abi_0_4.STRUCTS["X86Registers"][1])


def test_what_a_change_breaks_is_told_and_what_grows_is_not() -> None:
    old = {"f": "V1", "A": "1", "sizeof(s)": "8", "offsetof(s, struct_size)": "0", "sizeof(t)": "8"}
    assert snapshot.broken(old, {**old, "g": "V2", "B": "2", "sizeof(s)": "16", "offsetof(s, x)": "8"}) == []
    assert snapshot.broken(old, {**old, "sizeof(s)": "4"}) == ["sizeof(s): was 8, is 4"]
    assert snapshot.broken(old, {**old, "sizeof(t)": "16"}) == ["sizeof(t): was 8, is 16"]
    assert snapshot.broken(old, {**old, "A": "2"}) == ["A: was 1, is 2"]
    assert snapshot.broken(old, {name: line for name, line in old.items() if name != "f"}) == ["f: was V1, is gone"]
