/* SPDX-License-Identifier: Apache-2.0 */
/* What the libFDP of the tests and the simulated machine share: the interface of libFDP, as far as the tests need it. */
#ifndef TEST_FDP_H
#define TEST_FDP_H

#include <stdbool.h>
#include <stdint.h>

typedef struct FDP_SHM_ FDP_SHM;

/* The calls of the program that has the machine, in the order in which libFDP takes them. */
typedef struct server_calls {
    bool running;
    void *user;
    bool (*get_state)(void *, uint8_t *);
    bool (*read_register)(void *, uint32_t, uint16_t, uint64_t *);
    bool (*write_register)(void *, uint32_t, uint16_t, uint64_t);
    bool (*write_physical)(void *, uint8_t *, uint64_t, uint32_t);
    bool (*read_physical)(void *, uint8_t *, uint64_t, uint32_t);
    bool (*write_virtual)(void *, uint32_t, uint8_t *, uint64_t, uint32_t);
    bool (*get_memory_size)(void *, uint64_t *);
    bool (*resume)(void *);
    bool (*pause)(void *);
    bool (*single_step)(void *, uint32_t);
    bool (*write_msr)(void *, uint32_t, uint64_t, uint64_t);
    bool (*read_msr)(void *, uint32_t, uint64_t, uint64_t *);
    bool (*get_cpu_count)(void *, uint32_t *);
    bool (*get_cpu_state)(void *, uint32_t, uint8_t *);
    bool (*unset_breakpoint)(void *, int);
    bool (*virtual_to_physical)(void *, uint32_t, uint64_t, uint64_t *);
    bool (*get_fx_state)(void *, uint32_t, uint8_t *, uint32_t *);
    bool (*set_fx_state)(void *, uint32_t, uint8_t *, uint32_t);
    bool (*read_virtual)(void *, uint32_t, uint64_t, uint32_t, uint8_t *);
    int (*set_breakpoint)(void *, uint32_t, uint16_t, int, uint16_t, uint16_t, uint64_t, uint64_t, uint64_t);
    bool (*save)(void *);
    bool (*restore)(void *);
    bool (*reboot)(void *);
    bool (*inject_interrupt)(void *, uint32_t, uint32_t, uint32_t, uint64_t);
} server_calls;

/* The object CPU_NAME: registers of the first vCPU. */
typedef struct cpu_page {
    uint64_t rip, rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15;
    uint64_t es, cs, ss, ds, fs, gs, rflags, cr0, cr2, cr3, cr4;
} cpu_page;

enum { PAUSED = 1, BREAKPOINT_HIT = 2 };
enum { SOFT_BREAKPOINT = 1, MSR_BREAKPOINT = 4, CR_BREAKPOINT = 5 };
enum { RAX = 0, RBX, RCX, RDX, R8, R9, R10, R11, R12, R13, R14, R15, RSP, RBP, RSI, RDI, RIP, RFLAGS = 35 };
enum { CR0 = 41, CR2, CR3, CR4, REGISTER_COUNT = 50 };

/* Both sides. */
FDP_SHM *FDP_CreateSHM(const char *name);
bool FDP_SetFDPServer(FDP_SHM *, server_calls *);
bool FDP_ServerLoop(FDP_SHM *);
void FDP_SetStateChanged(FDP_SHM *);

FDP_SHM *FDP_OpenSHM(const char *name);
void FDP_ExitSHM(FDP_SHM *);
bool FDP_Init(FDP_SHM *);
bool FDP_Pause(FDP_SHM *);
bool FDP_Resume(FDP_SHM *);
bool FDP_ReadPhysicalMemory(FDP_SHM *, uint8_t *, uint32_t, uint64_t);
bool FDP_WritePhysicalMemory(FDP_SHM *, uint8_t *, uint32_t, uint64_t);
bool FDP_ReadVirtualMemory(FDP_SHM *, uint32_t, uint8_t *, uint32_t, uint64_t);
bool FDP_ReadRegister(FDP_SHM *, uint32_t, uint16_t, uint64_t *);
bool FDP_WriteRegister(FDP_SHM *, uint32_t, uint16_t, uint64_t);
bool FDP_ReadMsr(FDP_SHM *, uint32_t, uint64_t, uint64_t *);
bool FDP_WriteMsr(FDP_SHM *, uint32_t, uint64_t, uint64_t);
int FDP_SetBreakpoint(FDP_SHM *, uint32_t, uint16_t, int, uint16_t, uint16_t, uint64_t, uint64_t, uint64_t);
bool FDP_UnsetBreakpoint(FDP_SHM *, int);
bool FDP_VirtualToPhysical(FDP_SHM *, uint32_t, uint64_t, uint64_t *);
bool FDP_GetState(FDP_SHM *, uint16_t *);
bool FDP_SingleStep(FDP_SHM *, uint32_t);
bool FDP_GetPhysicalMemorySize(FDP_SHM *, uint64_t *);
bool FDP_GetCpuCount(FDP_SHM *, uint32_t *);
bool FDP_GetStateChanged(FDP_SHM *);

#endif
