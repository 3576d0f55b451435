# SPDX-License-Identifier: Apache-2.0
"""Device states as QEMU saves them, field by field, and the text that ``info registers`` prints of the same vCPUs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

GENERAL = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)))
SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldt", "tr")
EXTENDED = ("efer", "star", "lstar", "cstar", "fmask", "kernel_gs_base")


def vcpu(number: int) -> dict[str, int]:
    """Every register of an x86 vCPU, each with another value."""
    values = {name: 0xFFFF_8000_0000_0000 | number << 32 | place for place, name in enumerate(GENERAL)}
    values |= {"rip": 0xFFFFFFFF81000000 + number, "rflags": 0x246}
    for place, name in enumerate(SEGMENTS):
        values |= {f"{name}_selector": 8 * place, f"{name}_base": 0x7F00_0000_1000 * place + number}
        values |= {f"{name}_limit": 0xFFFFF, f"{name}_attributes": 0xA93 + place}
    for place, name in enumerate(("gdt", "idt")):
        values |= {f"{name}_base": 0xFFFFFE0000001000 * (1 - place) + number, f"{name}_limit": 0xFFF - place}
    values |= {"sysenter_cs": 0x10, "sysenter_esp": 0xFFFFFE0000002200, "sysenter_eip": 0xFFFFFFFF81001500}
    values |= {"cr0": 0x80050033, "cr2": 0x7F1F5A5D4008, "cr3": 0x2A0A000 + number, "cr4": 0x6F0}
    values |= {"dr0": 1, "dr1": 2, "dr2": 3, "dr3": 4, "dr6": 0xFFFF0FF0, "dr7": 0x400}
    values |= {name: 0xE000_0000_0000 + place for place, name in enumerate(EXTENDED)}
    values |= {"efer": 0xD01, "tsc_aux": number, "xcr0": 7}
    return {**values, "apic_base": 0xFEE00800 | (0 if number else 0x100), "cr8": number & 7}


class Fields:
    """Big-endian numbers, one after the other; ``word`` is the size of a register in bytes."""

    def __init__(self, values: Mapping[str, int], word: int) -> None:
        self.values = values
        self.word = word
        self.data = bytearray()

    def number(self, value: int, size: int) -> None:
        self.data += (value & (1 << 8 * size) - 1).to_bytes(size, "big")

    def registers(self, names: Iterable[str]) -> None:
        for name in names:
            self.number(self.values.get(name, 0), self.word)

    def gap(self, size: int) -> None:
        self.data += b"\xa5" * size


def section(name: str, instance: int, version: int, content: bytes, number: int = 7) -> bytes:
    """A part of the file, with its header and its footer."""
    head = b"\x04" + number.to_bytes(4, "big") + bytes([len(name)]) + name.encode()
    return (
        head + instance.to_bytes(4, "big") + version.to_bytes(4, "big") + content + b"\x7e" + number.to_bytes(4, "big")
    )


def _flags(attributes: int) -> int:
    return (attributes & 0xFF) << 8 | (attributes & 0xF00) << 12 | 0xF0000


def cpu(values: Mapping[str, int], *, wide: bool = True) -> bytes:
    """What the section ``cpu`` of an x86 vCPU has, version 12."""
    fields, count = Fields(values, 8 if wide else 4), 16 if wide else 8
    fields.registers((*GENERAL[:count], "rip", "rflags"))
    fields.gap(4 + 4 * 2 + 8 * 10)  # hidden flags, the floating-point unit
    for name in (*SEGMENTS, "gdt", "idt"):
        fields.number(values.get(f"{name}_selector", 0), 4)
        fields.number(values[f"{name}_base"], fields.word)
        fields.number(values[f"{name}_limit"], 4)
        fields.number(_flags(values.get(f"{name}_attributes", 0)), 4)
    fields.number(values["sysenter_cs"], 4)
    fields.registers(("sysenter_esp", "sysenter_eip", "cr0", "cr2", "cr3", "cr4"))
    fields.registers(f"dr{number}" for number in range(8))
    fields.gap(4 + 4 + 16 * count)  # A20, MXCSR, XMM
    for name in EXTENDED if wide else ():
        fields.number(values[name], 8)
    fields.gap(4 + 8 + 4)  # the base of system management, PAT, hidden flags
    fields.gap(4 * 8 + 4 * 2 + 4 + 1)  # virtualization
    fields.gap(11 * 8 + 8 + 8 * 16)  # MTRRs
    fields.gap(4 + 4 + 8 + 4 + 4 + 4)  # interrupts
    fields.gap(3 * 8 + 40 * 8)  # machine checks
    fields.number(values["tsc_aux"], 8)
    fields.gap(2 * 8)  # clocks
    fields.number(values["xcr0"], 8)
    fields.gap(8 + 16 * count)  # XSAVE, AVX
    return bytes(fields.data) + b"\x05\x10cpu/xsave_things\0\0\0\1\x04\x03cpu"


def apic(values: Mapping[str, int], identifier: int, *, size: int = 4) -> bytes:
    """What the section ``apic`` has, version 3; the base as a number of so many bytes."""
    base = values["apic_base"].to_bytes(size, "big")
    return base + bytes([identifier, 0, values["cr8"] << 4 | 3]) + b"\xff" * 162


def state(vcpus: Mapping[int, Mapping[str, int]], *, wide: bool = True, version: int = 12) -> bytes:
    """The state of a machine with these vCPUs, by QEMU's numbers; one has the APIC with twice its place as number."""
    content = b"QEVM\0\0\0\3" + section("timer", 0, 2, bytes(24))
    for place, (index, values) in enumerate(vcpus.items()):
        content += section("cpu_common", index, 1, bytes(8))
        content += section("cpu", index, version, cpu(values, wide=wide))
        content += section("apic", 2 * place, 3, apic(values, 2 * place))
    return content + section("fw_cfg", 0, 2, b"a device \x03cpu\0\0\0\0\0\0\0\x0c \x04apic") + b"\0"


