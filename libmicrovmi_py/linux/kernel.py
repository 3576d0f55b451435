# SPDX-License-Identifier: Apache-2.0
"""The Linux kernel of a guest, out of its memory alone: symbols, types, page tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import chain, islice

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.errors import (
    AccessError,
    InvalidArgumentError,
    MicrovmiError,
    NotSupportedError,
    VmGoneError,
    escaped,
)
from libmicrovmi_py.linux import btf, image, kallsyms, shape, tables, unnamed
from libmicrovmi_py.linux.image import Image
from libmicrovmi_py.linux.kallsyms import Symbols
from libmicrovmi_py.linux.spaces import kernel_space
from libmicrovmi_py.linux.unnamed import BANNER
from libmicrovmi_py.linux.vmcoreinfo import VmcoreInfo, notes
from libmicrovmi_py.model import U64_MAX, Architecture

if TYPE_CHECKING:
    from libmicrovmi_py.linux.btf import Types
    from libmicrovmi_py.machine.microvmi import Microvmi
    from libmicrovmi_py.memory.virtual import AddressSpace

_LONGEST_TEXT = 512
_X86_LINKED = 0xFFFF_FFFF_8100_0000
"""Where ``_text`` of an x86 kernel is that was not moved."""

_MOST_NOTES = 16
"""Notes of kernels that are looked at."""

_MOST_NOTE_BYTES = 64 << 10

if TYPE_CHECKING:
    _Found = tuple[AddressSpace, Symbols, VmcoreInfo | None]


class Kernel:
    """What a kernel tells of itself; :meth:`find` finds it.

    ``space`` are the kernel's page tables (``swapper_pg_dir``), ``symbols`` what its kallsyms has, ``note`` its
    VMCOREINFO if there is one. ``phys_base`` is where an x86 kernel's image is from (that of 0xffffffff80000000), and
    where an AArch64 machine's memory begins. ``kaslr_offset`` is how far the kernel was moved, in bytes; 0 if an
    AArch64 kernel without a note does not tell. All is as it was when it was found, but what is read on.
    """

    def __init__(self, machine: Microvmi, space: AddressSpace, symbols: Symbols, note: VmcoreInfo | None) -> None:
        self.machine, self.space, self.symbols, self.note = machine, space, symbols, note
        self.architecture = "x86_64" if machine.driver.architecture is Architecture.X86 else "aarch64"
        self.banner = self._banner()
        self.release = (note.release if note else "") or self.banner[len(BANNER) :].partition(" ")[0]
        self.kaslr_offset = note.kaslr_offset if note else self._moved()
        self.phys_base = self._phys_base()
        self._why_no_types = ""

    @classmethod
    def find(cls, machine: Microvmi) -> Kernel:
        """The kernel that runs in a machine, or ran in it when it was dumped.

        Raises ``NotSupportedError`` if there is none, or one that does not tell enough, ``IoError`` if what it tells
        is damaged.
        """
        reasons: list[str] = []
        for space, symbols, note in chain(_by_notes(machine, reasons), _by_registers(machine, reasons)):
            return cls(machine, space, symbols, note)
        raise NotSupportedError(f"no Linux kernel was found in the machine's memory: {'; '.join(reasons[:3])}")

    @property
    def vmcoreinfo(self) -> bytes | None:
        """The text of the note, without zeros behind it."""
        return None if self.note is None else self.note.text

    @cached_property
    def build_id(self) -> str | None:
        """The build id in hexadecimal digits, by which debug information is found."""
        return (self.note.build_id if self.note else None) or self._build_id_of_image()

    @cached_property
    def btf(self) -> bytes | None:
        """The kernel's types as it has them; ``None``, for the reason that ``why_no_types`` is, if it has none."""
        start, end = self._place_of_types()
        if start == end:
            self._why_no_types = f"the kernel {self.release} was built without BTF (CONFIG_DEBUG_INFO_BTF)"
            return None
        if not 0 < end - start <= btf.MOST_BYTES:
            self._why_no_types = f"the kernel's BTF would be {end - start} bytes long"
            return None
        try:
            return self.space.read_virtual(start, end - start)
        except AccessError as err:
            self._why_no_types = f"the kernel's BTF cannot be read: {err}"
            return None

    @cached_property
    def types(self) -> Types | None:
        """The kernel's types; ``None`` as ``btf`` is."""
        if (content := self.btf) is None:
            return None
        try:
            return btf.Types(content)
        except MicrovmiError as err:
            self._why_no_types = str(err)
            return None

    @property
    def why_no_types(self) -> str:
        """One line; empty if there are types."""
        return "" if self.types else escaped(self._why_no_types)

    @cached_property
    def init_task(self) -> int:
        """The address of the first task. Raises ``NotSupportedError`` if it is not found."""
        if (address := self.symbols.get("init_task")) is not None:
            return address
        types = self.known_types()
        for start, content in self._image():
            if (found := unnamed.first_task(self.space, types, content, start)) is not None:
                return found
        raise NotSupportedError(f"the kernel {self.release} does not tell where its tasks are")

    def known_types(self) -> Types:
        """The kernel's types; ``NotSupportedError`` if it has none, with the reason."""
        if (types := self.types) is None:
            raise NotSupportedError(self.why_no_types)
        return types

    def text(self, address: int, most: int = _LONGEST_TEXT) -> bytes:
        """A text that ends with a zero, at most so many bytes of it, and what is mapped."""
        content = bytearray(most)
        done = self.space.read_virtual_into(address, content)
        return bytes(content[:done]).partition(b"\0")[0]

    def pointer(self, address: int) -> int:
        """The 8 bytes at an address; ``NotMappedError`` without any."""
        return int.from_bytes(self.space.read_virtual(address & U64_MAX, 8), "little")

    def _image(self) -> Iterator[tuple[int, bytearray]]:
        """Where the image is, and what is in it."""
        found = image.images_with(self.machine, self.space, self.symbols.get("_stext"))
        return ((item.start, item.content()) for item in found)

    def _banner(self) -> str:
        address = self.symbols.get("linux_banner")
        if address is None:
            for start, content in self._image():
                place = unnamed.banner(content)
                address = address or (None if place is None else start + place)
        return "" if address is None else self.text(address).strip().decode("ascii", "replace")

    def _place_of_types(self) -> tuple[int, int]:
        """Where they begin and end; twice the same without any."""
        start, end = self.symbols.get("__start_BTF"), self.symbols.get("__stop_BTF")
        if start is not None and end is not None:
            return start, end
        for at, content in self._image() if "linux_banner" not in self.symbols else ():
            if (found := unnamed.types(content)) is not None:
                return at + found[0], at + found[1]
        return 0, 0

    def _moved(self) -> int:
        text = self.symbols.get("_text")
        return text - _X86_LINKED if text and self.architecture == "x86_64" else 0

    def _phys_base(self) -> int:
        name = "phys_base" if self.architecture == "x86_64" else "PHYS_OFFSET"
        told = self.note.number(name) if self.note else None
        if told is not None:
            return told
        address = self.symbols.get("phys_base" if name == "phys_base" else "memstart_addr")
        value = self.pointer(address) if address else 0
        return value - (1 << 64) if value >> 63 and self.architecture == "x86_64" else value

    def _build_id_of_image(self) -> str | None:
        """The build id among the notes of the kernel's image."""
        start, end = self.symbols.get("__start_notes"), self.symbols.get("__stop_notes")
        if start is None or end is None or not 0 < end - start <= _MOST_NOTE_BYTES:
            return None
        try:
            return _build_id(self.space.read_virtual(start, end - start))
        except AccessError:
            return None

    def __repr__(self) -> str:
        return f"<Kernel {self.release} {self.architecture}>"


