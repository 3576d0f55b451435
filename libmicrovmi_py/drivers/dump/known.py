# SPDX-License-Identifier: Apache-2.0
"""What the files begin with that are read, and those that are no memory image, so that none is taken for raw memory.

docs/drivers/dump.md shows the table of the latter: tests/drivers/dump/first_bytes.py writes it there.
"""

from __future__ import annotations

from libmicrovmi_py.declare import NamedTuple

FORMATS = {"kdump": b"KDUMP   ", "windows": b"PAGEDU64", "elf": b"\x7fELF", "lime": b"EMiL", "raw": b""}
"""What is read, by the names of the modules of ``formats``; no beginning hides one that comes later."""

UNPACK = "unpack it first"
DUMP = "run the machine and make a dump of it"
MEMORY = "name the file with the machine's memory"


class Known(NamedTuple):
    """``magic`` is at ``offset`` of the file, counted from its end if that is negative; ``way_out`` is what to do."""

    magic: bytes
    what: str
    way_out: str
    offset: int = 0


_QEMU = "make a dump with dump-guest-memory instead of saving the machine"
_LIBVIRT = "make the dump with virsh dump --memory-only"
_WINDOWS = "make a full dump, or convert this one to raw"
_VMWARE = "name the .vmem file beside it"

KNOWN = (
    # Packed files.
    Known(b"\x1f\x8b\x08", "a gzip file", f"{UNPACK}: gunzip"),
    Known(b"\x1f\x9d\x90", "a file packed by compress", f"{UNPACK}: uncompress"),
    Known(b"\xfd7zXZ\0", "an xz file", f"{UNPACK}: unxz"),
    Known(b"\x5d\0\0\x80\0\xff\xff\xff\xff", "an lzma file", f"{UNPACK}: unlzma"),
    *(Known(b"BZh%d1AY&SY" % level, "a bzip2 file", f"{UNPACK}: bunzip2") for level in range(1, 10)),
    Known(b"\x28\xb5\x2f\xfd", "a zstd file", f"{UNPACK}: unzstd"),
    Known(b"\x04\x22\x4d\x18", "an lz4 file", f"{UNPACK}: unlz4"),
    Known(b"\x02\x21\x4c\x18", "an lz4 file", f"{UNPACK}: unlz4"),
    Known(b"\x89LZO\0\r\n\x1a\n", "an lzop file", f"{UNPACK}: lzop -d"),
    Known(b"LZIP\x01", "an lzip file", f"{UNPACK}: lzip -d"),
    Known(b"LRZI\0", "an lrzip file", f"{UNPACK}: lrunzip"),
    Known(b"\xff\x06\0\0sNaPpY", "a file of snappy frames", f"{UNPACK}: snzip -d"),
    Known(b"PK\x03\x04", "a zip file (AFF4 images are such)", f"{UNPACK}: unzip, or convert the image to raw"),
    Known(b"PK\x05\x06", "an empty zip file", MEMORY),
    Known(b"7z\xbc\xaf'\x1c", "a 7z file", f"{UNPACK}: 7z x"),
    Known(b"Rar!\x1a\x07", "a rar file", f"{UNPACK}: unrar x"),
    Known(b"MSCF\0\0\0\0", "a cabinet file", f"{UNPACK}: cabextract"),
    Known(b"ustar", "a tar file", f"{UNPACK}: tar -x", 257),
    # Containers of evidence, and images of acquisition tools.
    Known(b"EVF\x09\x0d\x0a\xff\0", "an EWF image (E01)", "convert it to raw: ewfexport"),
    Known(b"EVF2\r\n\x81\0", "an EWF image (Ex01)", "convert it to raw: ewfexport"),
    Known(b"LVF\x09\x0d\x0a\xff\0", "a logical EWF image (L01)", MEMORY),
    Known(b"AFF10\r\n\0", "an AFF image", "convert it to raw: affconvert -r"),
    Known(b"AVML", "a compressed AVML image", "convert it to LiME: avml-convert"),
    Known(b"HPAK", "an HPAK file of FDPro", "extract its memory section to raw"),
    Known(b"ZDMP", "a compressed dump of DumpIt", f"{UNPACK}: Z2Dmp"),
    # Windows.
    Known(b"PAGEDUMP", "a 32-bit Windows crash dump", _WINDOWS),
    Known(b"MDMP\x93\xa7", "a Windows minidump of a process", MEMORY),
    *(
        Known(magic, "a Windows hibernation file", _WINDOWS)
        for magic in (b"HIBR", b"hibr", b"wake", b"WAKE", b"RSTR", b"rstr")
    ),
    # Saved machines.
    Known(b"QEVM", "a saved machine of QEMU", _QEMU),
    Known(b"LibvirtQemudSave", "a saved machine of libvirt, made without --memory-only", _LIBVIRT),
    Known(b"LibvirtQemudPart", "a saved machine of libvirt that was not finished", _LIBVIRT),
    Known(b"XenSavedDomain\n", "a saved machine of Xen (xl save)", DUMP),
    Known(b"Xen saved domain, xl format", "a saved machine of Xen (xl save)", DUMP),
    Known(b"LinuxGuestRecord", "a saved machine of Xen (xm save)", DUMP),
    Known(b"\xff\xff\xff\xff\xff\xff\xff\xffXENF", "a saved machine of Xen (libxc)", DUMP),
    Known(b"LIBXLFMT", "a saved machine of Xen (libxl)", DUMP),
    *(
        Known(magic, "the state of a VMware machine (vmss, vmsn)", _VMWARE)
        for magic in (
            *(b"\xd0\xbe\xd0\xbe", b"\xd1\xba\xd1\xba", b"\xd2\xbe\xd2\xbe", b"\xd3\xbe\xd3\xbe"),
            *(b"\xd0\xbe\xd2\xbe", b"\xd1\xbe\xd2\xbe", b"\xd3\xbe\xd2\xbe"),
        )
    ),
    Known(
        b"\x7fVirtualBox SavedState V",
        "a saved machine of VirtualBox",
        "make a core: VBoxManage debugvm NAME dumpvmcore",
    ),
    Known(b"\x64\x86\x84\x19\x10\x07", "the state of a Firecracker machine", "name its memory file", 2),
    Known(b"\xaa\xaa\x84\x19\x10\x07", "the state of a Firecracker machine", "name its memory file", 2),
    # Disks, which may have a saved machine in them.
    Known(b"QFI\xfb", "a qcow image of a disk, with saved machines in it maybe", DUMP),
    Known(b"QED\0", "a qed image of a disk", MEMORY),
    Known(b"vhdxfile", "a vhdx image of a disk", MEMORY),
    Known(b"conectix", "a vhd image of a disk", MEMORY),
    Known(
        b"conectix",
        "a vhd image of a disk",
        "name the file with the machine's memory, or cut off its last 512 bytes",
        -512,
    ),
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
    Known(b"#!/", "a script", MEMORY),
    Known(b"<?xml", "an XML file", MEMORY),
    Known(b"<domain", "a domain's description for libvirt", MEMORY),
    Known(b"%PDF-", "a PDF file", MEMORY),
    Known(b"SQLite format 3\0", "a database of SQLite", MEMORY),
)
"""The first that fits holds."""
