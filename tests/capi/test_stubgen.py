# SPDX-License-Identifier: Apache-2.0
"""The ctypes modules that ``python -m libmicrovmi_py.stubgen`` writes: for our header, and for one that is not ours."""

from __future__ import annotations

import ast
import ctypes
import importlib.util
import inspect
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.stubgen import generate

ROOT = Path(__file__).resolve().parents[2]
HEADER = ROOT / "include" / "libmicrovmi.h"
ZOO = Path(__file__).resolve().parent / "zoo"


def load_module(text: str, path: Path) -> ModuleType:
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with zoo.h and its library."""
    path = tmp_path_factory.mktemp("zoo")
    shutil.copytree(ZOO, path, dirs_exist_ok=True)
    command = ["cc", "-std=gnu11", "-Wall", "-Werror", "-shared", "-fPIC", "zoo.c", "-o", "libzoo.so"]
    subprocess.run(command, cwd=path, check=True)
    return path


@pytest.fixture(scope="module")
def zoo(folder: Path) -> Any:
    return load_module(generate(folder / "zoo.h"), folder / "zoo_ctypes.py")


@pytest.fixture(scope="module")
def lib(zoo: Any, folder: Path) -> Any:
    return zoo.load(folder / "libzoo.so")


def test_layouts_are_those_of_the_compiler(zoo: Any, folder: Path) -> None:
    members = [name for name, *_ in zoo.zoo_animal._fields_ if not name.startswith("unnamed")]
    pairs = [("struct zoo_animal", "zoo_animal", [("from" if name == "from_" else name) for name in members])]
    pairs += [("struct zoo_tail", "zoo_tail", ["count", "items"]), ("zoo_word", "zoo_word", ["real", "bytes"])]
    pairs += [("zoo_bits", "zoo_bits", []), ("struct zoo_animal", "zoo_animal", ["whole", "low", "high"])]
    expected, lines = [], []
    for c_name, name, fields in pairs:
        kind = getattr(zoo, name)
        expected.append(ctypes.sizeof(kind))
        lines.append(f"sizeof({c_name})")
        for item in fields:
            expected.append(getattr(kind, "from_" if item == "from" else item).offset)
            lines.append(f"offsetof({c_name}, {item})")
    output = run_c("".join(f'printf("%zu\\n", {line});' for line in lines), folder)
    assert [int(line) for line in output.split()] == expected


def run_c(statements: str, folder: Path) -> str:
    (folder / "print.c").write_text(
        f'#include "zoo.h"\n#include <stdio.h>\n#include <string.h>\nint main(void) {{ {statements} return 0; }}\n'
    )
    subprocess.run(["cc", "-std=c11", "print.c", "-o", "print"], cwd=folder, check=True)
    return subprocess.run([folder / "print"], check=True, capture_output=True, text=True).stdout


def test_bit_fields_are_those_of_the_compiler(zoo: Any, folder: Path) -> None:
    # Read from each other's bytes: what lies between the fields is anything.
    flags = zoo.zoo_bits(low=5, middle=0x2AAAAAAA, high=0x12345678)
    ours = ", ".join(map(str, bytes(flags)))
    body = f"const unsigned char ours[] = {{{ours}}}; zoo_bits f; memcpy(&f, ours, sizeof f);"
    body += 'printf("%zu %x %x %x ", sizeof f, f.low, f.middle, f.high); f.low = 2; f.middle = 0x15555555; f.high = 7;'
    body += "unsigned char b[sizeof f]; memcpy(b, &f, sizeof f);"
    output = run_c(body + ' for (size_t i = 0; i < sizeof f; i++) printf("%02x", b[i]);', folder)
    *seen, theirs = output.split()
    assert seen == [str(ctypes.sizeof(flags)), "5", "2aaaaaaa", "12345678"]
    back = zoo.zoo_bits.from_buffer_copy(bytes.fromhex(theirs))
    assert (back.low, back.middle, back.high) == (2, 0x15555555, 7)


def test_constants_enums_and_typedefs_have_their_c_names(zoo: Any) -> None:
    assert (zoo.ZOO_NAME_SIZE, zoo.ZOO_MAX, zoo.ZOO_FIRST, zoo.ZOO_SECOND) == (8, 16, 3, 4)
    assert zoo.zoo_kind.ZOO_DOG is zoo.ZOO_DOG
    assert (zoo.ZOO_DOG, zoo.ZOO_MINUS) == (16, -1)
    assert zoo.zoo_id is ctypes.c_uint16
    assert zoo.zoo_vector is ctypes.c_int * 3
    assert zoo.zoo_handle is ctypes.POINTER(zoo.zoo_cage)
    assert zoo.zoo_bits is zoo.zoo_flags
    assert not hasattr(zoo, "ZOO_INIT")


def test_calls_take_and_give_what_c_does(zoo: Any, lib: Any) -> None:
    numbers = (ctypes.c_int32 * 3)(1, -5, 2)
    assert lib.zoo_sum(numbers, 3) == -2
    assert lib.zoo_title(zoo.ZOO_CAT) == b"cat"
    assert lib.zoo_title(zoo.ZOO_DOG) is None
    animal = lib.zoo_make(7, 1.5)
    assert (animal.id, animal.name, animal.body.weight, animal.body.marks[1][2].b) == (7, b"Tom", 1.5, 9)
    assert (animal.whole, animal.high, animal.sign) == (1 << 32, 1, zoo.ZOO_MINUS)


def test_owned_text_keeps_its_address_and_can_be_freed(lib: Any) -> None:
    error = ctypes.POINTER(ctypes.c_char)()
    text = lib.zoo_text(b"hello", ctypes.byref(error))
    assert ctypes.string_at(text) == b"hello"
    assert not error
    lib.zoo_free(text)
    assert not lib.zoo_text(None, ctypes.byref(error))
    assert ctypes.string_at(error) == b"no text"
    lib.zoo_free(error)


def test_callbacks_are_called_with_values_of_python(zoo: Any, lib: Any) -> None:
    seen = []

    def visit(animal: Any, name: bytes, data: int | None) -> int:
        seen.append((animal.contents.id, name, data))
        return 10

    only_odd = zoo.zoo_filter(lambda number: bool(number % 2))
    assert lib.zoo_each(zoo.zoo_visit(visit), only_odd, 5) == 20
    assert seen == [(1, b"visitor", 5), (3, b"visitor", 5)]


def test_opaque_pointers_pass_through(lib: Any) -> None:
    slot = ctypes.c_void_p()
    handle = lib.zoo_open(ctypes.byref(slot))
    assert ctypes.addressof(handle.contents) == slot.value


def test_comments_become_docstrings(zoo: Any, stubs: ModuleType) -> None:
    assert zoo.Library.zoo_sum.__doc__ == "Sum of `count` numbers."
    assert zoo.zoo_animal.__doc__ == "A \\ back and a '''quote'''."
    documented = inspect.getdoc(stubs.Library.microvmi_init)
    assert documented is not None
    assert documented.startswith("Open a virtual machine.\n\ndriver_type: which driver")
    assert all(" of libmicrovmi.h." not in (item.__doc__ or "") for item in vars(stubs.Library).values())


def test_results_of_bool_are_bool(stubs: ModuleType, library_path: Path) -> None:
    lib = stubs.load(library_path)
    assert lib.microvmi_pause(None) is False
    assert lib.microvmi_last_error_code() == stubs.MICROVMI_ERROR_INVALID_CONTEXT


def test_an_error_text_of_the_library_is_read_and_freed(stubs: ModuleType, library_path: Path) -> None:
    lib = stubs.load(library_path)
    error = ctypes.POINTER(ctypes.c_char)()
    assert lib.microvmi_open(b"nowhere://", ctypes.byref(error)) is None
    assert b"nowhere" in ctypes.string_at(error)
    lib.rs_cstring_free(error)


def test_text_is_the_same_every_time_and_says_where_it_is_from() -> None:
    text = generate(HEADER)
    assert text == generate(HEADER.read_text(), name="libmicrovmi.h")
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n# Generated by `python -m libmicrovmi_py.stubgen`")


def test_module_imports_only_the_standard_library_and_parses_as_python_3_10() -> None:
    tree = ast.parse(generate(HEADER), feature_version=(3, 10))
    found = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    found |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert found <= set(sys.stdlib_module_names)
    other = ast.parse(generate("int f(void);", name="x.h"))
    assert {name.name for node in ast.walk(other) if isinstance(node, ast.Import) for name in node.names} == {
        "ctypes",
        "os",
    }


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "libmicrovmi_py.stubgen", *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def test_command_writes_the_module_for_our_header(tmp_path: Path) -> None:
    output = tmp_path / "out.py"
    assert command("-o", output).returncode == 0
    assert output.read_text() == generate(HEADER)
    assert command().stdout == generate(HEADER)


def test_command_takes_a_header_and_the_name_of_its_library(folder: Path) -> None:
    assert '= "libzoo.so") -> Library' in command(folder / "zoo.h").stdout
    assert '= "/opt/zoo.so") -> Library' in command("--library", "/opt/zoo.so", folder / "zoo.h").stdout


def test_command_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    result = command(tmp_path / "gone.h")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"stubgen: no header at {tmp_path}/gone.h; give the path of libmicrovmi.h\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int f(", "x.h: cffi cannot read it: "),
        ("extern int counter;", "x.h: variable counter: global variables are not supported"),
        ("int f(const char *format, ...);", "x.h: f: variable arguments are not supported"),
        ("typedef int (*f)(int, ...);", "variable arguments are not supported"),
        ("struct s { unsigned int a : 3; unsigned char b : 3; };", "bit-fields need names, and members of one integer"),
        ("struct s { unsigned int a : 3; unsigned int : 3; };", "bit-fields need names"),
        ("struct t; struct s { struct t inner; };", "s.inner: a member of type <struct t>, which the header does not"),
        ("struct thing { int a; }; typedef int thing;", "x.h: thing is the name of two things"),
        ("typedef int load;", "x.h: load is the name of two things"),
        ("void f(wchar_t c);", "wchar_t: ctypes has no such type"),
    ],
)
def test_what_has_no_equal_in_ctypes_is_a_clear_error(text: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        generate(text, name="x.h")