def text(index: int, values: Mapping[str, int]) -> str:
    """What ``info registers -a`` prints of a vCPU in 64-bit mode."""
    order = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *GENERAL[8:])
    shown = [f"{name.upper():3s}={values[name]:016x}" for name in order]
    lines = [f"CPU#{index}", *(" ".join(shown[at : at + 4]) for at in range(0, 16, 4))]
    lines += [f"RIP={values['rip']:016x} RFL={values['rflags']:08x} [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1"]
    for name in SEGMENTS:
        place = " ".join(f"{values[f'{name}_{part}']:0{size}x}" for part, size in (("selector", 4), ("base", 16)))
        lines += [f"{name.upper():3s}={place} {values[f'{name}_limit']:08x} {_flags(values[f'{name}_attributes']):08x}"]
    lines += [
        f"{name.upper()}=     {values[f'{name}_base']:016x} {values[f'{name}_limit']:08x}" for name in ("gdt", "idt")
    ]
    lines += [f"CR0={values['cr0']:08x} CR2={values['cr2']:016x} CR3={values['cr3']:016x} CR4={values['cr4']:08x}"]
    debug = [f"DR{number}={values[f'dr{number}']:016x}" for number in (0, 1, 2, 3, 6, 7)]
    lines += [" ".join(debug[:4]) + " ", " ".join(debug[4:])]
    lines += [f"EFER={values['efer']:016x}", "FCW=037f FSW=0000 [ST=0]", "FPR0=ffffffffffffffffff 0000"]
    return "\r\n" + "\r\n".join(lines) + "\r\n"


# ------------------------------------------------------------------------------------------------------------ AArch64

SYSTEM = {
    (3, 0, 2, 0, 0): "ttbr0_el1",
    (3, 0, 2, 0, 1): "ttbr1_el1",
    (3, 0, 2, 0, 2): "tcr_el1",
    (3, 0, 1, 0, 0): "sctlr_el1",
    (3, 0, 10, 2, 0): "mair_el1",
    (3, 0, 12, 0, 0): "vbar_el1",
    (3, 0, 5, 2, 0): "esr_el1",
    (3, 0, 6, 0, 0): "far_el1",
    (3, 3, 13, 0, 2): "tpidr_el0",
    (3, 0, 13, 0, 4): "tpidr_el1",
    (3, 0, 13, 0, 1): "contextidr_el1",
    (3, 0, 0, 7, 0): "id_aa64mmfr0_el1",
}


def aarch64_vcpu(*, pstate: int = 0x3C5) -> dict[str, int]:
    """The registers of an AArch64 vCPU, each with another value."""
    values = {f"x{number}": 0x1000 + number for number in range(31)}
    values |= {"pc": 0xFFFF800008000000, "pstate": pstate, "sp_el0": 0xE0, "sp_el1": 0xE1}
    values |= {"elr_el1": 0xAAAA00001000, "spsr_el1": 0x60000000}
    return {**values, **{name: 0x5000_0000_0000 + place for place, name in enumerate(SYSTEM.values())}}


def aarch64_cpu(values: Mapping[str, int]) -> bytes:
    """What the section ``cpu`` of an AArch64 vCPU has, version 22. The stack in use is not where the others are."""
    fields = Fields(values, 8)
    in_use = "sp_el1" if values["pstate"] & 1 else "sp_el0"
    fields.gap(16 * 4)  # registers of AArch32
    fields.registers((*(f"x{number}" for number in range(31)), in_use, "pc"))
    fields.number(values["pstate"], 4)
    fields.gap(4)
    fields.registers(("", "spsr_el1", "", "", "", "", "", ""))
    fields.gap((8 + 8 + 5 + 5) * 4)
    fields.registers(("", "elr_el1", "", ""))
    fields.registers(("sp_el0" if in_use != "sp_el0" else "", "sp_el1" if in_use != "sp_el1" else "", "", ""))
    numbers = {
        0x6030000000130000 | a << 14 | b << 11 | c << 7 | d << 3 | e: name for (a, b, c, d, e), name in SYSTEM.items()
    }
    numbers |= {0x4020000000110000: "of AArch32", 0x603000000013FFFF: "of nobody"}
    fields.number(len(numbers), 4)
    for number in numbers:
        fields.number(number, 8)
    fields.registers(numbers.values())
    fields.gap(100)
    return bytes(fields.data)


def aarch64_state(vcpus: Mapping[int, Mapping[str, int]], *, version: int = 22) -> bytes:
    """The state of a machine with these vCPUs, by QEMU's numbers."""
    cpus = b"".join(section("cpu", index, version, aarch64_cpu(values)) for index, values in vcpus.items())
    return b"QEVM\0\0\0\3" + section("timer", 0, 2, bytes(24)) + cpus + b"\0"


def aarch64_text(index: int, values: Mapping[str, int]) -> str:
    """What ``info registers -a`` prints of a vCPU."""
    stack = values["sp_el1" if values["pstate"] & 1 else "sp_el0"]
    registers = " ".join(f"X{number:02d}={values[f'x{number}']:016x}" for number in range(31))
    line = f" PC={values['pc']:016x} {registers}  SP={stack:016x}\r\nPSTATE={values['pstate']:08x} ---- EL1h\r\n"
    return f"\r\nCPU#{index}\r\n{line}"
