# SPDX-License-Identifier: Apache-2.0
"""What files begin with that are no memory image, or one of a format that is not read: none is taken for raw memory.

docs/drivers/dump.md shows the table of the latter: tests/drivers/dump/first_bytes.py writes it there.
"""

from __future__ import annotations

from libmicrovmi_py.declare import NamedTuple

UNPACK = "unpack it first"
DUMP = "run the machine and make a dump of it"
MEMORY = "name the file with the machine's memory"


class Known(NamedTuple):
    """``magic`` is at ``offset`` of the file, within its first page; ``way_out`` is what to do."""

    magic: bytes
    what: str
    way_out: str
    offset: int = 0


_WINDOWS = "make a full dump, or convert this one to raw: Hibr2Bin"
_VMWARE = "suspend the machine with a newer VMware"

KNOWN = (
    # Packed files.
    Known(b"\x1f\x9d\x90", "a file packed by compress", f"{UNPACK}: uncompress"),
    Known(b"\x5d\0\0\x80\0\xff\xff\xff\xff", "an lzma file", f"{UNPACK}: unlzma"),
    Known(b"LZIP\x01", "an lzip file", f"{UNPACK}: lzip -d"),
    Known(b"LRZI\0", "an lrzip file", f"{UNPACK}: lrunzip"),
    Known(b"\xff\x06\0\0sNaPpY", "a file of snappy frames", f"{UNPACK}: snzip -d"),
    Known(b"PK\x05\x06", "an empty zip file", MEMORY),
    Known(b"7z\xbc\xaf'\x1c", "a 7z file", f"{UNPACK}: 7z x"),
    Known(b"Rar!\x1a\x07", "a rar file", f"{UNPACK}: unrar x"),
    Known(b"MSCF\0\0\0\0", "a cabinet file", f"{UNPACK}: cabextract"),
    Known(b"ustar", "a tar file", f"{UNPACK}: tar -x", 257),
    # Containers of evidence, and images of acquisition tools.
    Known(b"LEF2\r\n\x81\0", "a logical EWF image (Lx01)", MEMORY),
    Known(b"LVF\x09\x0d\x0a\xff\0", "a logical EWF image (L01)", MEMORY),
    Known(b"AFF10\r\n\0", "an AFF image", "convert it to raw: affconvert -r"),
    Known(b"HPAK", "an HPAK file of FDPro", "extract its memory section to raw"),
    Known(b"ZDMP", "a compressed dump of DumpIt", f"{UNPACK}: Z2Dmp"),
    # Windows.
    Known(b"MDMP\x93\xa7", "a Windows minidump of a process", MEMORY),
    *(
        Known(magic, "a Windows hibernation file", _WINDOWS)
        for magic in (b"HIBR", b"hibr", b"wake", b"WAKE", b"RSTR", b"rstr")
    ),
    # Saved machines.
    Known(b"XenSavedDomain\n", "a saved machine of Xen (xl save)", DUMP),
    Known(b"libvirt-xml\n \0 \r", "a saved machine of Xen (libvirt)", DUMP),
    Known(b"LinuxGuestRecord", "a saved machine of Xen (xm save)", DUMP),
    *(
        Known(magic, "the state of a VMware machine of an unknown version", _VMWARE)
        for magic in (b"\xd0\xbe\xd0\xbe", b"\xd1\xbe\xd2\xbe", b"\xd3\xbe\xd2\xbe")
    ),
    Known(
        b"\x7fVirtualBox SavedState V",
        "a saved machine of VirtualBox",
        "make a core: VBoxManage debugvm NAME dumpvmcore",
    ),
    Known(
        b"\x14\x20\x28\x01",
        "a saved machine of Hyper-V (vmrs), or another of its files (vmcx)",
        "convert it to raw: MemProcFS, on Windows with Hyper-V",
    ),
    Known(b"\x64\x86\x84\x19\x10\x07", "the state of an old Firecracker machine", "name its memory file", 2),
    Known(b"\xaa\xaa\x84\x19\x10\x07", "the state of an old Firecracker machine", "name its memory file", 2),
    # Disks, which may have a saved machine in them.
    Known(b"QED\0", "a qed image of a disk", MEMORY),
    Known(b"vhdxfile", "a vhdx image of a disk", MEMORY),
    Known(b"conectix", "a vhd image of a disk", MEMORY),
    Known(b"KDMV", "a vmdk image of a disk", MEMORY),
    Known(b"COWD", "a vmdk image of a disk", MEMORY),
    Known(b"# Disk DescriptorFile", "a vmdk image of a disk", MEMORY),
    Known(b"\x7f\x10\xda\xbe", "a vdi image of a disk", MEMORY, 0x40),
    Known(b"LUKS\xba\xbe", "an encrypted volume", MEMORY),
    # Dumps of other kernels and machines.
    Known(b"DISKDUMP", "a diskdump", "read it with crash"),
    Known(b"\xed\x23\x8f\x61\x73\x01\x19\xa8", "a dump of LKCD", "read it with crash"),
    Known(b"\xa8\x19\x01\x73\x61\x8f\x23\xed", "a big-endian dump of LKCD", "read it with crash"),
    Known(b"\xa8\x19\x01\x73\x61\x8f\x23\xfd", "a dump of an s390 machine", "convert it: zgetdump -f elf"),
    Known(b"sadump\0\0", "a dump of sadump", "convert it: makedumpfile -E"),
    *(
        Known(magic, "a Mach-O file", "convert the core to raw or ELF")
        for magic in (
            b"\xcf\xfa\xed\xfe",
            b"\xce\xfa\xed\xfe",
            b"\xfe\xed\xfa\xcf",
            b"\xfe\xed\xfa\xce",
            b"\xca\xfe\xba\xbe",
        )
    ),
    # Texts.
    Known(b"<?xml", "an XML file", MEMORY),
    Known(b"<domain", "a domain's description for libvirt", MEMORY),
    Known(b"%PDF-", "a PDF file", MEMORY),
    Known(b"SQLite format 3\0", "a database of SQLite", MEMORY),
)
"""The first that fits holds."""
