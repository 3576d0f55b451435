/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A simulator of Xen: the functions of its libraries that the driver calls, over a domain made of a file in memory.
 * It keeps Xen's rules (pauses are counted, one listener, a ring of eight, errors as measured on Xen 4.17) and counts
 * what must not happen: STRAY. Tests play the guest through the functions at the end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define DOMID 1
#define NAME "tiny"
#define UUID "0f9c4b3e-1111-4222-8333-444455556666"
#define PAGE 4096
#define FRAMES 0x2000
#define SPECIAL 0xfc000
#define SPECIALS 9
#define VCPUS 3
#define CPU_SIZE 1032
#define ENTRY 400
#define PLACES 8
#define PORT 3
#define PORTS 64

static struct xen {
    unsigned char *memory;
    int file, hole_first, hole_count;
    int unreadable, unwritable; /* frames of which no mapping can be made, 0 for none */
    int maps, mapped, paused, dying, stray, read_only, version;
    int offline; /* a vCPU from 1 on, 0 for none */
    int ept, stepless, uninjectable, unsteppable; /* what the processor can; what fails, a vCPU from 1 on */
    int enabled, bound, armed, events_fd;
    bool stepped[VCPUS], taken[FRAMES]; /* that outlives a monitor */
    bool told[3], observed[3];          /* writes of a control register, by Xen's index; and without a stop */
    int stopped[VCPUS];
    unsigned char cpu[VCPUS][CPU_SIZE];
    unsigned char *ring;
    uint32_t requests, responses;
    uint32_t last_flags;
    unsigned char last[ENTRY];
    bool late; /* a vCPU waits for room in the ring, with an entry */
    unsigned char late_entry[ENTRY];
    int injected;
    pid_t listener; /* who bound the channel */
} *shared; /* by the children of a test, as Xen is by processes */
#define xen (*shared)

static pthread_mutex_t ring_lock = PTHREAD_MUTEX_INITIALIZER; /* the guest and who answers are two threads */

static int fail(int code)
{
    errno = code;
    return -1;
}

/* The kernel unbinds the channels of a process that ends. */
static bool bound(void)
{
    if (xen.bound && kill(xen.listener, 0) < 0)
        xen.bound = 0;
    return xen.bound;
}

static int gone(uint32_t domid)
{
    return domid != DOMID || xen.dying;
}

/* ------------------------------------------------------------------------------------------------ logs and xenstore */

void *xtl_createlogger_stdiostream(void *file, int least, unsigned flags)
{
    return file;
}

void *xs_open(unsigned long flags)
{
    return &xen;
}

void xs_close(void *store)
{
}

char **xs_directory(void *store, uint32_t transaction, const char *path, unsigned *count)
{
    char **items = malloc(2 * sizeof(*items) + 4);

    items[0] = strcpy((char *)(items + 2), "0");
    items[1] = strcpy((char *)(items + 2) + 2, "1");
    *count = 2;
    return items;
}

void *xs_read(void *store, uint32_t transaction, const char *path, unsigned *length)
{
    bool named = strcmp(strrchr(path, '/'), "/name") == 0;
    char *name = strdup(!named ? "/vm/" UUID : strstr(path, "/0/") ? "Domain-0" : NAME);

    *length = strlen(name);
    return name;
}

/* -------------------------------------------------------------------------------------------------------- the domain */

void *xc_interface_open(void *log, void *builder_log, unsigned flags)
{
    return &xen;
}

int xc_interface_close(void *xc)
{
    return 0;
}

int xc_domain_getinfolist(void *xc, uint32_t first, unsigned count, void *info)
{
    unsigned char *at = memset(info, 0, 128);
    uint32_t flags = 1 << 1 | (xen.dying ? 1 : 0) | (xen.paused ? 1 << 3 : 0), highest = VCPUS - 1;
    uint64_t pages = FRAMES - xen.hole_count + SPECIALS;
    uint16_t domid = first ? DOMID : 0;

    if (first > DOMID)
        return 0;
    memcpy(at, &domid, 2);
    memcpy(at + 4, &flags, 4);
    memcpy(at + 8, &pages, 8);
    memcpy(at + 68, &highest, 4);
    return 1;
}

