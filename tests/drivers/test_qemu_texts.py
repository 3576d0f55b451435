# SPDX-License-Identifier: Apache-2.0
"""What the QEMU driver reads out of texts: command lines, ``info mtree -f``, ``info registers``."""

from __future__ import annotations

import pytest

from libmicrovmi_py.arch.x86.registers import SegmentReg, SystemTableReg, X86Registers
from libmicrovmi_py.drivers.qemu.commandline import (
    Group,
    QmpSocket,
    guest_name,
    other_monitors,
    parse_config,
    qmp_sockets,
)
from libmicrovmi_py.drivers.qemu.flatview import FlatRange, main_blocks, parse_flat_view
from libmicrovmi_py.drivers.qemu.infotext import parse_x86

LIBVIRTS = ["-chardev", "socket,id=charmonitor,fd=17,server=on,wait=off"]
"""A character device, whose monitor is an object since QEMU 11.1 and libvirt 12."""
QEMU = "qemu-system-x86_64"

# ------------------------------------------------------------------------------------------------------ command lines


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["-name", "debian"], "debian"),
        (["--name", "debian"], "debian"),
        (["-name", "guest=debian,debug-threads=on"], "debian"),
        (["-name", "debian,process=vm"], "debian"),
        (["-name", "debug-threads=on,guest=debian"], "debian"),
        (["-name", "a,,b,debug-threads=on"], "a,b"),
        (["-name", "guest=,,"], ","),
        (["-name", "first", "-name", "second"], "second"),
        (["-name", "first", "-name", "debug-threads=on"], "first"),
        (["-append", "-name=x"], ""),
        (["-name"], ""),
        ([], ""),
    ],
)
def test_the_name_of_a_machine(options: list[str], name: str) -> None:
    assert guest_name([QEMU, *options]) == name


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["-qmp", "unix:/run/q,server=on,wait=off"], QmpSocket(path="/run/q")),
        (["--qmp", "unix:q.sock,server,nowait"], QmpSocket(path="q.sock")),
        (["-qmp-pretty", "unix:/a,,b,server"], QmpSocket(path="/a,b")),
        (["-qmp", "tcp:localhost:4444,server=on,wait=off"], QmpSocket(host="localhost", port=4444)),
        (["-qmp", "tcp::4444,server,nowait"], QmpSocket(host="localhost", port=4444)),
        (["-qmp", "tcp:0.0.0.0:4444,server"], QmpSocket(host="127.0.0.1", port=4444)),
        (["-qmp", "tcp:[::]:4444,server"], QmpSocket(host="::1", port=4444)),
        (["-qmp", "tcp:127.0.0.1:4444,to=4450,server"], QmpSocket(host="127.0.0.1", port=4444, last=4450)),
        (["-qmp", "tcp:127.0.0.1:0,server"], QmpSocket(host="127.0.0.1", port=0)),
        (["-qmp", "telnet:127.0.0.1:4444,server"], QmpSocket(host="127.0.0.1", port=4444)),
        (["-qmp", "websocket:127.0.0.1:1,server"], QmpSocket(host="127.0.0.1", port=1, wrapped="a websocket")),
        (["-qmp", "tcp::1,server,tls-creds=t"], QmpSocket(host="localhost", port=1, wrapped="TLS")),
        (
            ["-chardev", "socket,id=m,path=/q,server=on", "-mon", "chardev=m,mode=control"],
            QmpSocket(path="/q", ident="m"),
        ),
        (
            ["-mon", "m,mode=control,pretty=on", "-chardev", "socket,path=/q,id=m,server"],
            QmpSocket(path="/q", ident="m"),
        ),
        (["-chardev", "socket,id=m,path=/q,server", "-qmp", "chardev:m"], QmpSocket(path="/q", ident="m")),
        (
            ["-chardev", "socket,id=m,host=::1,port=1,server=on", "-mon", "mode=control,chardev=m"],
            QmpSocket(host="::1", port=1, ident="m"),
        ),
        (
            ["-chardev", "socket,id=charmonitor,fd=27,server=on,wait=off", "-mon", "charmonitor,mode=control"],
            QmpSocket(fd=27, ident="charmonitor"),
        ),
        (
            ["-chardev", "socket,id=m,path=name,abstract=on,server=on", "-mon", "m,mode=control"],
            QmpSocket(path="name", abstract=True, ident="m"),
        ),
        (
            [*LIBVIRTS, "-object", '{"qom-type":"monitor-qmp","id":"monitor","chardev":"charmonitor"}'],
            QmpSocket(fd=17, ident="charmonitor"),
        ),
        ([*LIBVIRTS, "-object", "monitor-qmp,id=m,chardev=charmonitor"], QmpSocket(fd=17, ident="charmonitor")),
    ],
)
def test_a_listening_monitor(options: list[str], expected: QmpSocket) -> None:
    assert qmp_sockets([QEMU, *options]) == [expected]


