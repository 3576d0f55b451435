# SPDX-License-Identifier: Apache-2.0
"""A build id is a guest's word, and gets into names of files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from linux.made import Made

from libmicrovmi_py.linux.kernel import Kernel
from libmicrovmi_py.tools.volatility.symbolfile import FILE, symbol_file


def test_a_build_id_that_is_no_file_s_name_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = Made(notes=["BUILD-ID=" + "ab" * 3000])
    path = symbol_file(Kernel.find(made.machine()))
    assert path.name == FILE
    assert path.parent.name.startswith("abab")
    assert json.loads(path.read_bytes())["metadata"]["format"] == "6.2.0"