def _by_notes(machine: Microvmi, reasons: list[str]) -> Iterator[_Found]:
    """The kernels whose notes are in memory, unless they are gone; ``reasons``: what becomes of the others."""
    found = False
    for note in islice(notes(machine.physical), _MOST_NOTES):
        found = True
        with _going_on(reasons):
            space = kernel_space(machine, note)
            yield space, _symbols_by_note(machine, space, note), note
    if not found:
        reasons.append("no VMCOREINFO is in it")


def _symbols_by_note(machine: Microvmi, space: AddressSpace, note: VmcoreInfo) -> Symbols:
    """The symbols that a note names, or where it does not, what looks like them in the kernel's image."""
    text = note.symbol("_stext")

    def is_right(address_of: Callable[[str], int | None]) -> bool:
        if (banner := address_of("linux_banner")) is None:
            return text is not None and address_of("_stext") == text
        content = bytearray(len(BANNER))
        return space.read_virtual_into(banner, content) > 0 and content == BANNER

    if (named := tables.named(space, note)) is not None:
        return kallsyms.symbols_of([named], is_right)
    found = image.images_with(machine, space, text)
    return kallsyms.symbols_of(chain.from_iterable(shape.found(item.content(), item.start) for item in found), is_right)


def _by_registers(machine: Microvmi, reasons: list[str]) -> Iterator[_Found]:
    """The kernel that vCPUs are in."""
    with _going_on(reasons):
        for item in image.images_of_vcpus(machine):
            with _going_on(reasons):
                symbols = _symbols_of_image(item)
                base = symbols.get("swapper_pg_dir") or symbols.get("init_top_pgt")
                yield image.with_tables_at(machine, item, base) if base else item.space, symbols, None


def _symbols_of_image(item: Image) -> Symbols:
    content = item.content()

    def is_right(address_of: Callable[[str], int | None]) -> bool:
        if (banner := address_of("linux_banner")) is None:
            return item.is_text(address_of("_stext") or 0)
        return banner >= item.start and content.startswith(BANNER, banner - item.start)

    return kallsyms.symbols_of(shape.found(content, item.start), is_right)


@contextmanager
def _going_on(reasons: list[str]) -> Iterator[None]:
    """Note why something led to no kernel, and go on."""
    try:
        yield
    except VmGoneError:
        raise
    except (AccessError, NotSupportedError, InvalidArgumentError) as err:
        if (text := str(err)) not in reasons:
            reasons.append(text)


def _build_id(notes: bytes) -> str | None:
    """The build id in notes of an ELF file: of "GNU", number 3."""
    at = 0
    while at + 12 <= len(notes):
        name, size, kind = (int.from_bytes(notes[at + 4 * word : at + 4 * word + 4], "little") for word in range(3))
        start = at + 12 + (name + 3 & ~3)
        if kind == 3 and notes[at + 12 : at + 16] == b"GNU\0":
            return notes[start : start + size].hex()
        at = start + (size + 3 & ~3)
    return None
