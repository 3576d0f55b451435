# SPDX-License-Identifier: Apache-2.0
"""Guests of own instructions that set registers to known values and write down what they read back themselves."""

from __future__ import annotations

import struct

DONE = 0x5FF
"""Guest-physical address of the byte that is 1 when the x86 guest has set all registers."""

READ_BACK = 0x600
"""Where ``rdmsr`` of each of ``MSRS`` is, 8 bytes each."""

SEEN = 0x700
"""Where the guest stores its RBX all the time."""

MSRS = {
    0x174: ("sysenter_cs", 0x13),
    0x175: ("sysenter_esp", 0xFFFF_8000_1111_2220),
    0x176: ("sysenter_eip", 0xFFFF_8000_3333_4440),
    0x1B: ("apic_base", 0xFEE0_0900),
    0xC000_0081: ("star", 0x0023_0010_0000_0000),
    0xC000_0082: ("lstar", 0xFFFF_FFFF_8123_4560),
    0xC000_0083: ("cstar", 0xFFFF_FFFF_8765_4320),
    0xC000_0084: ("fmask", 0x0004_7700),
    0xC000_0100: ("fs_base", 0x7F00_0000_1230),
    0xC000_0101: ("gs_base", 0xFFFF_8880_0000_4560),
    0xC000_0102: ("kernel_gs_base", 0x7F12_3456_7890),
    0xC000_0103: ("tsc_aux", 0x1005),
}
"""By index: which register it is in a vCPU's state, and what the guest writes."""

OTHERS = {"cr8": 9, "dr0": 0x1122_3344_5566_7788, "r15": 0xFEDC_BA98_7654_3210, "cr3": 0x1000, "cr4": 0x20}
"""What else the guest sets."""

_LONG_MODE = (
    "fa"  # cli
    "31c0"  # xor ax, ax
    "8ed8"  # mov ds, ax
    "8ec0"  # mov es, ax
    "8ed0"  # mov ss, ax
    "b800f0"  # mov ax, 0xf000
    "8ed8"  # mov ds, ax
    "31f6"  # xor si, si
    "bf0080"  # mov di, 0x8000
    "b90004"  # mov cx, 0x400
    "fc"  # cld
    "f3a5"  # rep movsw
    "31c0"  # xor ax, ax
    "8ed8"  # mov ds, ax
    "ea2d800000"  # jmp 0:0x802d
    "bf0010"  # low: mov di, 0x1000
    "b90018"  # mov cx, 0x1800
    "f3ab"  # rep stosw
    "66c706001003200000"  # mov dword ptr [0x1000], 0x2003
    "66c706002003300000"  # mov dword ptr [0x2000], 0x3003
    "66c706003083000000"  # mov dword ptr [0x3000], 0x83
    "0f01160e81"  # lgdt [gdtr]
    "66b820000000"  # mov eax, 0x20
    "0f22e0"  # mov cr4, eax
    "66b800100000"  # mov eax, 0x1000
    "0f22d8"  # mov cr3, eax
    "66b9800000c0"  # mov ecx, 0xc0000080
    "66b801090000"  # mov eax, 0x901
    "6631d2"  # xor edx, edx
    "0f30"  # wrmsr
    "66b811000080"  # mov eax, 0x80000011
    "0f22c0"  # mov cr0, eax
    "66ea898000000800"  # jmp 8:long
    "b810000000"  # long: mov eax, 0x10
    "8ed0"  # mov ss, ax
    "8ed8"  # mov ds, ax
    "bc00700000"  # mov esp, 0x7000
    "488d3576000000"  # lea rsi, [rip + table]
    "bf00060000"  # mov edi, 0x600
    "8b0e"  # next: mov ecx, [rsi]
    "85c9"  # test ecx, ecx
    "7419"  # jz done
    "8b4604"  # mov eax, [rsi+4]
    "8b5608"  # mov edx, [rsi+8]
    "0f30"  # wrmsr
    "0f32"  # rdmsr
    "8907"  # mov [rdi], eax
    "895704"  # mov [rdi+4], edx
    "4883c60c"  # add rsi, 12
    "4883c708"  # add rdi, 8
    "ebe1"  # jmp next
    "b809000000"  # done: mov eax, 9
    "440f22c0"  # mov cr8, rax
    "48b88877665544332211"  # mov rax, 0x1122334455667788
    "0f23c0"  # mov dr0, rax
    "49bf1032547698badcfe"  # mov r15, 0xfedcba9876543210
    "c60425ff05000001"  # mov byte ptr [0x5ff], 1
    "48891c2500070000"  # spin: mov [0x700], rbx
    "f390"  # pause
    "ebf4"  # jmp spin
    "0000000000000000ffff0000009baf00ffff00000093cf00"  # gdt: nothing, code of 64 bits, data
    "1700f6800000"  # gdtr: 23, gdt
)


