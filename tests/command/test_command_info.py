# SPDX-License-Identifier: Apache-2.0
"""``microvmi info`` of an image: what it is, what of it is there, and what is missing."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

from command.running import piped
from drivers.dump import builders

PAGE = 4096
CORE = builders.elf({0: b"core" * PAGE, 0x10000: b"more" * PAGE}, builders.qemu_note(builders.values(0)))


def lines(path: str) -> dict[str, list[str]]:
    """What it prints, by the words in front."""
    done = piped("info", path)
    assert (done.code, done.err) == (0, "")
    found: dict[str, list[str]] = {}
    for line in done.out.splitlines():
        key, cell = re.split(r"  +", line, maxsplit=1)
        found.setdefault(key, []).append(cell)
    return found


def test_an_image_is_told_with_what_is_around_it(tmp_path: Path) -> None:
    path = tmp_path / "core.gz"
    path.write_bytes(gzip.compress(CORE))
    told = lines(str(path))
    assert {name: told[name] for name in ("format", "wrappers", "producer", "machine type", "pages", "files")} == {
        "format": ["elf"],
        "wrappers": ["gzip"],
        "producer": ["QEMU"],
        "machine type": ["x86_64"],
        "pages": ["8 present, 0 absent"],
        "files": [str(path)],
    }
    assert (told["access"], told["missing"], told["remarks"]) == (["pieces"], ["nothing"], ["none"])


def test_what_is_missing_has_a_line_for_each(tmp_path: Path) -> None:
    path = tmp_path / "cut"
    path.write_bytes(CORE[: -5 * PAGE])
    uri = f"vmi://dump/?path={path}&partial=on"
    told = lines(uri)
    assert told["pages"] == ["3 present, 5 absent"]
    assert len(told["missing"]) == 2
    assert all("missing" in line for line in told["missing"])
    document = json.loads(piped("info", uri, "--json").out)["image"]
    assert document["missing"] == told["missing"]
    assert document["pages"] == {"present": 3, "absent": 5, "zero": None}


def test_a_machine_that_is_no_image_has_no_such_lines() -> None:
    assert not {"format", "pages", "files"} & lines("vmi://fake/").keys()
    assert "image" not in json.loads(piped("info", "vmi://fake/", "--json").out)
