# SPDX-License-Identifier: Apache-2.0
"""A machine that libvirt saved (``virsh save``, ``managedsave``): a header, the domain's description, QEMU's stream.

The stream may be compressed, and is then found as such. libvirt's ``src/qemu/qemu_saveimage.h``: 92 bytes of header in
the byte order of the host.
"""

from __future__ import annotations

import struct

from libmicrovmi_py.drivers.dump.image import Image
from libmicrovmi_py.drivers.dump.probing import Probe, Sure
from libmicrovmi_py.drivers.dump.views import Part, View

BEGINS = (b"LibvirtQemudSave", b"LibvirtQemudPart")

_HEADER, _FIELDS = 92, struct.Struct("<16x2I")
_VERSION = 2
_UNFINISHED = "a saved machine of libvirt that was not finished"


def probe(image: Image) -> Probe:
    """By the magic, which says whether it was finished."""
    if image.start.startswith(BEGINS[1]) and not image.opening.options.partial:
        return Probe(Sure.CERTAIN, _UNFINISHED, "open what is there with partial=on")
    return Probe(Sure.CERTAIN, "a saved machine of libvirt")


def unwrap(image: Image) -> Image:
    """The stream behind the description."""
    if image.start.startswith(BEGINS[1]):
        image.opening.lacks(f"{image.path} is {_UNFINISHED}")
    version, size = _FIELDS.unpack(image.read(0, _FIELDS.size, "the header"))
    if version > _VERSION:
        raise image.refused(f"a saved machine of libvirt, version {version}", "make the dump with --memory-only")
    begin = _HEADER + size
    if begin >= image.size:
        raise image.damaged(f"the machine would begin at {begin:#x}, the file ends at {image.size:#x}")
    return _Stream(image.path, [Part(0, image.size - begin, image, begin)])


class _Stream(View):
    def as_raw(self) -> None:
        """There is nothing but QEMU's stream in such a file."""
        raise self.refused("a saved machine of libvirt in an unknown form", "make the dump with --memory-only")