def set_registers() -> bytes:
    """For :func:`tiny.tiny`, behind its wait: enters 64-bit mode, sets registers, and loops."""
    table = b"".join(struct.pack("<IQ", index, value) for index, (_, value) in MSRS.items())
    return bytes.fromhex("".join(_LONG_MODE)) + table + bytes(12)


# ------------------------------------------------------------------------------------------------------------ AArch64

AARCH64_RAM = 0x4000_1000
"""Guest-physical address of a word that is 1 when all is set; SCTLR, ID_AA64MMFR0 as the guest reads them, and its X5,
which it stores all the time."""

AARCH64 = {
    "ttbr0_el1": 0x4012_3000,
    "ttbr1_el1": 0x4045_6000,
    "tcr_el1": 0x5_B510_3510,
    "mair_el1": 0x0044_FF04,
    "vbar_el1": 0xFFFF_8000_0801_0800,
    "tpidr_el1": 0xFFFF_0000_1234_5678,
    "tpidr_el0": 0x7F00_1234_0000,
    "contextidr_el1": 0x42,
    "sp_el0": 0xAAAA_0000_1110,
    "elr_el1": 0xAAAA_0000_2220,
    "spsr_el1": 0x6000_0000,
    "far_el1": 0xDEAD_0000,
    "esr_el1": 0x9600_0045,
}
"""What the guest sets, in the order of its instructions."""

AARCH64_STACK = 0x7777

_AARCH64 = (
    "14040058"  # ldr x20, =0x40001000
    "35040010"  # adr x21, values
    "a006c1a8"  # ldp x0, x1, [x21], #16
    "002018d5"  # msr ttbr0_el1, x0
    "212018d5"  # msr ttbr1_el1, x1
    "a006c1a8"  # ldp x0, x1, [x21], #16
    "402018d5"  # msr tcr_el1, x0
    "01a218d5"  # msr mair_el1, x1
    "a006c1a8"  # ldp x0, x1, [x21], #16
    "00c018d5"  # msr vbar_el1, x0
    "81d018d5"  # msr tpidr_el1, x1
    "a006c1a8"  # ldp x0, x1, [x21], #16
    "40d01bd5"  # msr tpidr_el0, x0
    "21d018d5"  # msr contextidr_el1, x1
    "a006c1a8"  # ldp x0, x1, [x21], #16
    "004118d5"  # msr sp_el0, x0
    "214018d5"  # msr elr_el1, x1
    "a006c1a8"  # ldp x0, x1, [x21], #16
    "004018d5"  # msr spsr_el1, x0
    "016018d5"  # msr far_el1, x1
    "a08640f8"  # ldr x0, [x21], #8
    "005218d5"  # msr esr_el1, x0
    "001038d5"  # mrs x0, sctlr_el1
    "800600f9"  # str x0, [x20, #8]
    "000738d5"  # mrs x0, id_aa64mmfr0_el1
    "800a00f9"  # str x0, [x20, #16]
    "e0ee8ed2"  # mov x0, #0x7777
    "1f000091"  # mov sp, x0
    "200080d2"  # mov x0, #1
    "800200f9"  # str x0, [x20]
    "850e00f9"  # loop: str x5, [x20, #24]
    "ffffff17"  # b loop
    "0010004000000000"  # .ltorg
)


def set_aarch64_registers() -> bytes:
    """Firmware that sets registers at exception level 1, and loops."""
    return bytes.fromhex("".join(_AARCH64)) + struct.pack(f"<{len(AARCH64)}Q", *AARCH64.values())