@pytest.mark.parametrize(
    "options",
    [
        ["-qmp", "stdio"],
        ["-qmp", "unix:/q"],
        ["-qmp", "unix:/q,server=off"],
        ["-qmp", "tcp:host:1"],
        ["-qmp", "tcp:host:name,server"],
        ["-qmp", "chardev:missing"],
        ["-monitor", "unix:/q,server"],
        ["-chardev", "socket,id=m,path=/q,server", "-mon", "m"],
        ["-chardev", "socket,id=m,path=/q,server", "-mon", "m,mode=readline"],
        ["-chardev", "pty,id=m", "-mon", "m,mode=control"],
        ["-mon", "missing,mode=control"],
        [*LIBVIRTS, "-object", "monitor-hmp,id=m,chardev=charmonitor"],
        [*LIBVIRTS, "-object", '{"qom-type":"monitor-qmp"'],
        [],
    ],
)
def test_what_is_no_listening_monitor(options: list[str]) -> None:
    assert qmp_sockets([QEMU, *options]) == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["-qmp", "stdio"], ["its QMP monitor is on stdio"]),
        (["-qmp", "unix:/q"], ["its QMP monitor connects out to /q"]),
        (["-qmp", "tcp:far:1"], ["its QMP monitor connects out to far:1"]),
        (["-chardev", "pty,id=m", "-mon", "m,mode=control"], ["its QMP monitor is on pty"]),
        (["-mon", "missing,mode=control"], ["its QMP monitor is on a device that is not named"]),
        (["-monitor", "unix:/h,server"], ["the human monitor on /h"]),
        (["-chardev", "socket,id=m,path=/h,server", "-mon", "m"], ["the human monitor on /h"]),
        ([*LIBVIRTS, "-object", "monitor-hmp,chardev=charmonitor"], ["the human monitor on descriptor 17"]),
        (["-chardev", "socket,id=m,fd=3,server", "-mon", "m"], ["the human monitor on descriptor 3"]),
        (["-monitor", "stdio"], []),
        (["-monitor", "none"], []),
        (["-qmp", "unix:/q,server"], []),
        ([], []),
    ],
)
def test_other_monitors_are_told_in_words(options: list[str], told: list[str]) -> None:
    assert other_monitors([QEMU, *options]) == told


def test_a_file_of_options_is_read_as_the_command_line_is() -> None:
    text = """
    # comment
    [name]
      guest = "a b"
    [chardev "m"]
      backend = "socket"
      path = "/q,1"
      server = "on"
    [mon]
    chardev="m"
    mode = "control"
    [device "nic-0"]
      driver = unquoted
    [bad "group
      path = "/elsewhere"
    """
    groups = parse_config(text)
    assert groups[1] == Group("chardev", {"id": "m", "backend": "socket", "path": "/q,1", "server": "on"})
    assert guest_name([QEMU], groups) == "a b"
    assert guest_name([QEMU, "-name", "line"], groups) == "line"
    assert qmp_sockets([QEMU], groups) == [QmpSocket(path="/q,1", ident="m")]


