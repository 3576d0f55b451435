# SPDX-License-Identifier: Apache-2.0
"""What is called in libFDP, its numbers, and the shared memory behind it."""

from __future__ import annotations

DECLARATIONS = """
typedef struct FDP_SHM_ FDP_SHM;
FDP_SHM *FDP_OpenSHM(const char *name);
bool FDP_Init(FDP_SHM *);
bool FDP_Pause(FDP_SHM *);
bool FDP_Resume(FDP_SHM *);
bool FDP_ReadPhysicalMemory(FDP_SHM *, uint8_t *buffer, uint32_t size, uint64_t address);
bool FDP_WritePhysicalMemory(FDP_SHM *, uint8_t *buffer, uint32_t size, uint64_t address);
bool FDP_ReadVirtualMemory(FDP_SHM *, uint32_t cpu, uint8_t *buffer, uint32_t size, uint64_t address);
bool FDP_ReadRegister(FDP_SHM *, uint32_t cpu, uint16_t id, uint64_t *value);
bool FDP_WriteRegister(FDP_SHM *, uint32_t cpu, uint16_t id, uint64_t value);
bool FDP_ReadMsr(FDP_SHM *, uint32_t cpu, uint64_t id, uint64_t *value);
bool FDP_WriteMsr(FDP_SHM *, uint32_t cpu, uint64_t id, uint64_t value);
int FDP_SetBreakpoint(FDP_SHM *, uint32_t cpu, uint16_t type, int id, uint16_t access, uint16_t address_type,
                      uint64_t address, uint64_t length, uint64_t cr3);
bool FDP_UnsetBreakpoint(FDP_SHM *, int id);
bool FDP_VirtualToPhysical(FDP_SHM *, uint32_t cpu, uint64_t address, uint64_t *physical);
bool FDP_GetState(FDP_SHM *, uint16_t *state);
bool FDP_SingleStep(FDP_SHM *, uint32_t cpu);
bool FDP_GetPhysicalMemorySize(FDP_SHM *, uint64_t *size);
bool FDP_GetCpuCount(FDP_SHM *, uint32_t *count);
bool FDP_GetStateChanged(FDP_SHM *);
"""

READ_LIMIT = 2 << 20
"""Bytes of a read. libFDP's limit is just below 10 MiB (its splitting above that overruns the buffer), but a request
is copied three times, which is slower once it does not fit the processor's caches."""

WRITE_LIMIT = 1 << 20
"""Bytes of a write: VirtualBox reads the place first, into a buffer of this size, whatever it is asked for."""

PAUSED = 1
BREAKPOINT_HIT = 2

BREAKPOINTS = 255
"""Breakpoints that a machine can have, by numbers from 0. To remove one that is not there does nothing."""

SOFT_BREAKPOINT = 1
MSR_BREAKPOINT = 4
CR_BREAKPOINT = 5
EXECUTE = 1
WRITE = 2
VIRTUAL_ADDRESS = 1

RIP = 16

REGISTERS = {
    "rax": 0,
    "rbx": 1,
    "rcx": 2,
    "rdx": 3,
    "r8": 4,
    "r9": 5,
    "r10": 6,
    "r11": 7,
    "r12": 8,
    "r13": 9,
    "r14": 10,
    "r15": 11,
    "rsp": 12,
    "rbp": 13,
    "rsi": 14,
    "rdi": 15,
    "rip": RIP,
    "cr0": 41,
    "cr2": 42,
    "cr3": 43,
    "cr4": 44,
}
"""Those that libFDP takes from a page of the first vCPU's, whichever vCPU is asked for."""

RFLAGS = 35
DEBUG = {"dr0": 23, "dr1": 24, "dr2": 25, "dr3": 26, "dr6": 27, "dr7": 28}
"""Debug registers as the guest sees them; FDP uses those of the processor itself."""
SELECTORS = {"cs": 29, "ds": 30, "es": 31, "fs": 32, "gs": 33, "ss": 34, "ldt": 46, "tr": 49}
LDT_BASE = 47
LDT_LIMIT = 48
TABLES = {"gdt": (37, 38), "idt": (39, 40)}
"""Base and limit."""

_CHANNEL = (10 << 20) + 8
"""One direction: 10 MiB of data, their size, and four bytes: lock, whether data is there, its status, nothing."""

CHANNEL_SIZE = 4 + 2 * _CHANNEL
"""The object of a machine's name: a lock for all, one of the next byte, whether the state changed, two directions."""

CPU_SIZE = 28 * 8
"""The object of ``CPU_`` and the name: registers of the first vCPU."""

LOCK = 0
STATE_LOCK = 1
REQUEST_LOCK = _CHANNEL
REQUEST_PRESENT = _CHANNEL + 1
ANSWER_SIZE = 2 * _CHANNEL - 4
ANSWER_LOCK = 2 * _CHANNEL
ANSWER_PRESENT = 2 * _CHANNEL + 1
ANSWER_STATUS = 2 * _CHANNEL + 2
