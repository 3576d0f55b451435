# SPDX-License-Identifier: Apache-2.0
"""Who waits for Python beside a long read of another context."""

from __future__ import annotations

import time
from pathlib import Path

from programs import Programs

from libmicrovmi_py.transport.native import give_way, native

PLUGINS = Path(__file__).resolve().parents[1] / "plugins"


def test_small_reads_get_their_turn_beside_a_long_one(programs: Programs) -> None:
    programs.run(programs.linked("turns"), env={"MICROVMI_PLUGIN_PATH": str(PLUGINS)})


def test_nothing_is_waited_for_if_nobody_wants_a_turn() -> None:
    begun = time.monotonic()
    for _ in range(10_000):
        give_way()
    native().lib.mvi_turns_give()
    assert native().lib.mvi_turns_wanted == 0
    assert time.monotonic() - begun < 5