int xc_domain_maximum_gpfn(void *xc, uint32_t domid, unsigned long *gfn)
{
    *gfn = 0xfefff;
    return gone(domid) ? fail(ESRCH) : 0;
}

/* The vCPU waits to put its entry until there is room, and it may run. */
static bool put(const void *entry)
{
    uint64_t one = 1;
    uint32_t flags, vcpu;

    if ((int)(xen.requests - xen.responses) >= PLACES) /* as Xen counts: by answers */
        return false;
    xen.stray += xen.requests - (((uint32_t *)xen.ring)[1] - 1) >= PLACES;
    memcpy(xen.ring + 64 + xen.requests % PLACES * ENTRY, entry, ENTRY);
    memcpy(&flags, (const char *)entry + 4, 4);
    memcpy(&vcpu, (const char *)entry + 12, 4);
    xen.stopped[vcpu] += flags & 1;
    ((uint32_t *)xen.ring)[0] = ++xen.requests;
    return write(xen.events_fd, &one, sizeof(one)) == sizeof(one);
}

static void put_late(void)
{
    if (xen.late && !xen.paused)
        xen.late = !put(xen.late_entry);
}

int xc_domain_pause(void *xc, uint32_t domid)
{
    if (gone(domid))
        return fail(ESRCH);
    xen.paused++;
    return 0;
}

int xc_domain_unpause(void *xc, uint32_t domid)
{
    if (gone(domid))
        return fail(ESRCH);
    if (!xen.paused) {
        xen.stray++;
        return fail(EINVAL);
    }
    xen.paused--;
    pthread_mutex_lock(&ring_lock);
    put_late();
    pthread_mutex_unlock(&ring_lock);
    return 0;
}

static unsigned char *put_record(unsigned char *at, uint16_t code, uint16_t instance, const void *data, uint32_t size)
{
    memcpy(at, &code, 2);
    memcpy(at + 2, &instance, 2);
    memcpy(at + 4, &size, 4);
    memcpy(at + 8, data, size);
    return at + 8 + size;
}

/* The records of a vCPU: registers, its APIC, the APIC's registers (of which the task priority), extended state. */
static unsigned char *put_vcpu(unsigned char *at, uint16_t vcpu)
{
    static const unsigned char lapic[24] = {0, 0x09, 0xe0, 0xfe};
    unsigned char registers[1024] = {0}, extended[576 + 16] = {0};

    registers[0x80] = (unsigned char)(0x50 + 0x10 * vcpu);
    extended[8] = 7;
    at = put_record(at, 2, vcpu, xen.cpu[vcpu], CPU_SIZE);
    at = put_record(at, 5, vcpu, lapic, sizeof lapic);
    at = put_record(at, 6, vcpu, registers, sizeof registers);
    return put_record(at, 16, vcpu, extended, sizeof extended);
}

int xc_domain_hvm_getcontext(void *xc, uint32_t domid, uint8_t *records, uint32_t size)
{
    unsigned char *at = records;
    int vcpu;

    if (gone(domid))
        return fail(ESRCH);
    if (!records)
        return 8 + 16 + VCPUS * (4 * 8 + CPU_SIZE + 24 + 1024 + 592) + 8;
    at = put_record(at, 1, 0, "header of state!", 16);
    for (vcpu = 0; vcpu < VCPUS; vcpu++)
        if (vcpu + 1 != xen.offline)
            at = put_vcpu(at, vcpu);
    return put_record(at, 0, 0, "", 0) - records;
}

int xc_domain_hvm_setcontext(void *xc, uint32_t domid, uint8_t *records, uint32_t size)
{
    uint16_t code = 1, instance;
    uint32_t at = 0, length;

    if (gone(domid))
        return fail(ESRCH);
    xen.stray += !xen.paused;
    while (code && at + 8 <= size) {
        memcpy(&code, records + at, 2);
        memcpy(&instance, records + at + 2, 2);
        memcpy(&length, records + at + 4, 4);
        if (code == 2 && length == CPU_SIZE && instance < VCPUS)
            memcpy(xen.cpu[instance], records + at + 8, CPU_SIZE);
        at += 8 + length;
    }
    return code ? fail(EINVAL) : 0;
}

