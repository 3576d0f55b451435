# SPDX-License-Identifier: Apache-2.0
"""The rules of the house that a machine can check: imports go down only, importing has no side effects."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "libmicrovmi_py"

# From the bottom to the top; a module may import from its own layer and from those below.
LAYERS = [
    ("version", "declare", "errors", "model", "paging", "_direct"),
    ("params", "header", "environment"),
    ("arch",),
    ("events", "abilities", "listed"),
    ("transport",),
    ("drivers",),
    ("memory",),
    ("machine",),
    ("linux", "export"),
    ("__init__",),
    ("_capi", "stubgen", "__main__"),
    ("compat",),
    ("tools",),
    ("command",),
]
PROGRAMS = {"tools", "command"}
"""What runs as a program of our own, which nothing of the library imports: it may start processes and take signals."""
VOCABULARY_ONLY = {
    "transport": {"version", "_direct", "declare", "errors", "model", "params", "transport"},
    "arch": {"declare", "errors", "model", "params", "paging", "arch"},
}
FORBIDDEN = {"signal", "asyncio", "subprocess", "multiprocessing", "tempfile", "concurrent"}

SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent.name not in ("_native", "include", "lib"))


def layer_of(module: str) -> int:
    """The layer of ``libmicrovmi_py.X...``, by X."""
    name = [*module.split("."), "__init__"][1]
    return next(index for index, names in enumerate(LAYERS) if name in names)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            if node.module == "libmicrovmi_py":
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_go_down_only(path: Path) -> None:
    own = layer_of(module_of(path))
    for name in imports_of(path):
        if name.startswith("libmicrovmi_py."):
            assert layer_of(name) <= own, f"{module_of(path)} imports {name} from above"


@pytest.mark.parametrize("layer", VOCABULARY_ONLY)
def test_the_rooms_at_the_bottom_know_the_vocabulary_only(layer: str) -> None:
    found = {
        name.split(".")[1]
        for path in (PACKAGE / layer).rglob("*.py")
        for name in imports_of(path)
        if name.startswith("libmicrovmi_py.")
    }
    assert found <= VOCABULARY_ONLY[layer]


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_only_the_boundary_knows_cffi(path: Path) -> None:
    places = ("_capi", "stubgen", "transport/native.py", "transport/foreign.py")
    allowed = any(path.is_relative_to(PACKAGE / place) for place in places)
    cffi = {name for name in imports_of(path) if name.split(".")[0] in ("cffi", "_libmicrovmi", "_cffi_backend")}
    assert allowed or not cffi


def test_importing_takes_nothing_of_the_process() -> None:
    modules = [
        module_of(path)
        for path in SOURCES
        if path.relative_to(PACKAGE).parts[0] not in {"_capi", *PROGRAMS} and path.name != "__main__.py"
    ]
    code = (
        "import sys, importlib, threading\n"
        "before = set(sys.modules)\n"
        f"[importlib.import_module(name.removesuffix('.__init__')) for name in {modules!r} if 'stubgen' not in name]\n"
        f"bad = {FORBIDDEN!r} & {{name.split('.')[0] for name in set(sys.modules) - before}}\n"
        "assert not bad, bad\n"
        "assert threading.active_count() == 1\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.append({str(ROOT)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_file_names_its_licence() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\n")
    names = [name for name in listed if name and (ROOT / name).is_file()] or [str(path) for path in SOURCES]
    bare = {"LICENSE", ".gitignore", "libmicrovmi_py/py.typed"}
    missing = [
        name
        for name in names
        if name not in bare and "SPDX-License-Identifier: Apache-2.0" not in (ROOT / name).read_text()[:400]
    ]
    assert missing == []


OPENING = {"open", "os.open", "os.dup", "os.pidfd_open", "os.eventfd", "os.memfd_create", "os.pipe", "mmap.mmap"}
OPENING |= {
    "os.listdir",
    "os.scandir",
    "socket.socket",
    "socket.create_connection",
    "socket.socketpair",
    "socket.fromfd",
}
BEFORE_ANY_MACHINE = {"environment", "header", "stubgen"}
STREAMS_HELD_AT_START = PROGRAMS
"""Programs see to it at their start that all three standard streams are open."""


def opening_calls(tree: ast.AST, held: bool = False) -> Iterator[ast.Call]:
    """Calls that make a descriptor, outside of a block that keeps it off the standard streams' numbers."""
    for node in ast.iter_child_nodes(tree):
        inside = held
        if isinstance(node, ast.With):
            inside = held or any(ast.unparse(item.context_expr) == "StandardStreamsHeld()" for item in node.items)
        if isinstance(node, ast.Call) and not held and ast.unparse(node.func) in OPENING:
            yield node
        yield from opening_calls(node, inside)


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_what_is_opened_gets_no_standard_stream_s_number(path: Path) -> None:
    module = module_of(path)
    if module.split(".")[1:2] in [[name] for name in BEFORE_ANY_MACHINE | STREAMS_HELD_AT_START] or module.endswith(
        "transport.fds"
    ):
        return
    found = [f"{path.name}:{call.lineno}" for call in opening_calls(ast.parse(path.read_text()))]
    assert not found, "open it in a block with StandardStreamsHeld()"


DRIVERS = [path for path in SOURCES if path.is_relative_to(PACKAGE / "drivers")]
ANY_DRIVER_S = {"base", "control", "guestmemory", "hosted", "imageinfo", "registry", "saved"}


@pytest.mark.parametrize("path", DRIVERS, ids=module_of)
def test_no_driver_knows_another(path: Path) -> None:
    own = path.relative_to(PACKAGE / "drivers").parts[0].removesuffix(".py")
    known = {name.split(".")[2] for name in imports_of(path) if name.startswith("libmicrovmi_py.drivers.")}
    assert own in ANY_DRIVER_S or known <= ANY_DRIVER_S | {own}


def test_the_registry_and_what_all_drivers_share_know_no_driver_by_name() -> None:
    for path in (
        path for path in DRIVERS if path.relative_to(PACKAGE / "drivers").parts[0].removesuffix(".py") in ANY_DRIVER_S
    ):
        names = imports_of(path)
        assert {name.split(".")[2] for name in names if name.startswith("libmicrovmi_py.drivers.")} <= ANY_DRIVER_S