@pytest.mark.parametrize("digits", ["²", "٣", "9" * 5000])
def test_digits_that_are_none_do_not_end_the_look_at_a_command_line(digits: str) -> None:
    chardevs = [f"socket,id=m,fd={digits},server", f"socket,id=n,port={digits},host=h,server"]
    options = ["-chardev", chardevs[0], "-chardev", chardevs[1], "-mon", "m,mode=control", "-mon", "n,mode=control"]
    assert qmp_sockets([QEMU, *options, "-qmp", f"tcp:h:{digits},server"]) == []
    assert qmp_sockets([QEMU, "-qmp", f"tcp:h:1,to={digits},server"]) == [QmpSocket(host="h", port=1)]


def test_all_monitors_are_found() -> None:
    options = ["-qmp", "unix:/a,server", "-chardev", "socket,id=m,path=/b,server", "-mon", "m,mode=control"]
    assert [item.path for item in qmp_sockets([QEMU, *options])] == ["/a", "/b"]


# --------------------------------------------------------------------------------------------------------- memory map

TWO_VIEWS = """\
FlatView #0
 AS "I/O", root: io
 Root memory region: io
  0000000000000000-000000000000ffff (prio 0, ram): not.this

FlatView #1
 AS "e1000", root: bus master container
 Root memory region: (none)
  No rendered FlatView

FlatView #2
 AS "cpu-memory-0", root: memory
 AS "memory", root: system
 AS "piix3-ide", root: bus master container, alias bus master
 Root memory region: system
  0000000000000000-000000000009ffff (prio 0, ram): pc.ram KVM
  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem
  00000000000c0000-00000000000cafff (prio 0, rom): pc.ram @00000000000c0000 KVM
  00000000000cb000-000000001fffffff (prio 0, ram): pc.ram @00000000000cb000
  00000000fd000000-00000000fdffffff (prio 1, ram): 0000:00:02.0/vga.vram
  00000000fe000000-00000000fe003fff (prio -1, ramd): 0000:00:04.0 BAR 0 mmaps[0] KVM
  00000000ffc00000-00000000ffffffff (prio 0, romd): system.flash0
  0000000100000000-00000001bfffffff (prio 0, nv-ram): /objects/nv 0 @0000000020000000 KVM
"""


def test_the_flat_view_of_the_memory_space_is_read() -> None:
    assert parse_flat_view(TWO_VIEWS) == [
        FlatRange(0, 0xA0000, False, "pc.ram", 0),
        FlatRange(0xC0000, 0xB000, True, "pc.ram", 0xC0000),
        FlatRange(0xCB000, 0x1FF35000, False, "pc.ram", 0xCB000),
        FlatRange(0xFD000000, 0x1000000, False, "0000:00:02.0/vga.vram", 0),
        FlatRange(0xFFC00000, 0x400000, True, "system.flash0", 0),
        FlatRange(0x100000000, 0xC0000000, False, "/objects/nv 0", 0x20000000),
    ]


def test_lines_without_a_priority_are_read() -> None:
    text = 'FlatView #0\n AS "memory", root: system\n  0000000000000000-0000000000000fff (ram): pc.ram\n'
    assert parse_flat_view(text) == [FlatRange(0, 0x1000, False, "pc.ram", 0)]


@pytest.mark.parametrize("text", ["", "unknown command: 'info mtree -f'\n", 'FlatView #0\n AS "I/O", root: io\n'])
def test_a_text_without_the_memory_space_has_no_memory(text: str) -> None:
    assert parse_flat_view(text) == []


def flat(start: int, block: str, size: int = 0x1000, read_only: bool = False) -> FlatRange:
    return FlatRange(start, size, read_only, block, 0)