/* ------------------------------------------------------------------------------------------------------------ memory */

void *xenforeignmemory_open(void *log, unsigned flags)
{
    return &xen;
}

int xenforeignmemory_close(void *handle)
{
    return 0;
}

static long place(unsigned long frame)
{
    if (frame >= SPECIAL && frame < SPECIAL + SPECIALS)
        return FRAMES + frame - SPECIAL;
    if (frame >= FRAMES || (frame >= (unsigned)xen.hole_first && frame < (unsigned)(xen.hole_first + xen.hole_count)))
        return -1;
    return frame;
}

void *xenforeignmemory_map(void *handle, uint32_t domid, int protection, size_t pages, const unsigned long *frames,
                           int *errors)
{
    char *base = mmap(NULL, pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    size_t i;

    for (i = 0; i < pages; i++)
        if (frames[i] != 0 && (frames[i] == (unsigned)xen.unreadable ||
                               (frames[i] == (unsigned)xen.unwritable && protection & PROT_WRITE))) {
            munmap(base, pages * PAGE);
            errno = EIO;
            return NULL;
        }
    xen.maps++;
    xen.mapped += pages;
    for (i = 0; i < pages; i++) {
        long at = place(frames[i]);

        errors[i] = gone(domid) || at < 0 || (xen.read_only && protection & PROT_WRITE) ? -EINVAL : 0;
        if (!errors[i])
            mmap(base + i * PAGE, PAGE, protection, MAP_SHARED | MAP_FIXED, xen.file, at * PAGE);
    }
    return base;
}

int xenforeignmemory_unmap(void *handle, void *address, size_t pages)
{
    if (address == xen.ring)
        return 0;
    xen.mapped -= pages;
    return munmap(address, pages * PAGE);
}

/* ------------------------------------------------------------------------------------------------------------ events */

int xc_vm_event_get_version(void *xc)
{
    return xen.version;
}

void *xc_monitor_enable(void *xc, uint32_t domid, uint32_t *port)
{
    if (gone(domid) || xen.enabled) {
        errno = xen.enabled ? EBUSY : ESRCH;
        return NULL;
    }
    xen.ring = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(xen.ring, 0xa5, PAGE);
    xen.requests = xen.responses = 0;
    xen.enabled = 1;
    *port = PORT;
    return xen.ring;
}

/* Control registers, MSRs, breakpoints, and single steps. */
int xc_monitor_get_capabilities(void *xc, uint32_t domid, uint32_t *bits)
{
    *bits = 1 << 0 | 1 << 1 | 1 << 3 | (xen.stepless ? 0 : 1 << 2);
    return gone(domid) ? fail(ESRCH) : 0;
}

int xc_monitor_disable(void *xc, uint32_t domid)
{
    if (gone(domid) || xen.late)
        return fail(xen.late ? EBUSY : ESRCH);
    xen.enabled = xen.armed = 0;
    memset(xen.told, 0, sizeof(xen.told));
    return 0;
}

/* An event before there is a ring and a channel would be lost. */
static int arm(uint32_t domid, bool enable)
{
    if (gone(domid))
        return fail(ESRCH);
    xen.stray += enable && (!xen.enabled || !xen.bound || ((uint32_t *)xen.ring)[1] > 1000);
    xen.armed += enable ? 1 : -1;
    return 0;
}

int xc_monitor_write_ctrlreg(void *xc, uint32_t domid, uint16_t index, bool enable, bool sync, uint64_t mask,
                             bool changes_only)
{
    if (!gone(domid) && xen.told[index] == enable)
        return fail(EEXIST);
    xen.told[index] = enable;
    xen.observed[index] = enable && !sync;
    return arm(domid, enable);
}

int xc_monitor_mov_to_msr(void *xc, uint32_t domid, uint32_t msr, bool enable, bool changes_only)
{
    return arm(domid, enable);
}

int xc_monitor_singlestep(void *xc, uint32_t domid, bool enable)
{
    if (xen.stepless)
        return fail(EOPNOTSUPP);
    return arm(domid, enable);
}

int xc_domain_debug_control(void *xc, uint32_t domid, uint32_t operation, uint32_t vcpu)
{
    if (vcpu >= VCPUS || vcpu + 1 == (unsigned)xen.unsteppable)
        return fail(ENOENT);
    xen.stray += xen.stepped[vcpu] == operation;
    xen.stepped[vcpu] = operation;
    return 0;
}

int xc_monitor_software_breakpoint(void *xc, uint32_t domid, bool enable)
{
    return arm(domid, enable);
}

int xc_hvm_inject_trap(void *xc, uint32_t domid, int vcpu, uint8_t vector, uint8_t type, uint32_t error,
                       uint8_t length, uint64_t cr2)
{
    if (xen.uninjectable)
        return fail(EBUSY);
    xen.stray += vector != 3 || !xen.stopped[vcpu];
    xen.injected++;
    return 0;
}

int xc_get_mem_access(void *xc, uint32_t domid, uint64_t gfn, int *access)
{
    if (gone(domid))
        return fail(ESRCH);
    return !xen.ept ? fail(EINVAL) : xen.enabled ? 0 : fail(ENODEV);
}

int xc_set_mem_access(void *xc, uint32_t domid, int access, uint64_t first, uint32_t count)
{
    if (gone(domid))
        return fail(ESRCH);
    if (!xen.ept || !xen.enabled)
        return fail(xen.ept ? ENODEV : EINVAL);
    if (first >= FRAMES)
        return fail(ESRCH);
    xen.taken[first] = access != 7;
    return 0;
}

int xc_evtchn_status(void *xc, void *status)
{
    uint16_t domid, other;
    uint32_t port, state = 0, far = 0;

    memcpy(&domid, status, 2);
    memcpy(&port, (char *)status + 4, 4);
    if (port >= PORTS || domid > DOMID)
        return fail(domid > DOMID ? ESRCH : EINVAL);
    if (domid == DOMID && port == PORT && xen.enabled)
        return fail(EACCES);
    other = domid ? 0 : DOMID;
    if (port < PORT || (!domid && port == PORT && bound())) {
        state = 2;
        far = port;
    }
    memcpy((char *)status + 8, &state, 4);
    memcpy((char *)status + 16, &other, 2);
    memcpy((char *)status + 20, &far, 4);
    return 0;
}

void *xenevtchn_open(void *log, unsigned flags)
{
    int *channel = malloc(sizeof(*channel));

    *channel = xen.events_fd = eventfd(0, EFD_CLOEXEC);
    return channel;
}

int xenevtchn_close(void *handle)
{
    close(*(int *)handle);
    free(handle);
    return 0;
}

int xenevtchn_fd(void *handle)
{
    return *(int *)handle;
}

int xenevtchn_bind_interdomain(void *handle, uint32_t domid, uint32_t port)
{
    if (port != PORT || bound())
        return fail(EINVAL);
    xen.bound = 1;
    xen.listener = getpid();
    return PORT;
}

int xenevtchn_unbind(void *handle, uint32_t port)
{
    xen.bound = 0;
    return 0;
}

int xenevtchn_pending(void *handle)
{
    uint64_t count;

    return read(*(int *)handle, &count, sizeof(count)) == sizeof(count) ? PORT : -1;
}

int xenevtchn_unmask(void *handle, uint32_t port)
{
    return 0;
}

/* Xen takes the answers at once. */
int xenevtchn_notify(void *handle, uint32_t port)
{
    uint32_t flags, vcpu;

    pthread_mutex_lock(&ring_lock);
    while (xen.responses != ((uint32_t *)xen.ring)[2]) {
        memcpy(xen.last, xen.ring + 64 + xen.responses++ % PLACES * ENTRY, ENTRY);
        memcpy(&flags, xen.last + 4, 4);
        memcpy(&vcpu, xen.last + 12, 4);
        xen.last_flags = flags;
        if (flags & 1 && vcpu < VCPUS && xen.stopped[vcpu])
            xen.stopped[vcpu]--;
    }
    put_late();
    pthread_mutex_unlock(&ring_lock);
    return 0;
}

/* ---------------------------------------------------------------------------------------------------- for the tests */

void simulator_reset(void)
{
    int vcpu;

    if (!shared)
        shared = mmap(NULL, sizeof(xen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memset(&xen, 0, sizeof(xen));
    xen.version = 7;
    xen.file = memfd_create("domain", MFD_CLOEXEC);
    if (ftruncate(xen.file, (FRAMES + SPECIALS) * PAGE))
        abort();
    xen.memory = mmap(NULL, (FRAMES + SPECIALS) * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, xen.file, 0);
    for (vcpu = 0; vcpu < VCPUS; vcpu++)
        memset(xen.cpu[vcpu], 0x10 + vcpu, CPU_SIZE);
}


/* What Xen itself clears away with a domain. */
void simulator_forget(void)
{
    xen.enabled = xen.armed = xen.dying = 0;
    memset(xen.told, 0, sizeof(xen.told));
    memset(xen.stopped, 0, sizeof(xen.stopped));
    memset(xen.stepped, 0, sizeof(xen.stepped));
    memset(xen.taken, 0, sizeof(xen.taken));
}

void simulator_hole(int first, int count)
{
    xen.hole_first = first;
    xen.hole_count = count;
}

/* A vCPU stops at an event, or tells of it and goes on; false if the ring has no place, for which the vCPU then waits. */
bool simulator_event(uint32_t vcpu, uint32_t reason, const void *body, uint64_t rip, bool waits)
{
    uint32_t head[4] = {7, waits, reason, vcpu}, index;
    unsigned char entry[ENTRY] = {0};
    bool room;

    memcpy(&index, body, sizeof(index));
    if (reason == 4 && xen.observed[index])
        head[1] = 0;
    memcpy(entry, head, sizeof(head));
    memcpy(entry + 24, body, 32);
    memcpy(entry + 56 + 19 * 8, &rip, 8);
    pthread_mutex_lock(&ring_lock);
    room = put(entry);
    if (!room) {
        xen.late = true;
        memcpy(xen.late_entry, entry, ENTRY);
    }
    pthread_mutex_unlock(&ring_lock);
    return room;
}

static int still_armed(void)
{
    int count = xen.armed, i;

    for (i = 0; i < VCPUS; i++)
        count += xen.stepped[i];
    for (i = 0; i < FRAMES; i++)
        count += xen.taken[i];
    return count;
}

int simulator_get(const char *what)
{
    if (!strcmp(what, "stopped"))
        return xen.stopped[0] + xen.stopped[1] + xen.stopped[2];
    return !strcmp(what, "maps") ? xen.maps : !strcmp(what, "mapped") ? xen.mapped : !strcmp(what, "paused") ? xen.paused
         : !strcmp(what, "stray") ? xen.stray : !strcmp(what, "enabled") ? xen.enabled : !strcmp(what, "bound") ? bound()
         : !strcmp(what, "armed") ? still_armed() : !strcmp(what, "flags") ? (int)xen.last_flags : !strcmp(what, "late") ? xen.late
         : xen.injected;
}

void simulator_set(const char *what, int value)
{
    *(!strcmp(what, "paused") ? &xen.paused : !strcmp(what, "dying") ? &xen.dying : !strcmp(what, "bound") ? &xen.bound
      : !strcmp(what, "ept") ? &xen.ept : !strcmp(what, "offline") ? &xen.offline : !strcmp(what, "stepless") ? &xen.stepless
      : !strcmp(what, "unsteppable") ? &xen.unsteppable : !strcmp(what, "uninjectable") ? &xen.uninjectable
      : !strcmp(what, "version") ? &xen.version
      : !strcmp(what, "unreadable") ? &xen.unreadable : !strcmp(what, "unwritable") ? &xen.unwritable
      : &xen.read_only) = value;
}

unsigned char *simulator_memory(void)
{
    return xen.memory;
}

unsigned char *simulator_answer(void)
{
    return xen.last;
}

unsigned char *simulator_cpu(int vcpu)
{
    return xen.cpu[vcpu];
}
