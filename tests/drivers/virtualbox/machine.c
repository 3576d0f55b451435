/* SPDX-License-Identifier: Apache-2.0 */
/* A simulated VirtualBox machine: a program that plays VirtualBox, with the server side of a libFDP, ours or the real one.
 *
 *     machine NAME VCPUS RAM_SIZE [unwritable:ADDRESS] START:SIZE...
 *
 * Each range holds, every 8 bytes, its own address. Virtual addresses are physical ones, but those from VIRTUAL on are
 * VIRTUAL less. The first vCPU runs a loop of three instructions at CODE, as long as the machine runs. Where VirtualBox
 * would crash or hang (registers and steps of other vCPUs, writes above 1 MiB), this ends.
 */
#define _GNU_SOURCE
#include "fdp.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { CODE = 0x2000, RANGES = 16, BREAKPOINTS = 8, FIRST_ID = 4, MSR_COUNT = 32 };
enum { GDT_LIMIT = 38 };
enum { READS = 0x5ead, PLACED = 0xb4ea }; /* MSRs that tell how many reads of memory there were; and breakpoints are */
#define VIRTUAL 0xffff800000000000u

/* CODE: nop, CODE + 1: wrmsr, CODE + 3: mov cr3, rax, CODE + 6: jmp CODE */
static const uint8_t code[] = {0x90, 0x0f, 0x30, 0x0f, 0x22, 0xd8, 0xeb, 0xf8};

static struct range {
    uint64_t start, size;
    uint8_t *bytes;
} ranges[RANGES];
static struct breakpoint {
    bool active;
    uint16_t type;
    uint64_t address;
} breakpoints[BREAKPOINTS];
static struct msr {
    uint64_t id, value[2];
} msrs[MSR_COUNT];

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static FDP_SHM *shm;
static cpu_page *cpu;
static uint64_t other[2][REGISTER_COUNT];
static uint64_t ram_size, unwritable = UINT64_MAX;
static uint32_t vcpus;
static uint64_t reads;
static uint8_t state;

static uint8_t *find(uint64_t address, uint64_t size)
{
    for (struct range *range = ranges; range < ranges + RANGES && range->bytes; range++)
        if (address >= range->start && address - range->start < range->size
            && size <= range->size - (address - range->start))
            return range->bytes + (address - range->start);
    return NULL;
}

static uint64_t physical(uint64_t address)
{
    uint64_t found = address >= VIRTUAL ? address - VIRTUAL : address;
    return find(found, 1) ? found : 0;
}

/* -------------------------------------------------------------------------------------------------- the guest */

static bool stops(uint16_t type, uint64_t address)
{
    for (struct breakpoint *one = breakpoints; one < breakpoints + BREAKPOINTS; one++)
        if (one->active && one->type == type && one->address == address)
            return true;
    return false;
}

static struct msr *msr(uint64_t id)
{
    for (struct msr *one = msrs; one < msrs + MSR_COUNT; one++) {
        if (one->id == 0)
            one->id = id;
        if (one->id == id)
            return one;
    }
    abort();
}

static bool hit(void)
{
    state = PAUSED | BREAKPOINT_HIT;
    FDP_SetStateChanged(shm);
    return false;
}

/* Execute one instruction; false if it was stopped at. A write to a control register is stopped at when it is done. */
static bool execute(bool stepping)
{
    if (!stepping && stops(SOFT_BREAKPOINT, physical(cpu->rip)))
        return hit();
    switch (physical(cpu->rip)) {
    case CODE + 1:
        if (!stepping && stops(MSR_BREAKPOINT, (uint32_t)cpu->rcx))
            return hit();
        msr((uint32_t)cpu->rcx)->value[0] = cpu->rdx << 32 | (cpu->rax & 0xffffffff);
        cpu->rip += 2;
        break;
    case CODE + 3:
        cpu->cr3 = cpu->rax;
        cpu->rip += 3;
        if (!stepping && stops(CR_BREAKPOINT, 3))
            return hit();
        break;
    case CODE + 6:
        cpu->rip -= 6;
        cpu->rbx++;
        break;
    default:
        cpu->rip++;
    }
    return true;
}

