/* SPDX-License-Identifier: Apache-2.0 */
/* The libFDP of the tests: not that library, but one of our own with its names, types, shared memory and bad habits.
 *
 * The shared memory is laid out as libFDP's: locks, and for each direction 10 MiB of data, their size and whether they
 * are there. What the data of a request look like is our own affair, as both sides of it are here. Like the real one it
 * waits for ever, takes the registers of CPU_NAME whichever vCPU is asked for, wipes the channel in FDP_Init, leaves a
 * byte in the caller's buffer when a read fails, and never gives back what a handle mapped. What would crash or hang
 * the real one ends the process here, so that a test sees it.
 */
#define _GNU_SOURCE
#include "fdp.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { DATA = 10 << 20 };

typedef struct direction {
    uint8_t data[DATA];
    uint32_t size;
    atomic_bool lock, present;
    bool status;
    uint8_t unused;
} direction;

typedef struct shared {
    atomic_bool lock, state_lock;
    bool state_changed;
    uint8_t unused;
    direction requests, answers;
} shared;

_Static_assert(sizeof(shared) == 20971540, "the layout of the real one");

struct FDP_SHM_ {
    shared *shared;
    cpu_page *cpu;
    server_calls *server;
};

/* A request: what is called, for which vCPU, with up to four numbers; a write has its data behind it. */
typedef struct request {
    uint64_t op, cpu, number[4];
} request;

enum { GET_SIZE = 1, GET_COUNT, GET_STATE, PAUSE, RESUME, STEP, READ, WRITE, READ_VIRTUAL, READ_REGISTER };
enum { WRITE_REGISTER = 11, READ_MSR, WRITE_MSR, SET_BREAKPOINT, UNSET_BREAKPOINT, TRANSLATE };

