# SPDX-License-Identifier: Apache-2.0
"""Memory of a domain over mapped frames: many a call, kept while the domain stands still."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence

from libmicrovmi_py.drivers.xen.mappings import Mapper, Mapping
from libmicrovmi_py.drivers.xen.xenctrl import Domain
from libmicrovmi_py.errors import NotMappedError, ReadOnlyError, not_mapped
from libmicrovmi_py.model import PAGE_SHIFT, PAGE_SIZE

MOST = 1024
"""Frames mapped in one call, 4 MiB."""

CHUNK = 64
"""Frames of a mapping that is kept, 256 KiB, at a multiple of that."""

KEPT = 512
"""Mappings that are kept at most, 128 MiB."""

_TRUST = 0.1
"""Seconds for which a domain whose frames are mapped is taken to live on without a look."""


class GuestMemory:
    """Reads and writes frames.

    A mapping holds on to the page that a frame had when it was mapped. A running guest may give that page away (a
    balloon, a grant), so while it can run every access maps anew and lets go. While we keep the domain paused nothing
    moves: mappings are kept then, up to a bound, the least used going first.
    """

    def __init__(self, mapper: Mapper, domain: Domain) -> None:
        self._mapper = mapper
        self._domain = domain
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Mapping] | None = None
        self._seen = 0.0
        self._hole: tuple[range, float] = (range(0), 0.0)

    def keep(self, wanted: bool) -> None:
        """From now on keep mappings, or none; those that were kept go in both cases."""
        with self._lock:
            self._kept = OrderedDict() if wanted else None

    def drop(self) -> None:
        """Let go of what is kept."""
        kept = self._kept
        if kept is not None:
            with self._lock:
                kept.clear()

    # --------------------------------------------------------------------------------------------------------- kept

    def _chunk(self, kept: OrderedDict[int, Mapping], number: int) -> Mapping:
        """The kept mapping of a chunk, mapped now if it is not."""
        with self._lock:
            mapping = kept.get(number)
            if mapping is not None:
                kept.move_to_end(number)
        if mapping is None:
            mapping = self._mapper.map(range(number * CHUNK, (number + 1) * CHUNK))
            with self._lock:
                kept[number] = mapping
                while len(kept) > KEPT:
                    kept.popitem(last=False)
        return mapping

    def _look(self) -> None:
        """A mapping outlives the domain, so look now and then. Raises ``VmGoneError``."""
        now = time.monotonic()
        if now - self._seen > _TRUST:
            self._domain.info()
            self._seen = now

    # -------------------------------------------------------------------------------------------------------- reads

    def _some(self, frame: int, count: int) -> tuple[Mapping, int]:
        """A mapping that has ``frame``, and maybe some of the ``count`` from it on, and the frame's place in it."""
        kept = self._kept
        if kept is not None and count <= CHUNK:
            self._look()
            number, index = divmod(frame, CHUNK)
            return self._chunk(kept, number), index
        return self._mapper.map(range(frame, frame + min(count, MOST))), 0

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        """As ``SupportsFrames.read_frame``."""
        mapping, index = self._some(frame, 1)
        if mapping.errors[index]:
            raise missing(frame)
        start = (index << PAGE_SHIFT) + offset
        buffer[:] = mapping.view()[start : start + len(buffer)]

    def read_range(self, address: int, buffer: memoryview) -> int:
        """As ``SupportsRanges.read_range``.

        A trip to Xen takes up to 1024 frames. A hole is walked through frame by frame, so the last one is remembered.
        """
        done = 0
        while done < len(buffer):
            frame, offset = divmod(address + done, PAGE_SIZE)
            wanted = (offset + len(buffer) - done + PAGE_SIZE - 1) >> PAGE_SHIFT
            if self._in_hole(frame):
                break
            mapping, index = self._some(frame, wanted)
            there = min(mapping.there(index), wanted)
            if not there:
                self._hole = (range(frame, frame + mapping.lacking(index)), time.monotonic())
                break
            start = (index << PAGE_SHIFT) + offset
            size = min(len(buffer) - done, (there << PAGE_SHIFT) - offset)
            buffer[done : done + size] = mapping.view()[start : start + size]
            done += size
        return done

    def _in_hole(self, frame: int) -> bool:
        """Whether a look of a moment ago found that ``frame`` does not exist."""
        hole, when = self._hole
        return frame in hole and time.monotonic() - when < _TRUST

    def read_frames(self, requests: Sequence[tuple[int, int, memoryview]]) -> list[bool]:
        """As ``SupportsFrameBatches.read_frames``."""
        found: list[bool] = []
        for first in range(0, len(requests), MOST):
            found += self._read_batch(requests[first : first + MOST])
        return found

    def _read_batch(self, requests: Sequence[tuple[int, int, memoryview]]) -> list[bool]:
        places = {frame: index for index, frame in enumerate(dict.fromkeys(frame for frame, _, _ in requests))}
        mapping = self._mapper.map(list(places))
        view, errors, found = mapping.view(), mapping.errors, []
        for frame, offset, buffer in requests:
            index = places[frame]
            found.append(not errors[index])
            if not errors[index]:
                start = (index << PAGE_SHIFT) + offset
                buffer[:] = view[start : start + len(buffer)]
        return found

    # ------------------------------------------------------------------------------------------------------- writes

    def write_frame(self, frame: int, offset: int, data: memoryview) -> None:
        """As ``SupportsFrameWrites.write_frame``."""
        mapping = self._mapper.map((frame,), writable=True)
        if mapping.errors[0]:
            self._refuse(frame)
        mapping.view()[offset : offset + len(data)] = data

    def _refuse(self, frame: int) -> None:
        if self._mapper.map((frame,)).errors[0]:
            raise missing(frame)
        address = frame << PAGE_SHIFT
        raise ReadOnlyError(f"physical address {address:#x} is memory that Xen lets nobody write", address=address)


def missing(frame: int) -> NotMappedError:
    """The error for a frame that does not exist."""
    return not_mapped(frame << PAGE_SHIFT)