static void *run(void *unused)
{
    while (usleep(100) == 0) {
        pthread_mutex_lock(&mutex);
        if (state == 0)
            execute(false);
        pthread_mutex_unlock(&mutex);
    }
    return unused;
}

/* ----------------------------------------------------------------------------------------- what libFDP calls */

static bool get_state(void *user, uint8_t *found)
{
    *found = state;
    return true;
}

static bool pause_machine(void *user)
{
    pthread_mutex_lock(&mutex);
    state |= PAUSED;
    pthread_mutex_unlock(&mutex);
    return true;
}

static bool resume(void *user)
{
    pthread_mutex_lock(&mutex);
    state = 0;
    pthread_mutex_unlock(&mutex);
    return true;
}

static bool single_step(void *user, uint32_t vcpu)
{
    if (vcpu)
        abort();
    pthread_mutex_lock(&mutex);
    bool can = state & PAUSED;
    if (can)
        execute(true);
    pthread_mutex_unlock(&mutex);
    return can;
}

static bool read_physical(void *user, uint8_t *buffer, uint64_t address, uint32_t size)
{
    const uint8_t *from = find(address, size);
    reads++;
    if (from)
        memcpy(buffer, from, size);
    else
        *buffer = 0xee;
    return from;
}

static bool write_physical(void *user, uint8_t *data, uint64_t address, uint32_t size)
{
    uint8_t *to = find(address, size);
    if (size > 1 << 20)
        abort();
    if (unwritable - address < size)
        return false;
    if (to)
        memcpy(to, data, size);
    return to;
}

static bool read_virtual(void *user, uint32_t vcpu, uint64_t address, uint32_t size, uint8_t *buffer)
{
    return read_physical(user, buffer, address >= VIRTUAL ? address - VIRTUAL : address, size);
}

static bool virtual_to_physical(void *user, uint32_t vcpu, uint64_t address, uint64_t *found)
{
    *found = physical(address);
    return true;
}

static bool read_register(void *user, uint32_t vcpu, uint16_t id, uint64_t *value)
{
    *value = vcpu < 2 && id < REGISTER_COUNT ? other[vcpu][id] : 0;
    return true;
}

static bool write_register(void *user, uint32_t vcpu, uint16_t id, uint64_t value)
{
    uint64_t *kept[REGISTER_COUNT] = {
        [RAX] = &cpu->rax, [RBX] = &cpu->rbx, [RCX] = &cpu->rcx, [RDX] = &cpu->rdx, [R8] = &cpu->r8,
        [R9] = &cpu->r9,   [R10] = &cpu->r10, [R11] = &cpu->r11, [R12] = &cpu->r12, [R13] = &cpu->r13,
        [R14] = &cpu->r14, [R15] = &cpu->r15, [RSP] = &cpu->rsp, [RBP] = &cpu->rbp, [RSI] = &cpu->rsi,
        [RDI] = &cpu->rdi, [RIP] = &cpu->rip, [CR0] = &cpu->cr0, [CR3] = &cpu->cr3, [CR4] = &cpu->cr4,
    };
    if (vcpu)
        abort();
    if (id == CR2)
        cpu->cr3 = value; /* as VirtualBox does */
    if (id < REGISTER_COUNT && kept[id])
        *kept[id] = value;
    else if (id < REGISTER_COUNT)
        other[0][id] = value;
    return true;
}

static uint64_t placed(void)
{
    uint64_t count = 0;
    for (struct breakpoint *one = breakpoints; one < breakpoints + BREAKPOINTS; one++)
        count += one->active;
    return count;
}

static bool read_msr(void *user, uint32_t vcpu, uint64_t id, uint64_t *value)
{
    pthread_mutex_lock(&mutex);
    *value = id == READS ? reads : id == PLACED ? placed() : vcpu < 2 ? msr(id)->value[vcpu] : 0;
    pthread_mutex_unlock(&mutex);
    return true;
}

static bool write_msr(void *user, uint32_t vcpu, uint64_t id, uint64_t value)
{
    if (vcpu < 2)
        msr(id)->value[vcpu] = value;
    return vcpu < 2;
}