static void wait_a_little(unsigned *rounds)
{
    if (++*rounds < 20000)
        return;
    nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

static void lock(atomic_bool *flag)
{
    for (unsigned rounds = 0; atomic_exchange(flag, true);)
        wait_a_little(&rounds);
}

static void put(direction *to, const void *head, size_t head_size, const void *data, size_t size, bool status)
{
    for (unsigned rounds = 0; atomic_load(&to->present);)
        wait_a_little(&rounds);
    lock(&to->lock);
    memcpy(to->data, head, head_size);
    if (size)
        memcpy(to->data + head_size, data, size);
    to->size = (uint32_t)(head_size + size);
    to->status = status;
    atomic_store(&to->present, true);
    atomic_store(&to->lock, false);
}

static bool take(direction *from, void *buffer)
{
    for (unsigned rounds = 0; !atomic_load(&from->present);)
        wait_a_little(&rounds);
    lock(&from->lock);
    memcpy(buffer, from->data, from->size);
    bool status = from->status;
    atomic_store(&from->present, false);
    atomic_store(&from->lock, false);
    return status;
}

static bool ask(FDP_SHM *shm, request wanted, const void *data, size_t size, void *answer)
{
    lock(&shm->shared->lock);
    put(&shm->shared->requests, &wanted, sizeof wanted, data, size, true);
    bool status = take(&shm->shared->answers, answer);
    atomic_store(&shm->shared->lock, false);
    return status;
}

static bool told(FDP_SHM *shm, request wanted)
{
    uint8_t done = 0;
    ask(shm, wanted, NULL, 0, &done);
    return done;
}

static void *map(const char *name, int flags, size_t size)
{
    int fd = shm_open(name, O_RDWR | flags, 0666);
    if (fd < 0 || (flags && ftruncate(fd, (off_t)size) < 0))
        return NULL;
    void *found = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return found == MAP_FAILED ? NULL : found;
}

FDP_SHM *FDP_CreateSHM(const char *name)
{
    FDP_SHM *shm = calloc(1, sizeof *shm);
    shm->shared = map(name, O_CREAT, sizeof(shared));
    return shm->shared ? shm : NULL;
}

FDP_SHM *FDP_OpenSHM(const char *name)
{
    char cpu[300];
    snprintf(cpu, sizeof cpu, "CPU_%s", name);
    FDP_SHM *shm = calloc(1, sizeof *shm);
    shm->shared = map(name, 0, sizeof(shared));
    shm->cpu = map(cpu, 0, sizeof(cpu_page));
    return shm->shared && shm->cpu ? shm : NULL;
}

void FDP_ExitSHM(FDP_SHM *shm)
{
    free(shm);
}

bool FDP_Init(FDP_SHM *shm)
{
    memset(shm->shared, 0, sizeof(shared));
    return true;
}

bool FDP_Pause(FDP_SHM *shm)
{
    return told(shm, (request){.op = PAUSE});
}

bool FDP_Resume(FDP_SHM *shm)
{
    return told(shm, (request){.op = RESUME});
}

bool FDP_SingleStep(FDP_SHM *shm, uint32_t cpu)
{
    return told(shm, (request){.op = STEP, .cpu = cpu});
}

bool FDP_ReadPhysicalMemory(FDP_SHM *shm, uint8_t *buffer, uint32_t size, uint64_t address)
{
    if (size == 0 || size >= DATA)
        abort(); /* the real one: waits for ever, writes behind the buffer */
    return ask(shm, (request){.op = READ, .number = {address, size}}, NULL, 0, buffer);
}

bool FDP_WritePhysicalMemory(FDP_SHM *shm, uint8_t *buffer, uint32_t size, uint64_t address)
{
    uint8_t done = 0;
    if (size >= DATA - sizeof(request))
        return false;
    ask(shm, (request){.op = WRITE, .number = {address, size}}, buffer, size, &done);
    return done;
}

bool FDP_ReadVirtualMemory(FDP_SHM *shm, uint32_t cpu, uint8_t *buffer, uint32_t size, uint64_t address)
{
    return ask(shm, (request){.op = READ_VIRTUAL, .cpu = cpu, .number = {address, size}}, NULL, 0, buffer);
}

bool FDP_ReadRegister(FDP_SHM *shm, uint32_t cpu, uint16_t id, uint64_t *value)
{
    cpu_page *page = shm->cpu;
    const uint64_t *kept[REGISTER_COUNT] = {
        [RAX] = &page->rax, [RBX] = &page->rbx, [RCX] = &page->rcx, [RDX] = &page->rdx, [R8] = &page->r8,
        [R9] = &page->r9,   [R10] = &page->r10, [R11] = &page->r11, [R12] = &page->r12, [R13] = &page->r13,
        [R14] = &page->r14, [R15] = &page->r15, [RSP] = &page->rsp, [RBP] = &page->rbp, [RSI] = &page->rsi,
        [RDI] = &page->rdi, [RIP] = &page->rip, [CR0] = &page->cr0, [CR2] = &page->cr2, [CR3] = &page->cr3,
        [CR4] = &page->cr4,
    };
    if (id < REGISTER_COUNT && kept[id])
        *value = *kept[id];
    else
        ask(shm, (request){.op = READ_REGISTER, .cpu = cpu, .number = {id}}, NULL, 0, value);
    return true;
}

bool FDP_WriteRegister(FDP_SHM *shm, uint32_t cpu, uint16_t id, uint64_t value)
{
    return told(shm, (request){.op = WRITE_REGISTER, .cpu = cpu, .number = {id, value}});
}

bool FDP_ReadMsr(FDP_SHM *shm, uint32_t cpu, uint64_t id, uint64_t *value)
{
    ask(shm, (request){.op = READ_MSR, .cpu = cpu, .number = {id}}, NULL, 0, value);
    return true;
}

bool FDP_WriteMsr(FDP_SHM *shm, uint32_t cpu, uint64_t id, uint64_t value)
{
    return told(shm, (request){.op = WRITE_MSR, .cpu = cpu, .number = {id, value}});
}

int FDP_SetBreakpoint(FDP_SHM *shm, uint32_t cpu, uint16_t type, int id, uint16_t access, uint16_t address_type,
                      uint64_t address, uint64_t length, uint64_t cr3)
{
    int found = -1;
    (void)id, (void)length, (void)cr3;
    request wanted = {.op = SET_BREAKPOINT, .cpu = cpu, .number = {type, access, address_type, address}};
    ask(shm, wanted, NULL, 0, &found);
    return found;
}

bool FDP_UnsetBreakpoint(FDP_SHM *shm, int id)
{
    return told(shm, (request){.op = UNSET_BREAKPOINT, .number = {(uint64_t)id}});
}

bool FDP_VirtualToPhysical(FDP_SHM *shm, uint32_t cpu, uint64_t address, uint64_t *physical)
{
    ask(shm, (request){.op = TRANSLATE, .cpu = cpu, .number = {address}}, NULL, 0, physical);
    return true;
}

bool FDP_GetState(FDP_SHM *shm, uint16_t *state)
{
    ask(shm, (request){.op = GET_STATE}, NULL, 0, state); /* one byte of the two, as the real one */
    return true;
}

bool FDP_GetPhysicalMemorySize(FDP_SHM *shm, uint64_t *size)
{
    ask(shm, (request){.op = GET_SIZE}, NULL, 0, size);
    return true;
}

bool FDP_GetCpuCount(FDP_SHM *shm, uint32_t *count)
{
    ask(shm, (request){.op = GET_COUNT}, NULL, 0, count);
    return true;
}

bool FDP_GetStateChanged(FDP_SHM *shm)
{
    lock(&shm->shared->state_lock);
    bool changed = shm->shared->state_changed;
    shm->shared->state_changed = false;
    atomic_store(&shm->shared->state_lock, false);
    return changed;
}

void FDP_SetStateChanged(FDP_SHM *shm)
{
    lock(&shm->shared->state_lock);
    shm->shared->state_changed = true;
    atomic_store(&shm->shared->state_lock, false);
}

bool FDP_SetFDPServer(FDP_SHM *shm, server_calls *calls)
{
    shm->server = calls;
    return true;
}

/* Do what a request wants; the size of the answer. */
static size_t serve(server_calls *calls, const request *wanted, uint8_t *data, uint8_t *answer, bool *status)
{
    void *user = calls->user;
    uint32_t cpu = (uint32_t)wanted->cpu;
    const uint64_t *number = wanted->number;
    memset(answer, 0, 8);
    switch (wanted->op) {
    case GET_SIZE:
        calls->get_memory_size(user, (uint64_t *)answer);
        return 8;
    case GET_COUNT:
        calls->get_cpu_count(user, (uint32_t *)answer);
        return 4;
    case GET_STATE:
        calls->get_state(user, answer);
        return 1;
    case PAUSE:
        return answer[0] = calls->pause(user), 1;
    case RESUME:
        return answer[0] = calls->resume(user), 1;
    case STEP:
        return answer[0] = calls->single_step(user, cpu), 1;
    case READ:
        *status = calls->read_physical(user, answer, number[0], (uint32_t)number[1]);
        return *status ? number[1] : 1;
    case WRITE:
        return answer[0] = calls->write_physical(user, data, number[0], (uint32_t)number[1]), 1;
    case READ_VIRTUAL:
        *status = calls->read_virtual(user, cpu, number[0], (uint32_t)number[1], answer);
        return *status ? number[1] : 1;
    case READ_REGISTER:
        calls->read_register(user, cpu, (uint16_t)number[0], (uint64_t *)answer);
        return 8;
    case WRITE_REGISTER:
        return answer[0] = calls->write_register(user, cpu, (uint16_t)number[0], number[1]), 1;
    case READ_MSR:
        calls->read_msr(user, cpu, number[0], (uint64_t *)answer);
        return 8;
    case WRITE_MSR:
        return answer[0] = calls->write_msr(user, cpu, number[0], number[1]), 1;
    case SET_BREAKPOINT:
        *(int *)answer = calls->set_breakpoint(user, cpu, (uint16_t)number[0], -1, (uint16_t)number[1],
                                               (uint16_t)number[2], number[3], 1, 0);
        return 4;
    case UNSET_BREAKPOINT:
        return answer[0] = calls->unset_breakpoint(user, (int)number[0]), 1;
    case TRANSLATE:
        calls->virtual_to_physical(user, cpu, number[0], (uint64_t *)answer);
        return 8;
    }
    abort();
}

bool FDP_ServerLoop(FDP_SHM *shm)
{
    uint8_t *wanted = malloc(DATA), *answer = malloc(DATA);
    shm->server->running = true;
    while (shm->server->running) {
        bool status = true;
        take(&shm->shared->requests, wanted);
        size_t size = serve(shm->server, (request *)wanted, wanted + sizeof(request), answer, &status);
        put(&shm->shared->answers, answer, size, NULL, 0, status);
    }
    free(wanted);
    free(answer);
    return true;
}
