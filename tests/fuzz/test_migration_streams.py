# SPDX-License-Identifier: Apache-2.0
"""Migration streams with something changed: read whole or told to be wrong, and nothing is written where it may not."""

from __future__ import annotations

from drivers.qemu.migration_reader import new_copy, read
from drivers.qemu.migration_stream import PAGE, REST, head, over, page, part
from fuzz.mutator import SCALE, Mutator

from libmicrovmi_py.drivers.qemu.migration import Part
from libmicrovmi_py.errors import IoError

ROUNDS = 400
COUNT = 8
BLOCKS = {"pc.ram": COUNT * PAGE, "pc.rom": 2 * PAGE}
PARTS = [Part("pc.ram", 0, 4 * PAGE, 4 * PAGE), Part("pc.ram", 6 * PAGE, PAGE, 0)]


def stream(chance: Mutator) -> bytes:
    """A right one, in an order of its own."""
    offsets = [("pc.ram", at * PAGE) for at in range(COUNT)] + [("pc.rom", 0)]
    chance.shuffle(offsets)
    data, before = head(BLOCKS) + over() + part(), ""
    for block, offset in offsets:
        content = chance.choice((None, bytes([chance.randrange(1, 256)]) * PAGE))
        data += page(offset, content, "" if block == before else block)
        before = block
        if chance.random() < 0.2:
            data += over() + part()
    return data + over() + REST


def test_changed_streams_are_read_or_refused() -> None:
    read_whole = 0
    for number in range(ROUNDS * SCALE):
        chance = Mutator("migration", number)
        data = stream(chance)
        for _ in range(number % 3):
            data = chance.data(data)
        copy = new_copy(COUNT * PAGE)
        try:
            _, progress = read(data, PARTS, copy)
        except IoError:
            continue
        assert progress.copied == 5 * PAGE
        read_whole += 1
    assert ROUNDS * SCALE // 3 <= read_whole < ROUNDS * SCALE
