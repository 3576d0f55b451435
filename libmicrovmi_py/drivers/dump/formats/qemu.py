# SPDX-License-Identifier: Apache-2.0
"""A machine that QEMU saved: ``migrate`` into a file, ``savevm``, ``virsh save``, a background snapshot, Proxmox.

Version 3 of the stream: a magic, sections of a byte (how they begin), a number and content. Live sections come in
parts, of which only ``ram`` is read (``savedram.py``), then the devices, vCPUs among them, up to the end.
https://www.qemu.org/docs/master/devel/migration/main.html.
"""

from __future__ import annotations

from collections.abc import Sequence

from libmicrovmi_py.arch.state import VcpuState
from libmicrovmi_py.drivers.dump.contents import Contents, Paged, Processors
from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.kinds import joined
from libmicrovmi_py.drivers.dump.layout import Extent
from libmicrovmi_py.drivers.dump.overlaid import Overlaid, shared_files
from libmicrovmi_py.drivers.dump.pages import ExtentPages
from libmicrovmi_py.drivers.dump.probing import Probe, Sure
from libmicrovmi_py.drivers.dump.savedlayout import Layout, laid
from libmicrovmi_py.drivers.dump.savedstream import MAGIC, WAY_OUT, SavedStream
from libmicrovmi_py.drivers.saved import armstate, x86state
from libmicrovmi_py.drivers.saved.sections import sections
from libmicrovmi_py.model import Architecture

BEGINS = (b"QEVM",)

_LARGEST_STATE = 16 << 20
_MOST_VCPUS = 1 << 12


def probe(image: Image) -> Probe:
    """By the magic and the version."""
    if not image.start.startswith(MAGIC):
        return Probe(Sure.CERTAIN, "a saved machine of QEMU of another version", WAY_OUT)
    return Probe(Sure.CERTAIN, "a saved machine of QEMU")


def read(image: Image) -> Contents:
    """The memory in the file, and what else it tells."""
    stream = SavedStream(image)
    try:
        if image.opening.options.keep_index:
            from libmicrovmi_py.drivers.dump import savedindex  # what few ask for

            savedindex.read(image, stream)
        else:
            stream.read()
    except ValueError as err:
        image.amiss(str(err))
    pages = stream.mapped or stream.pages
    devices = _devices(image, stream)
    layout = laid(stream.pages.blocks, stream.machine, devices, pages.bytes_of, stream.pages.addresses)
    if layout is None:
        raise image.refused(
            f"a saved machine of QEMU with memory in {len(stream.pages.blocks)} unknown blocks", WAY_OUT
        )
    if layout.said:
        image.opening.say(f"{image.path}: {layout.said}")
    memory, view = _memory(stream, layout)
    there = memory.ranges() if not isinstance(memory, Sequence) else [(item.start, item.end) for item in memory]
    shared = shared_files(image, layout.placed, there) if stream.pages.shared_left_out else None
    if shared is not None:
        first = ExtentPages(view, memory) if view is not None and isinstance(memory, Sequence) else stream.pages
        memory, view = Overlaid(first, shared), None
        there = memory.ranges()
    if not any(start < layout.end and end > layout.board.start for start, end in there):
        names = ", ".join(block.name[:40] for block in layout.main)
        what = f"a saved machine of QEMU without its main memory, {names}"
        raise image.refused(what, "name the file of its backend with parts=")
    exists = joined((item.address, item.end) for item in layout.placed)
    processors = _processors(devices, layout.board.architecture)
    zeros = None if stream.mapped else stream.pages.zeros
    return Contents(memory, processors, exists, exists == joined(there), view, "QEMU", stream.machine, zeros)


def _devices(image: Image, stream: SavedStream) -> bytes:
    """Their state, behind the magic; nothing if the stream ends before."""
    if not stream.devices:
        return b""
    size = min(image.size - stream.devices, _LARGEST_STATE)
    return MAGIC + image.read(stream.devices, size, "the devices' state")


def _memory(stream: SavedStream, layout: Layout) -> tuple[Sequence[Extent] | Paged, Image | None]:
    """The pages at their addresses, and where they lie if they do as they are."""
    mapped = stream.mapped
    if mapped is not None:
        return [extent for item in layout.placed for extent in mapped.extents(*item)], mapped.view()
    for item in layout.placed:
        stream.pages.place(*item)
    stream.pages.all_placed()
    return stream.pages, None


def _processors(data: bytes, architecture: Architecture | None) -> Processors:
    if not data or architecture is None:
        return Processors()
    found = sections(data, "cpu")
    if not found or len(found) > _MOST_VCPUS or len({section.instance for section in found}) < len(found):
        return Processors()  # what a guest left in a device may look like a vCPU
    if architecture is Architecture.AARCH64:
        values = [armstate.parse_cpu(data, section) for section in found]
    else:
        values = _x86(data)
    states = [VcpuState(architecture, item or {}) for item in values]
    return Processors(len(states), states, hypervisor=architecture is Architecture.X86, producer="QEMU")


def _x86(data: bytes) -> list[dict[str, int] | None]:
    """By the layout of 64-bit processors, or that of 32-bit ones, and with what their APICs have."""
    found = sections(data, "cpu")
    for wide in (True, False):
        layout = x86state.Layout(wide=wide)
        values = [x86state.parse_cpu(data, section, layout) for section in found]
        if any(values):
            break
    apics = x86state.parse_apics(data, sections(data, "apic")) or []
    if len(apics) == len(found):
        for item, apic in zip(values, apics, strict=True):
            if item:
                item.update(apic)
    return values
