# SPDX-License-Identifier: Apache-2.0
"""The kernel's log, as ``dmesg`` has it, out of its ring of records (5.10 and later).

A ring of descriptors, numbered on and on; with each a record (when, how long, how bad), and a place in a ring of texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from libmicrovmi_py.declare import TYPE_CHECKING, NamedTuple
from libmicrovmi_py.errors import IoError, NotSupportedError

if TYPE_CHECKING:
    from libmicrovmi_py.linux.kernel import Kernel

_MOST_BITS = 20
"""Of the number of descriptors."""

_MOST_TEXT_BITS = 26
_STATE_SHIFT = 62
_READABLE = (1, 2)
"""States of a record that is whole: committed, finalized."""

_BLOCK = 1024
"""Records that are read at once."""

_NO_TEXT = 1
"""A bit of both places of a text that there is none of."""

_LEVEL_BEHIND_LENGTH = 3
"""Bytes from the length of a record's text to the byte whose upper three bits are its level."""


class LogLine(NamedTuple):
    """A record: when it was, since the kernel's start, how bad it is from 0 (emergency) to 7 (debug), and the text.

    A text may have several lines.
    """

    nanoseconds: int
    level: int
    text: str

    @property
    def seconds(self) -> float:
        """When it was, in seconds since the kernel's start."""
        return self.nanoseconds / 1e9

    def lines(self) -> list[str]:
        """As ``dmesg`` has it: the time in front of each line, down to whole microseconds."""
        seconds, rest = divmod(self.nanoseconds // 1000, 10**6)
        return [f"[{seconds:5d}.{rest:06d}] {line}" for line in self.text.split("\n")]


def log(kernel: Kernel) -> Iterator[LogLine]:
    """The records that are in the ring, the oldest first.

    Raises ``NotSupportedError`` for a kernel that does not tell where it is, ``IoError`` for a ring that cannot be.
    """
    return _Ring(kernel).records()


class _Ring:
    """Where everything is, and the texts; addresses are virtual, sizes bytes."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._offset, self._size = _layout(kernel)
        address = (kernel.note.symbol("prb") if kernel.note else None) or kernel.symbols.get("prb")
        if address is None:
            raise NotSupportedError(f"the kernel {kernel.release} does not tell where its log is")
        ring = kernel.pointer(address)
        self._descriptors = ring + self._offset("printk_ringbuffer.desc_ring")
        self._texts = ring + self._offset("printk_ringbuffer.text_data_ring")
        self._bits = self._bits_of(self._descriptors + self._offset("prb_desc_ring.count_bits"), _MOST_BITS)
        self._left = 1 << _MOST_TEXT_BITS
        self._text_bits = self._bits_of(self._texts + self._offset("prb_data_ring.size_bits"), _MOST_TEXT_BITS)

    def _bits_of(self, address: int, most: int) -> int:
        bits = int.from_bytes(self._kernel.space.read_virtual(address, 4), "little")
        if not 0 < bits <= most:
            raise IoError(f"the kernel's log is damaged: its size would be 2 to the power of {bits}")
        return bits

    def records(self) -> Iterator[LogLine]:
        """Block by block, by the numbers of descriptors."""
        pointer, offset = self._kernel.pointer, self._offset
        first = pointer(self._descriptors + offset("prb_desc_ring.tail_id"))
        last = pointer(self._descriptors + offset("prb_desc_ring.head_id"))
        count = 1 << self._bits
        texts = self._read(pointer(self._texts + offset("prb_data_ring.data")), 1 << self._text_bits)
        number = min((last - first + 1) % (1 << _STATE_SHIFT), count)
        done = 0
        while done < number:
            index = (first + done) % count
            size = min(number - done, count - index, _BLOCK)
            yield from self._block(first + done, index, size, texts)
            done += size

    def _block(self, first: int, index: int, count: int, texts: bytes) -> Iterator[LogLine]:
        """``count`` records, of which the one at ``index`` has the number ``first``."""
        size, info_size = self._size("prb_desc"), self._size("printk_info")
        pointer, offset = self._kernel.pointer, self._offset
        descriptors = self._read(
            pointer(self._descriptors + offset("prb_desc_ring.descs")) + index * size, count * size
        )
        start = pointer(self._descriptors + offset("prb_desc_ring.infos")) + index * info_size
        infos = self._read(start, count * info_size)
        for at in range(count):
            text = self._text(descriptors[at * size : (at + 1) * size], first + at, texts)
            if text is not None:
                self._left -= len(text)
                if self._left < 0:
                    raise IoError("the kernel's log is damaged: its records have more text than there is")
                yield self._line(infos[at * info_size : (at + 1) * info_size], text)

    def _text(self, descriptor: bytes, number: int, texts: bytes) -> bytes | None:
        """The text of a record, with what is behind it; ``None`` for one that is not whole, or another by now."""
        state = _word(descriptor, self._offset("prb_desc.state_var"))
        if state >> _STATE_SHIFT not in _READABLE or (state ^ number) & (1 << _STATE_SHIFT) - 1:
            return None
        place = self._offset("prb_desc.text_blk_lpos")
        begin = _word(descriptor, place + self._offset("prb_data_blk_lpos.begin"))
        end = _word(descriptor, place + self._offset("prb_data_blk_lpos.next"))
        if begin & end & _NO_TEXT:
            return b""
        size = 1 << self._text_bits
        start, stop = begin % size, end % size or size
        if begin // size != (end - 1) // size:  # it begins anew at the ring's start, as it does not fit at its end
            start = 0
        block = texts[start:stop]
        return block[8:] if (_word(block, 0) ^ number) & (1 << _STATE_SHIFT) - 1 == 0 else None

    def _line(self, info: bytes, text: bytes) -> LogLine:
        length = self._offset("printk_info.text_len")
        size = int.from_bytes(info[length : length + 2], "little")
        level = int.from_bytes(info[length + _LEVEL_BEHIND_LENGTH :][:1], "little") >> 5
        time = _word(info, self._offset("printk_info.ts_nsec"))
        return LogLine(time, level, text[:size].decode("utf-8", "replace"))

    def _read(self, address: int, size: int) -> bytes:
        return self._kernel.space.read_virtual(address & (1 << 64) - 1, size)


def _word(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 8], "little")


def _layout(kernel: Kernel) -> tuple[Callable[[str], int], Callable[[str], int]]:
    """Offsets of ``structure.member``, and sizes of structures: by the kernel's note, or by its types without one."""
    note = kernel.note
    if note is not None and note.offset("prb_desc_ring.infos") is not None:
        return _told(kernel, note.offset), _told(kernel, note.size)
    types = kernel.known_types()

    def offset(name: str) -> int | None:
        structure, _, member = name.partition(".")
        return types.struct(structure).offset(member)

    return _told(kernel, offset), _told(kernel, lambda name: types.struct(name).size)


def _told(kernel: Kernel, told: Callable[[str], int | None]) -> Callable[[str], int]:
    """What the kernel tells, which it has to, within the size of any structure."""
    known: dict[str, int] = {}

    def value(name: str) -> int:
        if name not in known:
            found = told(name)
            if found is None or not 0 <= found <= 1 << 12:
                raise NotSupportedError(f"the kernel {kernel.release} does not tell {name}, or what it cannot be")
            known[name] = found
        return known[name]

    return value
