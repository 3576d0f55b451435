# SPDX-License-Identifier: Apache-2.0
"""Walks of page tables whose entries a driver reads: all of them together, so that each level is one trip.

The rules stand in C, which says which entries the walks need next.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from libmicrovmi_py.declare import Any
from libmicrovmi_py.errors import AccessError, NotMappedError
from libmicrovmi_py.memory.frames import FrameMemory
from libmicrovmi_py.memory.translation import NOWHERE, Space, new_translation
from libmicrovmi_py.model import PAGE_SHIFT
from libmicrovmi_py.paging import TranslationFailure
from libmicrovmi_py.transport.native import native


class Walks:
    """Where virtual addresses are. ``physical`` is ``None`` for one that is nowhere, or of which that is not known."""

    def __init__(self, space: Space, frames: FrameMemory, virtual: Sequence[int]) -> None:
        ffi, lib = native()
        count = len(virtual)
        self.virtual = virtual
        self._space = space
        self._frames = frames
        self._errors: dict[int, AccessError] = {}
        self._walks, places = ffi.new("struct mvi_walk[]", count), ffi.new("uint64_t[]", count)
        needed = lib.mvi_walks_begin(space.pointer, self._walks, ffi.new("uint64_t[]", virtual), count, places)
        if count == 1:
            self._go_alone(space, self._walks, places, needed)
            self.physical = [None if self._walks[0].failure else self._walks[0].address]
        else:
            self._go(space, self._walks, places, needed)
            self.physical = [None if place == NOWHERE else place for place in ffi.unpack(self._told[1], count)]

    @functools.cached_property
    def _told(self) -> tuple[Any, Any]:
        """What C tells of the walks: a ``struct microvmi_translation`` and a physical address of each."""
        ffi, lib = native()
        count = len(self.virtual)
        rows, physical = ffi.new("struct microvmi_translation[]", count), ffi.new("uint64_t[]", count)
        lib.mvi_walks_tell(self._space.pointer, self._walks, count, rows, physical)
        return rows, physical

    def _go_alone(self, space: Space, walk: Any, place: Any, needed: int) -> None:
        """One walk, the most frequent case: an entry after the other."""
        ffi, lib = native()
        entry, there = ffi.new("uint64_t *"), ffi.new("bool *", True)
        view = memoryview(ffi.buffer(entry, space.entry_size))
        while needed:
            try:
                self._frames.read_within(place[0], view)
            except AccessError as err:
                there[0] = False
                self._keep([place[0]], err)
            needed = lib.mvi_walks_feed(space.pointer, walk, 1, place, entry, there, 1, place)

    def _go(self, space: Space, walks: Any, places: Any, needed: int) -> None:
        ffi, lib = native()
        while needed:
            known = sorted(set(ffi.unpack(places, needed)))
            entries, there = self._read_entries(known, space.entry_size)
            given = (ffi.new("uint64_t[]", known), ffi.new("uint64_t[]", entries), ffi.new("bool[]", there))
            needed = lib.mvi_walks_feed(space.pointer, walks, len(self.virtual), *given, len(known), places)

    def _read_entries(self, places: Sequence[int], size: int) -> tuple[list[int], list[bool]]:
        """The entries at ascending places, and which are memory; what lies in a frame is read in one piece."""
        frames: dict[int, list[int]] = {}
        for place in places:
            frames.setdefault(place >> PAGE_SHIFT, []).append(place)
        pieces = [(found[0], memoryview(bytearray(found[-1] + size - found[0]))) for found in frames.values()]
        entries, there = [], []
        results = self._frames.read_batch(pieces)
        for found, (start, content), result in zip(frames.values(), pieces, results, strict=True):
            words = content[: (result.done // size) * size].cast("Q" if size == 8 else "I")
            for index in ((place - start) // size for place in found):
                there.append(index < len(words))
                entries.append(words[index] if there[-1] else 0)
            self._keep(found, result.error)
        return entries, there

    def _keep(self, places: Sequence[int], err: AccessError | None) -> None:
        """Keep what a read of entries ended with, unless it is that there is no memory.

        Without its traceback, which holds the frame that holds this object: a cycle, see ``_address`` in ``direct.py``.
        """
        if err is not None and not isinstance(err, NotMappedError):
            self._errors.update(dict.fromkeys(places, err.with_traceback(None)))

    def row(self, index: int) -> Any:
        """The ``struct microvmi_translation`` of an address; of no worth where there is an :meth:`error`."""
        row = new_translation()
        native().ffi.memmove(row, self._told[0] + index, row.struct_size)
        return row

    def reach(self, index: int) -> int:
        """Up to where all virtual addresses are nowhere for the same reason; 0 where that is not told."""
        row = self._told[0][index]
        size, nowhere = row.page_size, self.physical[index] is None and self.error(index) is None
        return (self.virtual[index] // size + 1) * size if nowhere and size else 0

    def error(self, index: int) -> AccessError | None:
        """What reading a table of this walk ended with, other than that there is no memory."""
        if not self._errors:
            return None
        row = self._told[0][index]
        return self._errors.get(row.entry_address) if row.failure == TranslationFailure.TABLE_NOT_MEMORY else None
