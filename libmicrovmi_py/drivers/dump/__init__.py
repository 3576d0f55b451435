# SPDX-License-Identifier: Apache-2.0
"""Memory images in files: raw, and the dumps that hypervisors and kernels write, each a module of ``formats``."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.declare import TYPE_CHECKING, ClassVar
from libmicrovmi_py.drivers.base import Driver, Region
from libmicrovmi_py.drivers.control import STOPPED, RunState
from libmicrovmi_py.drivers.dump.contents import Contents, Paged
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.kinds import AllKinds, Kinds, OnlyRam
from libmicrovmi_py.drivers.dump.layout import Extent
from libmicrovmi_py.drivers.dump.opening import Opening, Options
from libmicrovmi_py.drivers.dump.pages import ExtentPages, PackedPages
from libmicrovmi_py.drivers.dump.recognition import Recognised, recognised
from libmicrovmi_py.errors import InvalidArgumentError, NotMappedError
from libmicrovmi_py.model import PAGE_SHIFT, DriverType, MemoryRange, asked_vcpus
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.fds import StandardStreamsHeld

if TYPE_CHECKING:
    from libmicrovmi_py.arch.state import VcpuState
    from libmicrovmi_py.drivers.imageinfo import ImageInfo
    from libmicrovmi_py.transport.foreign_reads import ForeignReads
    from libmicrovmi_py.transport.packing import Packing


class DumpDriver(Driver):
    """A dump: memory that never changes. What :meth:`open` returns can do what the file's format allows."""

    name = "dump"
    type = DriverType.DUMP
    parameters: ClassVar[dict[str, str]] = {
        "path": "the file; a vm_name that contains a slash does as well",
        "format": "a format's name, whatever the file looks like; by what is in it if not given",
        "mapped": "no: the file is not mapped but read by system calls; yes if not given",
        "partial": "on: open what is there of a dump that is cut short or was not finished; off if not given",
        "unpack": "a folder for what has to be unpacked as a whole; memory if not given",
        "hole": "START-END: addresses left out of a raw image, as the RAM file of a hypervisor leaves them out",
        "map": "START-END@OFFSET,...: where in a raw image which addresses are",
        "snapshot": "the name or the number of a snapshot in a qcow2 image; the latest one if not given",
        "parts": "FILE,...: the other parts of a split dump, those in its folder if not given; memory that QEMU shared",
        "index": "on: keep where the pages of a saved machine of QEMU are in a file beside it; off if not given",
    }

    def __init__(self, found: Recognised, contents: Contents, kinds: AllKinds) -> None:
        self._found, self._contents = found, contents
        self._opening = found.image.opening
        self.identity = self._opening.identity
        self._processors = contents.processors
        if self._processors.states:
            self.architecture = self._processors.states[0].architecture
        self._max_addr = kinds.end_of_ram

    @classmethod
    def open(cls, params: Parameters) -> DumpDriver:
        """Open and check the file. Raises ``InvalidArgumentError``, ``IoError``, ``DriverUnavailableError``."""
        path = params.get("path") or _path_in(params.vm_name)
        if path is None:
            raise InvalidArgumentError("Dump driver requires a path")
        _check_no_socket(path)
        found = recognised(path, params.get("format"), Opening(Options.of(params)))
        options = found.image.opening.options
        if (options.hole or options.map) and found.format != "raw":
            raise InvalidArgumentError(f"hole= and map= are for raw images: {path} is one of the format {found.format}")
        if options.snapshot and "qcow2" not in found.image.opening.wrappers:
            raise InvalidArgumentError(f"snapshot= is for qcow2 images: {path} is none")
        contents = found.read(found.image)
        if options.parts and not found.image.opening.split:
            raise InvalidArgumentError(f"parts= is for split dumps: {path} is whole")
        if not contents.ranges():
            raise found.image.damaged("there is no memory in it")
        return _driver(found, contents)

    @property
    def max_addr(self) -> int:
        return self._max_addr

    @property
    def abilities(self) -> Ability:
        """Nothing is written; vCPUs are known by notes, or by a header that has a processor's context."""
        unable = Ability.WRITE
        if not self._processors.count:
            unable |= Ability.VCPU_COUNT | Ability.READ_REGISTERS
        return super().abilities & ~unable

    def run_state(self) -> RunState:
        """A dump is always paused."""
        return STOPPED

    def stop(self) -> None:
        """Nothing to do: a dump is always paused."""

    def run(self, *, whoever: bool) -> None:
        """Nothing to do: a dump cannot run."""

    def vcpu_count(self) -> int:
        """How many vCPUs the machine had."""
        return self._processors.count

    def read_states(self, vcpus: Sequence[int] | None) -> list[VcpuState]:
        """The registers at the time of the dump; empty for a vCPU that is counted and not in the dump."""
        with StandardStreamsHeld():
            from libmicrovmi_py.arch.state import VcpuState  # of whom reads memory only, nobody needs it

        known = self._processors.states
        asked = asked_vcpus(vcpus, self._processors.count)
        return [known[vcpu] if vcpu < len(known) else VcpuState(self.architecture, {}) for vcpu in asked]

    def image_info(self) -> ImageInfo:
        """What the dump tells of itself, and how it was opened."""
        from libmicrovmi_py.drivers.dump.about import image_info  # of whom reads memory only, nobody needs it

        return image_info(self._found, self._contents, lies_flat=self.lasting)

    def close(self) -> None:
        self._opening.close()


