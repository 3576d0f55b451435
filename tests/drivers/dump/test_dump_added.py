# SPDX-License-Identifier: Apache-2.0
"""A format is one file: a copy of the package to which one is added reads it, and nothing else was changed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

FORMAT = '''
"""Words: a page for each, filled with it."""
import struct

from libmicrovmi_py.drivers.dump.contents import Contents
from libmicrovmi_py.drivers.dump.pages import PackedPages
from libmicrovmi_py.drivers.dump.probing import Probe, Sure

BEGINS = (
    b"WORDS",  # the first version
    (8, b"words of the second"),
)
ENDS = (".words",)
HOLDS = ("words.first", "others")


def probe(image):
    if image.start[8:9] == b"!":
        return Probe(Sure.CERTAIN, "an angry file", "calm it down")
    return Probe(Sure.LIKELY, "a file of words")


class Words(PackedPages):
    def page(self, index):
        return self.image.read(16 + 8 * index, 8, "a word") * 512


def read(image):
    words = Words(image, 4096)
    words.add(3, 3 + (image.size - 16) // 8, 0)
    return Contents(words, producer="test")
'''
RIVAL = '''
"""Surer of the same files, when it is sure at all."""
from libmicrovmi_py.drivers.dump.contents import Contents
from libmicrovmi_py.drivers.dump.layout import Extent
from libmicrovmi_py.drivers.dump.probing import Probe, Sure

BEGINS = (b"WORDS",)


def probe(image):
    return Probe(Sure.CERTAIN, "a rival's file") if image.start[5:6] == b"R" else None


def read(image):
    return Contents([Extent(0x10000, image.size, 0)])
'''
WRAPPER = '''
"""Bytes behind a header."""
from libmicrovmi_py.drivers.dump.probing import Probe, Sure
from libmicrovmi_py.drivers.dump.views import Part, View

BEGINS = (b"WRAP",)


def probe(image):
    return Probe(Sure.CERTAIN, "a wrapped file")


def unwrap(image):
    return View(image.path, [Part(0, image.size - 4, image, 4)])
'''
PROGRAM = """
import json, sys
from libmicrovmi_py import Microvmi, MicrovmiError
result = {}
for path in sys.argv[1:]:
    before = set(sys.modules)
    try:
        with Microvmi(driver="dump", path=path) as machine:
            ranges = [[item.start, item.end] for item in machine.memory_map()]
            result[path] = ranges, machine.read_physical(ranges[0][0], 8).decode()
    except MicrovmiError as err:
        result[path] = str(err)
    loaded = [name for name in set(sys.modules) - before if ".formats." in name]
    result[path + " loaded"] = sorted(name.rpartition(".")[2] for name in loaded)
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with a format, a rival of it, and a wrapper more."""
    folder = tmp_path_factory.mktemp("copy")
    left_out = shutil.ignore_patterns("__pycache__", "tools", "command", "compat", "linux")
    shutil.copytree(ROOT / "libmicrovmi_py", folder / "libmicrovmi_py", ignore=left_out)
    dump = folder / "libmicrovmi_py" / "drivers" / "dump"
    for name, text in (("formats/words", FORMAT), ("formats/rival", RIVAL), ("wrappers/wrap", WRAPPER)):
        (dump / f"{name}.py").write_text(text)
    return folder


def test_a_format_that_is_added_is_found_asked_and_read(package: Path, tmp_path: Path) -> None:
    content = b"WORDS".ljust(16) + b"first,, second, "
    folder = tmp_path / "folder"
    folder.mkdir()
    files = {
        "words": content,
        "later": b"8 bytes:words of the second ",
        "some.WORDS": b"only the name".ljust(16) + b"by name ",
        "angry": b"WORDS   !" + bytes(100),
        "rival": b"WORDSR  " + bytes(4088),
        "wrapped": b"WRAP" + content,
        "twice": b"WRAPWRAP" + content,
        "deep": b"WRAP" * 9 + content,
        "raw": b"no words" + bytes(4088),
        "folder/words.first": content,
        "folder/others": b"x",
    }
    for name, made in files.items():
        (tmp_path / name).write_bytes(made)
    names = [*(str(tmp_path / name) for name in files if "/" not in name), str(folder)]
    command = [sys.executable, "-c", PROGRAM, *names]
    done = subprocess.run(command, cwd=package, capture_output=True, text=True, check=True)
    found = {Path(path).name: result for path, result in json.loads(done.stdout).items()}
    for name in ("words", "wrapped", "twice", "folder"):
        assert found[name] == [[[0x3000, 0x5000]], "first,, "], name
    assert found["later"][0] == [[0x3000, 0x4000]]
    assert found["some.WORDS"] == [[[0x3000, 0x4000]], "by name "]
    assert found["angry"].endswith("is an angry file, which cannot be read: calm it down")
    assert found["rival"] == [[[0x10000, 0x11000]], "WORDSR  "]
    assert "within 4 others, which cannot be read" in found["deep"]
    assert found["raw"] == [[[0, 0x1000]], "no words"]
    assert found["raw loaded"] == ["raw"], "formats that do not know a file are not loaded for it"
    assert "words" in found["words loaded"]
