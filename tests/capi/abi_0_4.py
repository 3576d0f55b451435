# SPDX-License-Identifier: Apache-2.0
"""The ABI of libmicrovmi 0.4.0 on x86-64 as data. It never changes: neither does this file."""

from __future__ import annotations

MACROS = {"PAGE_SHIFT": 12, "PAGE_SIZE": 4096}

ENUMS = {
    "DriverType": {"KVM": 0, "Memflow": 1, "VirtualBox": 2, "Xen": 3},
    "KVMInitParamsFFI_Tag": {"UnixSocket": 0},
    "MemflowConnectorParamsFFI_Tag": {"Default": 0},
    "Registers_Tag": {"X86": 0},
}
ENUM_SIZE = 4

GENERAL = [
    "rax",
    "rbx",
    "rcx",
    "rdx",
    "rsi",
    "rdi",
    "rsp",
    "rbp",
    "r8",
    "r9",
    "r10",
    "r11",
    "r12",
    "r13",
    "r14",
    "r15",
    "rip",
    "rflags",
    "cr0",
    "cr2",
    "cr3",
    "cr4",
    "sysenter_cs",
    "sysenter_esp",
    "sysenter_eip",
    "msr_efer",
    "msr_star",
    "msr_lstar",
    "efer",
    "apic_base",
]
SEGMENTS = ["cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt"]

STRUCTS = {
    "CommonInitParamsFFI": (8, {"vm_name": 0}),
    "UnixSocket_Body": (8, {"path": 0}),
    "KVMInitParamsFFI": (16, {"tag": 0, "unix_socket": 8}),
    "Default_Body": (16, {"args_arr": 0, "args_arr_len": 8}),
    "MemflowConnectorParamsFFI": (24, {"tag": 0, "default_": 8}),
    "MemflowInitParamsFFI": (32, {"connector_name": 0, "connector_args": 8}),
    "DriverInitParamsFFI": (56, {"common": 0, "kvm": 8, "memflow": 24}),
    "SegmentReg": (16, {"base": 0, "limit": 8, "selector": 12}),
    "SystemTableReg": (16, {"base": 0, "limit": 8}),
    "X86Registers": (
        400,
        {name: 8 * index for index, name in enumerate(GENERAL)}
        | {name: 240 + 16 * index for index, name in enumerate(SEGMENTS)}
        | {"idt": 368, "gdt": 384},
    ),
    "Registers": (408, {"tag": 0, "x86": 8}),
}
"""Each struct's size, and its members' offsets in their order."""

PATHS = {
    "DriverInitParamsFFI": {
        "kvm.unix_socket.path": 16,
        "memflow.connector_name": 24,
        "memflow.connector_args.tag": 32,
        "memflow.connector_args.default_.args_arr": 40,
        "memflow.connector_args.default_.args_arr_len": 48,
    }
}
"""Offsets of members of members."""

FUNCTIONS = {
    "microvmi_envlogger_init": "void (*)(void)",
    "microvmi_init": (
        "void *(*)(const enum DriverType *driver_type, const struct DriverInitParamsFFI *init_params,"
        " const char **init_error)"
    ),
    "microvmi_destroy": "void (*)(void *context)",
    "microvmi_pause": "bool (*)(void *context)",
    "microvmi_resume": "bool (*)(void *context)",
    "microvmi_read_physical": (
        "bool (*)(void *context, uint64_t physical_address, uint8_t *buffer, size_t size, uint64_t *bytes_read)"
    ),
    "microvmi_write_physical": "bool (*)(void *context, uint64_t physical_address, uint8_t *buffer, size_t size)",
    "microvmi_get_max_physical_addr": "bool (*)(void *context, uint64_t *address_ptr)",
    "microvmi_read_registers": "bool (*)(void *context, uint16_t vcpu, struct Registers *registers)",
    "microvmi_get_driver_type": "enum DriverType (*)(void *context)",
    "rs_cstring_free": "void (*)(char *s)",
}
"""Each function's type, as a pointer to it."""