@pytest.mark.parametrize(
    ("ranges", "backends", "expected"),
    [
        ([flat(0, "pc.ram"), flat(1 << 32, "dimm"), flat(1 << 31, "vga.vram")], {"pc.ram", "dimm"}, {"pc.ram", "dimm"}),
        ([flat(0, "/objects/mem0"), flat(1 << 31, "vga.vram")], {"mem0"}, {"/objects/mem0"}),
        ([flat(0, "pc.ram"), flat(1 << 31, "vga.vram", 1 << 24)], set(), {"pc.ram"}),
        ([flat(0, "pc.ram"), flat(1 << 32, "dimm")], {"dimm"}, {"pc.ram", "dimm"}),
        ([flat(0, "flash", 1 << 24, True), flat(1 << 30, "ram", 1 << 20), flat(1 << 29, "sram")], set(), {"ram"}),
        ([flat(0, "flash", read_only=True)], set(), set()),
    ],
    ids=["backends", "older names", "no backend", "no backend but a dimm", "nothing at 0", "read-only"],
)
def test_main_memory_is_told_from_other_ram(ranges: list[FlatRange], backends: set[str], expected: set[str]) -> None:
    assert main_blocks(ranges, backends) == expected


# ---------------------------------------------------------------------------------------------------------- registers

LONG_MODE = """\

CPU#0
RAX=ffffffff8101f2a0 RBX=0000000000000001 RCX=0000000000000002 RDX=0000000000000003
RSI=0000000000000004 RDI=0000000000000005 RBP=0000000000000006 RSP=ffffffff82003e90
R8 =0000000000000008 R9 =0000000000000009 R10=000000000000000a R11=000000000000000b
R12=000000000000000c R13=000000000000000d R14=000000000000000e R15=000000000000000f
RIP=ffffffff8101f2ae RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1
ES =0001 0000000000000011 00000021 00000000
CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]
SS =0018 0000000000000000 ffffffff 00cf9300 DPL=0 DS   [-WA]
DS =0003 0000000000000013 00000023 00000000
FS =0004 0000000000000014 00000024 00000000
GS =0005 ffff88807dc00000 00000025 00000000
LDT=0006 0000000000000016 00000026 00008200 DPL=0 LDT
TR =0040 fffffe0000003000 00004087 00008900 DPL=0 TSS64-avl
GDT=     fffffe0000001000 0000007f
IDT=     fffffe0000000000 00000fff
CR0=80050033 CR2=00007f1f5a5d4008 CR3=0000000002a0a000 CR4=000006f0
DR0=0000000000000000 DR1=0000000000000000 DR2=0000000000000000 DR3=0000000000000000 
DR6=00000000ffff0ff0 DR7=0000000000000400
CCS=0000000000000044 CCD=0000000000000000 CCO=LOGICL
EFER=0000000000000d01
FCW=037f FSW=0000 [ST=0] FTW=00 MXCSR=00001f80
FPR0=0000000000000000 0000 FPR1=0000000000000000 0000
XMM00=0000000000000000 00000000000000ff XMM01=0000000000000000 0000000000000000
"""  # noqa: W291

REAL_MODE = """\
EAX=0000aa55 EBX=00000001 ECX=00000002 EDX=00000003
ESI=00000004 EDI=00000005 EBP=00000006 ESP=00006f94
EIP=0000b7b9 EFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0
ES =d980 000d9800 0000ffff 00009300
CS =f000 000f0000 0000ffff 00009b00
SS =0000 00000000 0000ffff 00009300
DS =0000 00000000 0000ffff 00009300
FS =0000 00000000 0000ffff 00009300
GS =0000 00000000 0000ffff 00009300
LDT=0000 00000000 0000ffff 00008200
TR =0000 00000000 0000ffff 00008b00
GDT=     000f6180 00000037
IDT=     00000000 000003ff
CR0=00000010 CR2=00000000 CR3=00000000 CR4=00000000
EFER=0000000000000000
"""


