# SPDX-License-Identifier: Apache-2.0
"""The whole ABI as lines of text, kept in ``abi_0_5.txt``: symbols, prototypes, sizes, members, values.

``PYTHONPATH=tests build/venv/bin/python -m capi.snapshot`` writes the file anew, after ``make lib``.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cffi

from libmicrovmi_py._native import headertext
from libmicrovmi_py.header import declarations

ROOT = Path(__file__).resolve().parents[2]
HEADER = ROOT / "include" / "libmicrovmi.h"
KEPT = Path(__file__).with_name("abi_0_5.txt")
COMMENT = "# SPDX-License-Identifier: Apache-2.0"

Lines = dict[str, str]
"""What is said of what: ``{"sizeof(struct microvmi_reply)": "16"}``."""


def taken(library: Path, folder: Path) -> Lines:
    """The ABI of the header and of a library, with numbers by a C compiler, which works in ``folder``."""
    ffi = cffi.FFI()
    text = declarations(HEADER)
    ffi.cdef(text)
    types = dict(_types(ffi))
    expressions = [*_macros(text), *_constants(ffi), *types]
    numbers = compiled(expressions, folder)
    lines = {expression: " ".join((str(numbers[expression]), types.get(expression, ""))) for expression in expressions}
    prototypes = {f"{item.name}()": " ".join(item.code.split()) for item in headertext.read(HEADER).functions()}
    return {name: " ".join(line.split()) for name, line in {**_symbols(library), **prototypes, **lines}.items()}


def _symbols(library: Path) -> Lines:
    command = ["nm", "-D", "--defined-only", "--format=posix", str(library)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    names = (line.split()[0].split("@@") for line in output.splitlines() if "@@" in line)
    return {name: version for name, version in names}


def _macros(text: str) -> list[str]:
    """Those that are integers, but for the version."""
    found: list[str] = re.findall(r"^#define (\w+) ", text, re.MULTILINE)
    return [name for name in found if not name.startswith("MICROVMI_VERSION_")]


def _constants(ffi: Any) -> list[str]:
    enums = (ffi.typeof(name) for name in ffi.list_types()[0])
    return [name for kind in enums if kind.kind == "enum" for name in kind.relements]


def _types(ffi: Any) -> Iterator[tuple[str, str]]:
    """Each type with its size, and each member with its offset and its type."""
    for name in ffi.list_types()[0]:
        kind = ffi.typeof(name)
        if kind.kind in ("struct", "enum"):
            yield f"sizeof({kind.cname})", ""
        if kind.kind == "struct":
            yield from ((f"offsetof({kind.cname}, {path})", member) for path, member in _members(kind))


def _members(kind: Any) -> Iterator[tuple[str, str]]:
    """Those of unnamed members as its own, as C has them."""
    for name, member in kind.fields:
        if name:
            yield name, member.type.cname
        else:
            yield from _members(member.type)


def compiled(expressions: list[str], folder: Path) -> dict[str, int]:
    """What a C compiler says the expressions are, of which none is beyond 64 bits."""
    lines = "".join(f'    printf("%lld\\n", (long long)({expression}));\n' for expression in expressions)
    source = folder / "numbers.c"
    source.write_text(f"#include <libmicrovmi.h>\n#include <stdio.h>\nint main(void)\n{{\n{lines}    return 0;\n}}\n")
    program = folder / "numbers"
    subprocess.run(["cc", "-std=c11", f"-I{HEADER.parent}", source, "-o", program], check=True)
    output = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return dict(zip(expressions, map(int, output.split()), strict=True))


def written(lines: Lines) -> str:
    return "\n".join([COMMENT, *(f"{name} = {line}" for name, line in lines.items()), ""])


def kept(text: str) -> Lines:
    """The reverse of :func:`written`."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: line for name, _, line in (line.partition(" = ") for line in lines)}


def broken(old: Lines, new: Lines) -> list[str]:
    """What a program that was compiled with the old one would stumble over. A struct that says its size may grow."""
    return [
        f"{name}: was {line}, is {new.get(name, 'gone')}" for name, line in old.items() if _is_broken(name, old, new)
    ]


def _is_broken(name: str, old: Lines, new: Lines) -> bool:
    if name in new and f"offsetof{name.removeprefix('sizeof')[:-1]}, struct_size)" in old and name.startswith("sizeof"):
        return int(new[name]) < int(old[name])
    return new.get(name) != old[name]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        KEPT.write_text(written(taken(ROOT / "build" / "lib" / "libmicrovmi.so", Path(scratch))))