static int set_breakpoint(void *user, uint32_t vcpu, uint16_t type, int id, uint16_t access, uint16_t address_type,
                          uint64_t address, uint64_t length, uint64_t cr3)
{
    struct breakpoint wanted = {true, type, type == SOFT_BREAKPOINT ? physical(address) : address};
    for (int at = 0; at < BREAKPOINTS; at++) { /* as VirtualBox does: one a place, whatever its virtual address */
        struct breakpoint *one = &breakpoints[at];
        if (one->active && one->type == type && one->address == wanted.address)
            return FIRST_ID + at;
    }
    for (int at = 0; at < BREAKPOINTS; at++) {
        if (breakpoints[at].active)
            continue;
        breakpoints[at] = wanted;
        return FIRST_ID + at;
    }
    return -1;
}

static bool unset_breakpoint(void *user, int id)
{
    if (id < FIRST_ID || id >= FIRST_ID + BREAKPOINTS || !(state & PAUSED) || !breakpoints[id - FIRST_ID].active)
        return false;
    breakpoints[id - FIRST_ID].active = false;
    return true;
}

static bool get_memory_size(void *user, uint64_t *size)
{
    *size = ram_size;
    return true;
}

static bool get_cpu_count(void *user, uint32_t *count)
{
    *count = vcpus;
    return true;
}

/* ---------------------------------------------------------------------------------------------------- set-up */

static void add_range(struct range *range, const char *text)
{
    char *rest;
    range->start = strtoull(text, &rest, 0);
    range->size = strtoull(rest + 1, NULL, 0);
    range->bytes = mmap(NULL, range->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (uint64_t at = 0; at < range->size; at += 8)
        *(uint64_t *)(range->bytes + at) = range->start + at;
}

static void set_registers(void)
{
    *cpu = (cpu_page){.rip = CODE, .rax = 0x1a, .rcx = 0xc0000082, .rdx = 0x1d, .rsp = 0x7000, .cr0 = 0x80000011};
    cpu->r15 = 0x15, cpu->cr2 = 0xc2, cpu->cr3 = 0x3000, cpu->cr4 = 0x20;
    for (uint64_t vcpu = 0; vcpu < 2; vcpu++)
        for (uint64_t id = 0; id < REGISTER_COUNT; id++)
            other[vcpu][id] = 0x100 * (vcpu + 1) + (id == GDT_LIMIT ? 0x2f : id);
}

static cpu_page *create_cpu_page(const char *name)
{
    char path[300];
    snprintf(path, sizeof path, "/CPU_%s", name);
    int fd = shm_open(path, O_CREAT | O_RDWR, 0666);
    if (fd < 0 || ftruncate(fd, sizeof(cpu_page)) < 0)
        abort();
    return mmap(NULL, sizeof(cpu_page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

int main(int argc, char **argv)
{
    pthread_t guest;
    if (argc < 5 || argc > 4 + RANGES)
        return 2;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    vcpus = (uint32_t)strtoul(argv[2], NULL, 0);
    ram_size = strtoull(argv[3], NULL, 0);
    struct range *next = ranges;
    for (int at = 4; at < argc; at++)
        if (strncmp(argv[at], "unwritable:", 11) == 0)
            unwritable = strtoull(argv[at] + 11, NULL, 0);
        else
            add_range(next++, argv[at]);
    if (find(CODE, sizeof code))
        memcpy(find(CODE, sizeof code), code, sizeof code);
    cpu = create_cpu_page(argv[1]);
    shm = FDP_CreateSHM(argv[1]);
    set_registers();
    static server_calls calls = {
        .get_state = get_state, .pause = pause_machine, .resume = resume, .single_step = single_step,
        .read_physical = read_physical, .write_physical = write_physical, .read_virtual = read_virtual,
        .virtual_to_physical = virtual_to_physical, .read_register = read_register, .write_register = write_register,
        .read_msr = read_msr, .write_msr = write_msr, .set_breakpoint = set_breakpoint,
        .unset_breakpoint = unset_breakpoint, .get_memory_size = get_memory_size, .get_cpu_count = get_cpu_count,
    };
    FDP_SetFDPServer(shm, &calls);
    pthread_create(&guest, NULL, run, NULL);
    puts("ready");
    fflush(stdout);
    FDP_ServerLoop(shm);
    return 0;
}