class MappedDump(DumpDriver):
    """Memory that lies in the file as it is: mapped read-only, and read in C."""

    lasting = True

    def __init__(
        self, found: Recognised, contents: Contents, kinds: AllKinds, image: Image, extents: Sequence[Extent]
    ) -> None:
        super().__init__(found, contents, kinds)
        self._regions = tuple(
            region
            for extent in extents
            for part in kinds.of(extent.start, extent.end)
            for region in _regions(image, part, extent.offset + part.start - extent.start)
        )

    def regions(self) -> Sequence[Region]:
        """The extents of the file, by guest-physical address."""
        return self._regions

    def memory_map(self) -> Sequence[MemoryRange]:
        """The memory that is in the file; ranges that follow each other are one, wherever the file has their parts."""
        ranges: list[MemoryRange] = []
        for item in self._regions:
            before = ranges.pop() if ranges and (ranges[-1].end, ranges[-1].kind) == (item.start, item.kind) else None
            start = before.start if before else item.start
            ranges.append(MemoryRange(start, item.end - start, item.kind))
        return tuple(ranges)


class PagedDump(DumpDriver):
    """Memory of which every page is unpacked when it is read."""

    static = True

    def __init__(self, found: Recognised, contents: Contents, kinds: AllKinds, pages: Paged) -> None:
        super().__init__(found, contents, kinds)
        self._pages = pages
        self._kinds = kinds
        self._map: Sequence[MemoryRange] = ()

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        """Unpack the page that holds the frame."""
        address = (frame << PAGE_SHIFT) + offset
        if self._pages.read_range(address, buffer) < len(buffer):
            raise NotMappedError(f"the dump has no page at physical address {address:#x}", address=address)

    def read_range(self, address: int, buffer: memoryview) -> int:
        """Unpack page after page up to the first that is not in the file."""
        return self._pages.read_range(address, buffer)

    def memory_map(self) -> Sequence[MemoryRange]:
        """The pages that are in the file; there may be many ranges, which not everybody asks for."""
        self._map = self._map or tuple(part for span in self._pages.ranges() for part in self._kinds.of(*span))
        return self._map


class UnpackedDump(PagedDump):
    """Pages that C finds and unpacks by itself, but for those that are damaged."""

    def __init__(self, found: Recognised, contents: Contents, kinds: AllKinds, pages: Paged, packing: Packing) -> None:
        super().__init__(found, contents, kinds, pages)
        self._reads = packing.reads()

    def foreign_reads(self) -> ForeignReads:
        """Our own function, and those of the libraries that packed the pages."""
        return self._reads

    def close(self) -> None:
        self._reads.close()
        super().close()


def _driver(found: Recognised, contents: Contents) -> DumpDriver:
    memory, image = contents.memory, contents.image or found.image
    kinds = _kinds(image, contents)
    if not isinstance(memory, Sequence):
        packing = memory.packing if isinstance(memory, PackedPages) else None
        if packing is not None:
            return UnpackedDump(found, contents, kinds, memory, packing)
        return PagedDump(found, contents, kinds, memory)
    if not image.flat:
        return PagedDump(found, contents, kinds, ExtentPages(image, memory))
    return MappedDump(found, contents, kinds, image, memory)


def _kinds(image: Image, contents: Contents) -> AllKinds:
    """Only a hypervisor's dump has more than main memory; if it has no main memory, a part of it was asked for."""
    if contents.kinds is not None:
        return contents.kinds
    exists = contents.ranges() if contents.exists is None else contents.exists
    if contents.processors.hypervisor:
        kinds = Kinds(exists, whole=contents.whole, read=contents.reader(image))
        if kinds.end_of_ram:
            return kinds
    return OnlyRam(exists)


def _regions(image: Image, part: MemoryRange, offset: int) -> Iterator[Region]:
    """Where files have a range that begins at ``offset``: in more than one place if the image is a view of them."""
    start = part.start
    for place in image.places(offset, part.size):
        yield Region(start, place.size, part.kind, place.mapping, place.offset)
        start += place.size


def _path_in(vm_name: str | None) -> str | None:
    return vm_name if vm_name is not None and os.sep in vm_name else None


def _check_no_socket(path: str) -> None:
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except (OSError, ValueError):
        return
    if is_socket:
        raise InvalidArgumentError(f"{path} is a socket: the machine that serves QMP there is vmi:///?vm_name={path}")


DRIVER = DumpDriver
