# SPDX-License-Identifier: Apache-2.0
"""A QMP server's messages, spoiled; imported by the process that looks like QEMU, which has no library of ours."""

from __future__ import annotations

import json
from typing import Any

from fuzz.mutator import Mutator

OFTEN = 0.04
SELDOM = 0.004


def spoiled(mutator: Mutator, message: dict[str, Any]) -> bytes:
    """The line for a message: mostly as it is, else with another result, another frame, or garbage instead."""
    chance = mutator.random()
    if chance < OFTEN and "return" in message:
        message = {**message, "return": mutator.answer(message["return"])}
    elif chance < OFTEN + SELDOM:
        message = mutator.answer(message)
    line = json.dumps(message).encode() + b"\r\n"
    if chance > 1 - SELDOM:
        error = json.dumps({"id": message.get("id"), "error": {"class": []}}).encode() + b"\r\n"
        deep = b'{"return": ' + b"[" * 200_000 + b"\n"
        return mutator.choice((mutator.data(line), deep, b'{"event": 1}\r\n' + line, error))
    return line
