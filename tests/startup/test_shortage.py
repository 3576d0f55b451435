# SPDX-License-Identifier: Apache-2.0
"""A process that has run out of something: told in its own words, on no stream, and forgotten when it has passed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from programs import Programs


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.raw"
    path.write_bytes(bytes(64 << 10))
    return path


@pytest.mark.parametrize("what", ["descriptors", "keys"])
def test_the_library_works_again_when_there_is_enough(programs: Programs, image: Path, what: str) -> None:
    programs.run(programs.linked("scarce"), what, image)


def test_the_library_starts_when_there_is_memory_again(programs: Programs) -> None:
    programs.run(programs.linked("scarce"), "memory")