def parse_registers(text: str) -> X86Registers:
    return X86Registers.of_values(parse_x86(text))


def test_registers_of_long_mode() -> None:
    regs = parse_registers(LONG_MODE)
    general = (regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp)
    assert (regs.rax, *general) == (0xFFFFFFFF8101F2A0, 1, 2, 3, 4, 5, 6)
    assert [regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15] == list(range(8, 16))
    assert (regs.rsp, regs.rip, regs.rflags) == (0xFFFFFFFF82003E90, 0xFFFFFFFF8101F2AE, 0x246)
    assert (regs.cr0, regs.cr2, regs.cr3, regs.cr4) == (0x80050033, 0x7F1F5A5D4008, 0x2A0A000, 0x6F0)
    assert regs.efer == regs.msr_efer == 0xD01
    assert regs.es == SegmentReg(0x11, 0x21, 1)
    assert regs.cs == SegmentReg(0, 0xFFFFFFFF, 0x10)
    assert regs.ss == SegmentReg(0, 0xFFFFFFFF, 0x18)
    assert regs.ds == SegmentReg(0x13, 0x23, 3)
    assert regs.fs == SegmentReg(0x14, 0x24, 4)
    assert regs.gs == SegmentReg(0xFFFF88807DC00000, 0x25, 5)
    assert regs.ldt == SegmentReg(0x16, 0x26, 6)
    assert regs.tr == SegmentReg(0xFFFFFE0000003000, 0x4087, 0x40)
    assert regs.gdt == SystemTableReg(0xFFFFFE0000001000, 0x7F)
    assert regs.idt == SystemTableReg(0xFFFFFE0000000000, 0xFFF)


def test_registers_that_qemu_does_not_print_are_0() -> None:
    regs = parse_registers(LONG_MODE)
    assert (regs.sysenter_cs, regs.sysenter_esp, regs.sysenter_eip) == (0, 0, 0)
    assert (regs.msr_star, regs.msr_lstar, regs.apic_base) == (0, 0, 0)


def test_registers_of_real_mode() -> None:
    regs = parse_registers(REAL_MODE)
    general = (regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp, regs.rsp)
    assert general == (0xAA55, 1, 2, 3, 4, 5, 6, 0x6F94)
    assert (regs.rip, regs.rflags, regs.cr0, regs.r8) == (0xB7B9, 0x246, 0x10, 0)
    assert regs.cs == SegmentReg(0xF0000, 0xFFFF, 0xF000)
    assert regs.es == SegmentReg(0xD9800, 0xFFFF, 0xD980)
    assert regs.gdt == SystemTableReg(0xF6180, 0x37)
    assert regs.idt == SystemTableReg(0, 0x3FF)


def test_a_descriptor_table_has_a_limit_of_16_bits() -> None:
    assert parse_registers(REAL_MODE.replace("000003ff", "ffffffff")).idt.limit == 0xFFFF


def test_the_attributes_of_a_segment_are_those_of_its_descriptor() -> None:
    values = parse_x86(LONG_MODE)
    assert (values["cs_attributes"], values["tr_attributes"], values["fs_attributes"]) == (0xA9B, 0x89, 0)


def test_a_segment_without_flags_has_no_attributes() -> None:
    values = parse_x86("EIP=00000000\nCS =0010 00000000 ffffffff\n")
    assert (values["cs_selector"], "cs_attributes" in values) == (0x10, False)


def test_debug_registers_are_told() -> None:
    values = parse_x86(LONG_MODE)
    assert (values["dr3"], values["dr6"], values["dr7"]) == (0, 0xFFFF0FF0, 0x400)


@pytest.mark.parametrize("text", ["", " PC=0000000040000000 X00=0000000000000000 X01=0000000000000000\n"])
def test_the_text_of_another_architecture_has_no_registers(text: str) -> None:
    assert parse_x86(text) == {}
