/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libmicrovmi - look into a running virtual machine from outside: physical memory, registers, run state,
 * on every hypervisor through one small API, with no agent in the guest.
 *
 * CALL ORDER
 *   void *vm = microvmi_open("vmi:///?vm_name=debian", &error);      or microvmi_init(NULL, &params, &error)
 *   ... any call below that takes a context, from any thread, any number of times ...
 *   microvmi_destroy(vm);
 *
 * CONTEXT
 *   The `void *` is an opaque token, not an address: never dereference it, never do arithmetic on it. It stands for
 *   the whole introspected machine: the driver, its driver type, the plain memory and the padded memory, each with a
 *   cursor of its own. NULL, garbage and destroyed contexts are errors (MICROVMI_ERROR_INVALID_CONTEXT), not crashes.
 *
 * ADDRESSES AND UNITS
 *   Addresses are guest-physical, in bytes; sizes are in bytes. A frame is 4096 bytes. The maximum address is one past
 *   the last byte of the guest's RAM. Memory may have holes; read-only memory and memory of devices may lie above.
 *
 * RESULTS
 *   A function that returns `bool` returns true on success. On failure it returns false and
 *   microvmi_last_error()/microvmi_last_error_code() tell this thread why; a success clears both. What an out value
 *   holds after a failure is said at each function; where nothing is said it is untouched.
 *
 * OWNERSHIP
 *   Strings handed to the caller through `const char **` are the caller's: free them with rs_cstring_free(). Strings
 *   that are returned directly belong to the library. Everything passed in may be freed as soon as the call returns.
 *
 * THREADS
 *   Every function may be called from every thread, and one context may be used by many threads at once. A read that a
 *   mapping, one system call or a kept page can serve takes no lock and no Python. Each of the two cursors moves
 *   atomically; calls that name an address do not touch a cursor. microvmi_destroy() may race with calls on the same
 *   context: a call that is under way ends normally and is waited for (a read no longer than some seconds: it then goes
 *   on with the memory as it was), a later one is an invalid-context error. A thread that is cancelled ends before or
 *   after a call, as long as its cancellation is deferred. A calling thread needs 64 KiB of stack, which may be a
 *   fiber's or a coroutine's; a call that takes Python runs on a thread of the library's where less than 512 KiB are
 *   left, 50 microseconds slower. A call from a sub-interpreter of the process's Python may be
 *   MICROVMI_ERROR_NOT_SUPPORTED.
 *
 * DESCRIPTORS
 *   No descriptor of the library's is 0, 1 or 2. While a call opens something, those of them that the host has closed
 *   are held by one that refuses reads and writes (EBADF, as before); when it is over they are closed again.
 *
 * FORK, SIGNALS, EXIT
 *   After fork() the child cannot use the library: every call fails at once with MICROVMI_ERROR_FORKED (exec is fine).
 *   The library installs no signal handler and raises no SIGPIPE. Reads of a mapped file that somebody cuts short, or
 *   whose file system is full, may end in SIGBUS; the parameter `mapped=no` of microvmi_open() avoids that, and a handler
 *   of the host's may leave such a read by siglongjmp(). A virtual machine that a context paused runs again
 *   when the context is destroyed or the process exits normally (return from main or exit(); not _exit or a signal),
 *   if it still stands by that pause: one that was migrated away, is being saved or stands for another reason by then
 *   is left alone. A program that may be ended by a signal blocks it in all threads, takes it with sigwait() or a
 *   signalfd, and calls microvmi_release_all(). After SIGKILL nobody lets the machine run but its user, unless it was
 *   opened with `watch=on`.
 *   A snapshot that QEMU takes while the machine runs, events of QEMU, and a pause with `watch=on` are watched over by a
 *   program of ours, microvmi-watcher, which takes back what was changed in QEMU if this process is killed. It is no child
 *   that wait() sees, and sends no SIGCHLD, unless the process is one that orphans are given to (process 1,
 *   PR_SET_CHILD_SUBREAPER). It dies with a control group or a container that is killed as a whole: the next opening takes
 *   back then what it did not. No other process is started.
 *   dlclose() leaves the library loaded.
 *
 * VERSIONS
 *   The part headed "frozen" is the ABI of libmicrovmi 0.4.0, which never changes. Everything else carries a "since".
 *
 * CONVENTIONS of the part that is not frozen
 *   A struct that may grow starts with `struct_size`, in bytes: start from its initializer, MICROVMI_..._INIT. A caller
 *   that knows less than the library gets, and is asked for, what it knows; one that knows more finds in `struct_size`
 *   how much was filled. Other structs are final. A list is filled into the caller's array as microvmi_get_memory_map()
 *   does: as much as there is room for, and how much there is. A text is an array in a struct, ends with a zero byte and
 *   is cut at a whole character; or it is the caller's, freed with rs_cstring_free(). Kinds, bits and codes may be
 *   added: a program leaves out those it does not know. What a context can is told by microvmi_get_abilities().
 *
 * The environment: MICROVMI_URI (see microvmi_init), MICROVMI_PLUGIN_PATH (directories with further drivers, see
 * docs/drivers.md), RUST_LOG (see microvmi_envlogger_init). All of them are ignored in a program that was started with
 * more rights than its user has (setuid, setgid, file capabilities), also when it has given them up since.
 */
#ifndef LIBMICROVMI_H
#define LIBMICROVMI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The version of this header; microvmi_version() gives the library's. */
#define MICROVMI_VERSION_MAJOR 0
#define MICROVMI_VERSION_MINOR 5
#define MICROVMI_VERSION_PATCH 0

/* Unnamed members are C11; this lets a pedantic C99 or C++ compiler accept them. Empty where it is not needed. */
#if defined(__GNUC__)
#define MICROVMI_UNNAMED __extension__
#else
#define MICROVMI_UNNAMED
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ================================================================================================================
 * FROZEN: the ABI of libmicrovmi 0.4.0. Names, order, values and layouts never change.
 * ============================================================================================================= */

#ifndef PAGE_SHIFT
#define PAGE_SHIFT 12
#endif
#ifndef PAGE_SIZE
#define PAGE_SIZE 4096
#endif

/*
 * What a context reaches its machine through. KVM (KVMi), Memflow, VirtualBox (FDP) and Xen are frozen; new drivers
 * follow with prefixed names. MICROVMI_DRIVER_PLUGIN stands for every driver without a number of its own, the shipped
 * `fake` one among them: microvmi_get_driver_name() tells them apart. Unknown is what microvmi_get_driver_type()
 * returns for an invalid context.
 */
enum DriverType {
    KVM = 0,
    Memflow = 1,
    VirtualBox = 2,
    Xen = 3,
    MICROVMI_DRIVER_QEMU = 4,
    MICROVMI_DRIVER_DUMP = 5,
    MICROVMI_DRIVER_PLUGIN = 6,
    MICROVMI_DRIVER_SNAPSHOT = 7, /* of contexts that microvmi_snapshot() makes; nothing is opened by it */
    MICROVMI_DRIVER_UNKNOWN = 0x7fffffff
};
typedef enum DriverType DriverType;

/* Which member of KVMInitParamsFFI is in use. */
enum KVMInitParamsFFI_Tag {
    UnixSocket = 0
};
typedef enum KVMInitParamsFFI_Tag KVMInitParamsFFI_Tag;

/* Which member of MemflowConnectorParamsFFI is in use. */
enum MemflowConnectorParamsFFI_Tag {
    Default = 0
};
typedef enum MemflowConnectorParamsFFI_Tag MemflowConnectorParamsFFI_Tag;

/* Which member of Registers is in use: the architecture of the vCPU. New ones follow with prefixed names. */
enum Registers_Tag {
    X86 = 0,
    MICROVMI_REGISTERS_AARCH64 = 1
};
typedef enum Registers_Tag Registers_Tag;

/* Parameters every driver understands. vm_name: UTF-8, the machine's name as its hypervisor knows it, or NULL. */
struct CommonInitParamsFFI {
    char *vm_name;
};
typedef struct CommonInitParamsFFI CommonInitParamsFFI;

/* path: UTF-8, the UNIX socket on which KVMi introspection listens, or NULL. */
struct UnixSocket_Body {
    char *path;
};
typedef struct UnixSocket_Body UnixSocket_Body;

/* Parameters of the KVM (KVMi) driver. */
struct KVMInitParamsFFI {
    KVMInitParamsFFI_Tag tag;
    MICROVMI_UNNAMED union {
        UnixSocket_Body unix_socket;
    };
};
typedef struct KVMInitParamsFFI KVMInitParamsFFI;

/* args_arr: args_arr_len strings of the form key=value, or NULL. */
struct Default_Body {
    char **args_arr;
    uintptr_t args_arr_len;
};
typedef struct Default_Body Default_Body;

/* Arguments of a memflow connector. */
struct MemflowConnectorParamsFFI {
    MemflowConnectorParamsFFI_Tag tag;
    MICROVMI_UNNAMED union {
        Default_Body default_;
    };
};
typedef struct MemflowConnectorParamsFFI MemflowConnectorParamsFFI;

/* Parameters of the Memflow driver. connector_name: UTF-8, or NULL. */
struct MemflowInitParamsFFI {
    char *connector_name;
    MemflowConnectorParamsFFI connector_args;
};
typedef struct MemflowInitParamsFFI MemflowInitParamsFFI;

/* All parameters of microvmi_init(). Zero it, then set what you need. The library copies the strings. */
struct DriverInitParamsFFI {
    CommonInitParamsFFI common;
    KVMInitParamsFFI kvm;
    MemflowInitParamsFFI memflow;
};
typedef struct DriverInitParamsFFI DriverInitParamsFFI;

/* A segment register: base address, limit in bytes (as the CPU holds it, granularity applied), selector. */
struct SegmentReg {
    uint64_t base;
    uint32_t limit;
    uint16_t selector;
};
typedef struct SegmentReg SegmentReg;

/* A descriptor table register: base address and limit in bytes. */
struct SystemTableReg {
    uint64_t base;
    uint16_t limit;
};
typedef struct SystemTableReg SystemTableReg;

/* The registers of one x86 vCPU. A register that the hypervisor does not tell is 0; docs/drivers/ says which. */
struct X86Registers {
    uint64_t rax;
    uint64_t rbx;
    uint64_t rcx;
    uint64_t rdx;
    uint64_t rsi;
    uint64_t rdi;
    uint64_t rsp;
    uint64_t rbp;
    uint64_t r8;
    uint64_t r9;
    uint64_t r10;
    uint64_t r11;
    uint64_t r12;
    uint64_t r13;
    uint64_t r14;
    uint64_t r15;
    uint64_t rip;
    uint64_t rflags;
    uint64_t cr0;
    uint64_t cr2;
    uint64_t cr3;
    uint64_t cr4;
    uint64_t sysenter_cs;
    uint64_t sysenter_esp;
    uint64_t sysenter_eip;
    uint64_t msr_efer;
    uint64_t msr_star;
    uint64_t msr_lstar;
    uint64_t efer; /* the same value as msr_efer */
    uint64_t apic_base;
    SegmentReg cs;
    SegmentReg ds;
    SegmentReg es;
    SegmentReg fs;
    SegmentReg gs;
    SegmentReg ss;
    SegmentReg tr;
    SegmentReg ldt;
    SystemTableReg idt;
    SystemTableReg gdt;
};
typedef struct X86Registers X86Registers;

/*
 * The registers of one AArch64 vCPU. They fill the room that the frozen union has: this layout is final. A register that
 * the hypervisor does not tell is 0; struct microvmi_vcpu_state has more of them, and tells which. Since 0.5.0.
 */
struct microvmi_aarch64_registers {
    uint64_t x0;
    uint64_t x1;
    uint64_t x2;
    uint64_t x3;
    uint64_t x4;
    uint64_t x5;
    uint64_t x6;
    uint64_t x7;
    uint64_t x8;
    uint64_t x9;
    uint64_t x10;
    uint64_t x11;
    uint64_t x12;
    uint64_t x13;
    uint64_t x14;
    uint64_t x15;
    uint64_t x16;
    uint64_t x17;
    uint64_t x18;
    uint64_t x19;
    uint64_t x20;
    uint64_t x21;
    uint64_t x22;
    uint64_t x23;
    uint64_t x24;
    uint64_t x25;
    uint64_t x26;
    uint64_t x27;
    uint64_t x28;
    uint64_t x29;
    uint64_t x30;
    uint64_t pc;
    uint64_t pstate; /* laid out as SPSR_EL1 is */
    uint64_t sp_el0;
    uint64_t sp_el1;
    uint64_t ttbr0_el1;
    uint64_t ttbr1_el1;
    uint64_t tcr_el1;
    uint64_t sctlr_el1;
    uint64_t mair_el1;
    uint64_t vbar_el1;
    uint64_t esr_el1;
    uint64_t far_el1;
    uint64_t elr_el1;
    uint64_t spsr_el1;
    uint64_t tpidr_el0;
    uint64_t tpidr_el1;
    uint64_t contextidr_el1;
    uint64_t midr_el1;         /* which processor it is */
    uint64_t id_aa64mmfr0_el1; /* which sizes of pages and addresses it has */
};
typedef struct microvmi_aarch64_registers microvmi_aarch64_registers;

/* The registers of one vCPU; `tag` says which member is valid, and may be one that a program does not know yet. */
struct Registers {
    Registers_Tag tag;
    MICROVMI_UNNAMED union {
        MICROVMI_UNNAMED struct {
            X86Registers x86;
        };
        microvmi_aarch64_registers aarch64; /* since 0.5.0 */
    };
};
typedef struct Registers Registers;

/*
 * Turn on logging to standard error, filtered by the environment variable RUST_LOG: error, warn, info, debug, trace or
 * off, alone or as `microvmi=LEVEL`, several separated by commas; unset means error. Nothing is ever logged without
 * this call. Calling it again is harmless and reads RUST_LOG anew.
 */
void microvmi_envlogger_init(void);

/*
 * Open a virtual machine.
 *
 * driver_type: which driver to use, or NULL to try them all: KVM, Memflow, VirtualBox, Xen, then the newer ones.
 * init_params: what the driver is to open, or NULL. Copied; the caller may free it at once. When both are NULL and the
 *   environment variable MICROVMI_URI is set, its value is opened as by microvmi_open().
 * init_error: NULL, or where to store the error text. On failure *init_error is a heap string of one or more lines,
 *   which the caller frees with rs_cstring_free(); on success it is NULL.
 *
 * Returns a context for microvmi_destroy(), or NULL. The first call in a process also starts the embedded Python. A
 * process has up to 4096 contexts at a time; one more is MICROVMI_ERROR_INVALID_ARGUMENT.
 * Errors: any; MICROVMI_ERROR_NO_DRIVER when every driver was tried, with one line a driver and its reason, that of a
 *   driver which found the machine first.
 */
void *microvmi_init(const enum DriverType *driver_type, const struct DriverInitParamsFFI *init_params,
                    const char **init_error);

/*
 * Close a context: resume the machine if this context paused it and it still stands by that pause, then release
 * everything. NULL is accepted; a context that is not live is an invalid-context error without effect. Calls under way
 * in other threads end normally. What could not be undone is this thread's error afterwards; a machine that did not
 * answer runs when it goes on, where the order to do so can be left with it (docs/drivers/ says where).
 */
void microvmi_destroy(void *context);

/*
 * Stop all vCPUs. Pausing a machine that stands is a success, and so is pausing a dump, which always does. The machine
 * runs again at microvmi_resume(), and at the latest when the context is destroyed or the process exits normally, unless
 * it was already stopped before or does not stand by this pause any more.
 * Until then, pages that are read of memory that is not mapped into this process are kept (16 MiB; parameter `cache` of
 * microvmi_open(), 0 for none): what others write to the machine meanwhile, or let it do, is not seen before the next
 * microvmi_pause() or microvmi_get_memory_map(), of QEMU before the next call that asks it, for registers for example.
 * Pages of a packed dump are kept from the opening on.
 * After a timeout the machine may stop later; it is then this context's pause, as if the call had been a success.
 * Errors: not supported (a driver that cannot), VM gone (also: it was migrated away), timeout, driver unavailable
 * (somebody else holds the control channel, or is saving or migrating the machine), I/O (the hypervisor did not stop it:
 * a machine that sleeps).
 */
bool microvmi_pause(void *context);

/*
 * Let all vCPUs run, whoever stopped them. Resuming a running machine is a success, and so is resuming a dump, which
 * stays as it is.
 * Errors: as microvmi_pause(); driver unavailable also where it would do harm, with the reason: a machine that is being
 * saved, loaded or migrated, sleeps, shut down, or is held by a debugger.
 */
bool microvmi_resume(void *context);

/*
 * Read guest-physical memory at an address. The cursors do not move.
 *
 * physical_address: in bytes; any value is accepted.
 * size: in bytes, up to PTRDIFF_MAX; 0 is a success.
 * buffer: at least `size` bytes; may be NULL only when size is 0.
 * bytes_read: NULL, or where to store the length of the valid prefix: the bytes up to the first frame that does not
 *   exist. Always set, 0 on an invalid context or argument. Bytes of the buffer after the prefix are untouched.
 *
 * Returns true only if all bytes were read. Memory that is mapped into this process (shared RAM of QEMU, mapped or not)
 * stays readable after the machine has ended; other memory is then a VM-gone error, in every thread within a few
 * milliseconds, and the buffer holds nothing. No read waits for memory that a migration has yet to bring.
 * Errors: not mapped (a hole, or beyond the machine's memory), VM gone, permission, I/O (a file that became shorter,
 * memory that has not arrived, or that the hypervisor gave up: microvmi_get_memory_map() tells what there is).
 */
bool microvmi_read_physical(void *context, uint64_t physical_address, uint8_t *buffer, size_t size,
                            uint64_t *bytes_read);

/*
 * Write guest-physical memory at an address. The cursors do not move.
 *
 * buffer: `size` bytes, not changed. size 0 is a success.
 *
 * The whole range is checked first: nothing is written unless all of it exists and is writable, and nothing after the
 * machine has ended. Memory that can be unplugged while the machine runs is looked for anew by its hypervisor first.
 * Errors: not mapped, read-only (ROM, a dump file, a driver that cannot write), permission, VM gone, I/O; for memory that
 * can be unplugged also those of microvmi_get_memory_map().
 */
bool microvmi_write_physical(void *context, uint64_t physical_address, uint8_t *buffer, size_t size);

/*
 * Store the maximum address, one past the last byte of RAM, in *address_ptr. On failure it is untouched.
 * Errors: invalid context, invalid argument (NULL).
 */
bool microvmi_get_max_physical_addr(void *context, uint64_t *address_ptr);

/*
 * Read the registers of one vCPU.
 *
 * vcpu: from 0 to microvmi_get_vcpu_count() - 1.
 * registers: filled with tag and values; untouched on failure.
 *
 * The values belong together only while the machine is paused. Dumps that hold registers have them as well.
 * Errors: invalid argument (no such vCPU, NULL), not supported, VM gone, timeout.
 */
bool microvmi_read_registers(void *context, uint16_t vcpu, struct Registers *registers);

/* The context's driver type; MICROVMI_DRIVER_UNKNOWN, a value that names no driver, for an invalid context. */
enum DriverType microvmi_get_driver_type(void *context);

/* Free a string that the library handed to the caller. NULL is accepted. */
void rs_cstring_free(char *s);

/* ================================================================================================================
 * ERRORS, VERSIONS (since 0.5.0)
 * ============================================================================================================= */

/* Why the last call of this thread failed. Numbers are pinned and never used again. */
enum microvmi_error {
    MICROVMI_OK = 0,
    MICROVMI_ERROR_INVALID_ARGUMENT = 1,   /* a NULL pointer, a bad URI, an unknown parameter, no such vCPU */
    MICROVMI_ERROR_INVALID_CONTEXT = 2,    /* NULL, garbage or destroyed */
    MICROVMI_ERROR_NO_DRIVER = 3,          /* no driver could open the machine; the text has each one's reason */
    MICROVMI_ERROR_DRIVER_UNAVAILABLE = 4, /* the driver's hypervisor, library or control channel is not there */
    MICROVMI_ERROR_NOT_SUPPORTED = 5,      /* this driver cannot do that */
    MICROVMI_ERROR_NOT_MAPPED = 6,         /* no memory at that address */
    MICROVMI_ERROR_PERMISSION = 7,         /* the operating system refused */
    MICROVMI_ERROR_VM_GONE = 8,            /* the virtual machine ended */
    MICROVMI_ERROR_TIMEOUT = 9,            /* no answer in time */
    MICROVMI_ERROR_IO = 10,                /* any other failure of the operating system or the hypervisor */
    MICROVMI_ERROR_READ_ONLY = 11,         /* that memory, or this whole machine, cannot be written */
    MICROVMI_ERROR_FORKED = 12,            /* called in a child after fork() */
    MICROVMI_ERROR_STARTUP = 13,           /* the embedded Python could not start */
    MICROVMI_ERROR_INTERNAL = 14,          /* a defect of the library */
    MICROVMI_ERROR_CANCELLED = 15          /* the caller ended it, by a function of his that is told how far it is */
};
typedef enum microvmi_error microvmi_error;

/*
 * The text of this thread's last error, one line without a final newline; "" after a success. Never NULL. Of several
 * drivers (MICROVMI_ERROR_NO_DRIVER) it is a line each. It tells names and answers of others, whose control characters
 * are escaped: it can be printed.
 * The string is the library's, and valid until this thread's next call into the library. Does not start Python.
 */
const char *microvmi_last_error(void);

/* The code of this thread's last error; MICROVMI_OK after a success. Does not start Python. */
enum microvmi_error microvmi_last_error_code(void);

/* The library's version, "MAJOR.MINOR.PATCH". The string is the library's, static. Does not start Python. */
const char *microvmi_version(void);

/*
 * What this library was built with, one line for bug reports: version, compiler, Python, cffi. The string is the
 * library's, static. Does not start Python.
 */
const char *microvmi_build_info(void);

/* ================================================================================================================
 * OPENING BY TEXT (since 0.5.0)
 * ============================================================================================================= */

/*
 * Open a virtual machine that a text names.
 *
 * uri: UTF-8, one of
 *   vmi://DRIVER/?key=value&key=value   DRIVER: qemu, dump, fake, kvm, ...; empty to try all. Values are
 *                                       percent-decoded.
 *                                       Keys of every driver: vm_name. Others: docs/drivers/. Upstream's keys
 *                                       kvm_unix_socket, memflow_connector_name and memflow_connector_args are known;
 *                                       the last may be given several times, an item each.
 *   vmi://DRIVER/NAME?key=value         the same with vm_name=NAME
 *   file:///PATH                        the memory image at PATH, which is percent-decoded
 *   a path, with a slash                a memory image, the same as vmi://dump/?path=...: raw, LiME, ELF core, 64-bit
 *                                       Windows crash dump or kdump, told by its content; format=raw takes any file
 *                                       as it is
 *   any other word                      a machine of that name, as vmi:///?vm_name=...; if there is none, a file of
 *                                       that name in the working directory, as ./...
 * error: as init_error of microvmi_init().
 *
 * Returns a context for microvmi_destroy(), or NULL. Errors: as microvmi_init(), and invalid argument for a bad text.
 */
void *microvmi_open(const char *uri, const char **error);

/*
 * The name of the context's driver, lower case ("qemu"). The string is the library's, and lives as long as the
 * process. NULL for an invalid context.
 */
const char *microvmi_get_driver_name(void *context);

/* ================================================================================================================
 * MEMORY AS A FILE (since 0.5.0)
 *
 * Two streams a context: the plain one stops at frames that do not exist, the padded one reads them as zeros. Each
 * has a cursor of its own that starts at 0 and stays between 0 and the maximum address.
 * ============================================================================================================= */

/*
 * Move the plain cursor.
 *
 * offset, whence: as lseek: SEEK_SET (0, from the start), SEEK_CUR (1, from the cursor), SEEK_END (2, from the maximum
 *   address). The result saturates at 0 and at the maximum address for every offset; that is no error.
 *   SEEK_DATA (3) and SEEK_HOLE (4) of Linux move to the first byte at or after the address `offset` that may hold
 *   something, or that does not exist or is known to be zero; to the maximum address if there is none.
 * position: NULL, or where to store the new position. Untouched on failure.
 *
 * Errors: invalid context, invalid argument (another whence).
 */
bool microvmi_seek(void *context, int64_t offset, int whence, uint64_t *position);

/* Store the plain cursor in *position. Errors: invalid context, invalid argument (NULL). */
bool microvmi_tell(void *context, uint64_t *position);

/*
 * Read at the plain cursor and move it by what was read.
 *
 * bytes_read: NULL, or where to store the count: up to `size`, less before a hole or the maximum address, 0 at the
 *   maximum address. Always set. Bytes of the buffer after it are untouched.
 *
 * Returns true if something was read, at the maximum address, and for size 0; false when the byte at the cursor does
 * not exist (seek, or use the padded stream, to go on). Errors: not mapped, VM gone, permission, I/O.
 */
bool microvmi_read(void *context, uint8_t *buffer, size_t size, uint64_t *bytes_read);

/*
 * Write at the plain cursor and move it by what was written.
 *
 * bytes_written: NULL, or where to store the count: `size` on success, 0 on failure unless an error came in the
 *   middle. Always set.
 *
 * All or nothing, as microvmi_write_physical(): a write across the maximum address writes nothing. Errors: the same.
 */
bool microvmi_write(void *context, const uint8_t *buffer, size_t size, uint64_t *bytes_written);

/* Move the padded cursor; else as microvmi_seek(). */
bool microvmi_padded_seek(void *context, int64_t offset, int whence, uint64_t *position);

/* Store the padded cursor in *position; else as microvmi_tell(). */
bool microvmi_padded_tell(void *context, uint64_t *position);

/*
 * Read at the padded cursor and move it by what was read; frames that do not exist are zeros.
 *
 * bytes_read: as microvmi_read(); less than `size` only before the maximum address.
 *
 * Errors: VM gone, permission, I/O; *bytes_read then tells how many bytes are valid, and the cursor moved by them.
 */
bool microvmi_padded_read(void *context, uint8_t *buffer, size_t size, uint64_t *bytes_read);

/*
 * Read at an address; what does not exist, beyond the machine's memory as well, is zeros. The cursors do not move.
 * Returns true if no other error came up. Parameters and errors: as microvmi_read_physical(), without not mapped.
 */
bool microvmi_read_physical_padded(void *context, uint64_t physical_address, uint8_t *buffer, size_t size,
                                   uint64_t *bytes_read);

/* ================================================================================================================
 * LEAVING (since 0.5.0)
 * ============================================================================================================= */

/*
 * Undo everything that this process did to all machines: switch off intercepts, give back page accesses, answer open
 * events, and resume what contexts paused, if it still stands by that pause. Each machine is settled by itself; those
 * that do not answer share the time and keep nobody from the others. Contexts stay open, to be destroyed as ever, and
 * what is done through them afterwards is undone as ever: call it when nothing more is to be done.
 *
 * timeout_ms: how long all of it may take, in milliseconds. The normal end of a process does the same within 10 s.
 *
 * For an ordinary thread, such as one that has taken SIGTERM with sigwait(); it is not async-signal-safe. Does not start
 * Python. Errors: those of the machines that could not be settled, all in the text, with the code of the first.
 */
bool microvmi_release_all(uint32_t timeout_ms);

/* ================================================================================================================
 * MANY READS AT ONCE, MEMORY WITHOUT A COPY (since 0.5.0)
 * ============================================================================================================= */

/* One read of a batch. This layout is final. */
struct microvmi_read_request {
    MICROVMI_UNNAMED union {
        uint64_t physical_address; /* in: as in microvmi_read_physical() */
        uint64_t virtual_address;  /* in: as in microvmi_read_virtual(), for microvmi_read_virtual_batch() */
    };
    uint8_t *buffer;     /* in: at least `size` bytes */
    size_t size;         /* in: bytes, up to PTRDIFF_MAX */
    uint64_t bytes_read; /* out: the length of the valid prefix */
    int32_t error;       /* out: enum microvmi_error, 0 when all bytes were read */
    uint32_t reserved;   /* not used */
};
typedef struct microvmi_read_request microvmi_read_request;

/*
 * Do many reads in as few system calls or trips to the hypervisor as can be. The cursors do not move.
 *
 * requests: `count` requests, done in order; each gets its own result. Buffers should not overlap.
 *
 * Returns true only if every read was whole; otherwise the thread's error is that of the first one that was not.
 * Errors: invalid argument (NULL; then no request was touched), and those of microvmi_read_physical().
 */
bool microvmi_read_physical_batch(void *context, struct microvmi_read_request *requests, size_t count);

/*
 * A pointer straight into the guest's memory, to be read from: what the guest writes is seen at once.
 *
 * physical_address, size: a range that exists in one piece of the host's memory; size is at least 1.
 * pointer: where to store the address of the first byte. It stays valid until microvmi_unmap_physical(), also after
 *   microvmi_destroy(). Untouched on failure.
 *
 * Touching a page that the guest never touched makes the host allocate it. Errors: invalid argument, not mapped, not
 * supported (this memory is not mapped by the library: private RAM of another process, a driver of frames).
 */
bool microvmi_map_physical(void *context, uint64_t physical_address, size_t size, const uint8_t **pointer);

/*
 * Give back a pointer of microvmi_map_physical(), once for each time it was handed out. NULL is accepted.
 * Errors: invalid argument (not such a pointer).
 */
bool microvmi_unmap_physical(const uint8_t *pointer);

/* ================================================================================================================
 * VIRTUAL MEMORY (since 0.5.0)
 *
 * An address space is a value: the base of page tables, and how they are to be read. Whoever knows a CR3 fills it in
 * (struct_size, paging, base; the rest is 0); microvmi_get_address_space() makes one of a vCPU's registers. It is
 * nothing but numbers: it does not end with the process whose tables it names, and nothing is to be freed.
 *
 *   struct microvmi_address_space space = MICROVMI_ADDRESS_SPACE_INIT;
 *   space.paging = MICROVMI_PAGING_X86_4_LEVELS;
 *   space.base = cr3;
 *   if (!microvmi_read_virtual(vm, &space, 0xffffffff81000000, buffer, sizeof buffer, NULL)) ...
 *
 * The tables are the guest's, and are read as its processor would: what they say may be nonsense, and may change at any
 * time while the guest runs. Every walk ends after the levels that its mode has.
 *
 * TRANSLATIONS THAT ARE KEPT: while this context keeps the machine paused, and of memory that never changes (a dump; a
 * raw file that somebody still writes to is to be opened with `cache=0`), a thread remembers translations. What is
 * written through this context, microvmi_flush_translations(), a resume and a new memory map forget all of them, in
 * every thread. What others write into tables meanwhile is not seen before, as with pages that are kept; see
 * microvmi_pause(). Of a machine that runs no translation is believed: where remembered ones help, all their entries
 * are read again, with the data, and compared.
 *
 * Errors of all functions here: invalid context, invalid argument (NULL, struct_size, an address space that no processor
 * has), and those of the physical access; a virtual address without memory is not mapped, and the text has the level, the
 * entry and the reason.
 * ============================================================================================================= */

/* How virtual addresses are translated. New ways may come. */
enum microvmi_paging {
    MICROVMI_PAGING_OFF = 0,          /* virtual addresses are physical ones */
    MICROVMI_PAGING_X86_32 = 1,       /* 32-bit addresses, entries of 4 bytes, pages of 4 KiB and 4 MiB */
    MICROVMI_PAGING_X86_PAE = 2,      /* 32-bit addresses, entries of 8 bytes, pages of 4 KiB and 2 MiB */
    MICROVMI_PAGING_X86_4_LEVELS = 3, /* 48-bit addresses; pages of 4 KiB, 2 MiB and 1 GiB */
    MICROVMI_PAGING_X86_5_LEVELS = 4, /* 57-bit addresses; the same pages */
    MICROVMI_PAGING_AARCH64 = 5       /* AArch64, EL1 and EL0: pages of 4, 16 or 64 KiB, and blocks, as TCR_EL1 says */
};
typedef enum microvmi_paging microvmi_paging;

/* What an x86 processor does not have, or is switched off. None of them, 0, is right for who only knows a CR3. */
enum microvmi_paging_control {
    MICROVMI_PAGING_NO_LARGE_PAGES = 1,     /* CR4.PSE is off: MICROVMI_PAGING_X86_32 has pages of 4 KiB only */
    MICROVMI_PAGING_NO_EXECUTE_DISABLE = 2, /* EFER.NXE is off: bit 63 of an entry is reserved */
    MICROVMI_PAGING_NO_GIGABYTE_PAGES = 4   /* the processor has no pages of 1 GiB */
};
typedef enum microvmi_paging_control microvmi_paging_control;

/* An address space. Start from MICROVMI_ADDRESS_SPACE_INIT; the struct may grow. */
struct microvmi_address_space {
    uint32_t struct_size;   /* of the caller's struct, in bytes; where it is filled, out: how much was */
    uint32_t paging;        /* enum microvmi_paging */
    uint64_t base;          /* x86: CR3 as it is, PCID and bit 63 are left out; AArch64: TTBR0_EL1 */
    uint64_t upper_base;    /* AArch64: TTBR1_EL1; else 0 */
    uint64_t control;       /* x86: bits of enum microvmi_paging_control; AArch64: TCR_EL1 */
    uint32_t physical_bits; /* of physical addresses, 32 to 52: higher bits of an entry are reserved; 0: 52, or what
                               TCR_EL1 says */
    uint32_t reserved;      /* 0 */
};
typedef struct microvmi_address_space microvmi_address_space;
#define MICROVMI_ADDRESS_SPACE_INIT {sizeof(struct microvmi_address_space), 0, 0, 0, 0, 0, 0}

/*
 * What the tables of an address space allow, all levels together. What the processor or the kernel adds (SMEP, SMAP,
 * CR0.WP, protection keys, PAN, WXN) is not regarded, nor are dirty and accessed bits.
 */
enum microvmi_page_rights {
    MICROVMI_KERNEL_READ = 1,
    MICROVMI_KERNEL_WRITE = 2,
    MICROVMI_KERNEL_EXECUTE = 4,
    MICROVMI_USER_READ = 16,
    MICROVMI_USER_WRITE = 32,
    MICROVMI_USER_EXECUTE = 64
};
typedef enum microvmi_page_rights microvmi_page_rights;

/* Why a virtual address has no physical one. New reasons may come. */
enum microvmi_translation_failure {
    MICROVMI_TRANSLATION_OK = 0,
    MICROVMI_TRANSLATION_NOT_PRESENT = 1,      /* the entry says so; bits of it may be the guest's own (swap) */
    MICROVMI_TRANSLATION_RESERVED_BITS = 2,    /* the entry has a bit, or is of a type, that no processor takes here */
    MICROVMI_TRANSLATION_TABLE_NOT_MEMORY = 3, /* the entry, by its address, lies where the machine has no memory */
    MICROVMI_TRANSLATION_NOT_CANONICAL = 4     /* no tables have such an address */
};
typedef enum microvmi_translation_failure microvmi_translation_failure;

/* What became of a virtual address. Start from MICROVMI_TRANSLATION_INIT; the struct may grow. */
struct microvmi_translation {
    uint32_t struct_size;      /* in: of the caller's struct, in bytes; out: how much of it was filled */
    uint32_t failure;          /* enum microvmi_translation_failure; 0 if there is a physical address */
    uint64_t physical_address; /* MICROVMI_ADDRESS_UNKNOWN on failure; what is there need not be memory */
    uint64_t page_size;     /* of the page, in bytes; on failure: what the entry that is missing would cover, 0 for an
                                  address that is not canonical */
    uint32_t rights;        /* bits of enum microvmi_page_rights; on failure 0 */
    uint32_t level;         /* of the entry that ended the walk; 1: of the smallest pages; 0: there was none */
    uint64_t entry;         /* its value; 0 if it could not be read */
    uint64_t entry_address; /* its physical address; MICROVMI_ADDRESS_UNKNOWN where none was looked for */
};
typedef struct microvmi_translation microvmi_translation;
#define MICROVMI_TRANSLATION_INIT {sizeof(struct microvmi_translation), 0, 0, 0, 0, 0, 0, 0}

/* Virtual addresses that are mapped. This layout is final. */
struct microvmi_virtual_range {
    uint64_t start;            /* virtual address of the first byte */
    uint64_t size;             /* bytes, at least 1 */
    uint64_t physical_address; /* of the first byte; the others follow it */
    uint32_t rights;           /* bits of enum microvmi_page_rights */
    uint32_t page_size;        /* bytes; of all pages of the range; 0 for those of 4 GiB and more */
};
typedef struct microvmi_virtual_range microvmi_virtual_range;

/*
 * Store the address space that a vCPU works in, by its registers: its present mode and tables.
 *
 * vcpu: from 0 to microvmi_get_vcpu_count() - 1.
 * space: where to store it, with struct_size set. Untouched on failure.
 *
 * It is that of the moment: a machine that runs may be in another one already. Errors: invalid argument (no such vCPU),
 * not supported (this driver does not tell registers, or not those that say how addresses are translated), VM gone,
 * timeout.
 */
bool microvmi_get_address_space(void *context, uint16_t vcpu, struct microvmi_address_space *space);

/*
 * Of an x86 kernel that isolates its tables from its processes (KPTI) each process has two, in pages beside each other:
 * of one of them store the other, if that is one as well. One address space has all of the kernel, the other one the
 * way in.
 *
 * twin: where to store it, with struct_size set. Untouched on failure. May be `space`.
 *
 * Errors: not supported (there is no such twin, or another kind of paging).
 */
bool microvmi_get_twin_address_space(void *context, const struct microvmi_address_space *space,
                                     struct microvmi_address_space *twin);

/*
 * Translate one virtual address. No remembered translation is used.
 *
 * space: the address space; copied.
 * translation: where to store what became of it, with struct_size set. Filled on success, and on failure if the error is
 *   MICROVMI_ERROR_NOT_MAPPED; untouched otherwise.
 */
bool microvmi_translate_address(void *context, const struct microvmi_address_space *space, uint64_t virtual_address,
                                struct microvmi_translation *translation);

/*
 * Read virtual memory. The rules are those of microvmi_read_physical(), across pages: the valid prefix ends at the first
 * page that is not mapped, or whose physical memory does not exist. What the tables allow (rights) is not looked at.
 * A range does not go on at address 0 behind the last one.
 */
bool microvmi_read_virtual(void *context, const struct microvmi_address_space *space, uint64_t virtual_address,
                           uint8_t *buffer, size_t size, uint64_t *bytes_read);

/* The same; what is not mapped, or has no physical memory, is zeros. Errors: without not mapped. */
bool microvmi_read_virtual_padded(void *context, const struct microvmi_address_space *space, uint64_t virtual_address,
                                  uint8_t *buffer, size_t size, uint64_t *bytes_read);

/*
 * Write virtual memory, whatever its rights in the tables are. All pages are translated and checked first, as
 * microvmi_write_physical() checks: nothing is written unless all of them can be. size 0 is a success.
 * A write changes the tables if they lie there; its own translations are those from before.
 */
bool microvmi_write_virtual(void *context, const struct microvmi_address_space *space, uint64_t virtual_address,
                            const uint8_t *data, size_t size);

/*
 * Do many reads of one address space in as few system calls or trips to the hypervisor as can be: as
 * microvmi_read_physical_batch(), by `virtual_address` of the requests.
 */
bool microvmi_read_virtual_batch(void *context, const struct microvmi_address_space *space,
                                 struct microvmi_read_request *requests, size_t count);

/*
 * Store what an address space maps, ascending. Neighbours in virtual and in physical memory, of the same page size and with
 * the same rights, are one range, as large as it gets; entries that would be failures of microvmi_translate_address() map
 * nothing. The whole list, of a machine that is paused or of a dump:
 *
 *   uint64_t next = 0;
 *   do {
 *       if (!microvmi_get_virtual_map(vm, &space, &next, ranges, capacity, &count)) ...
 *       ... `count` ranges ...
 *   } while (next != 0);
 *
 * next: in: the virtual address to begin at; a range that holds it is told from there on. Out: where to go on, at a page
 *   that is mapped or may be; 0 if that was all. Untouched on failure.
 * ranges: room for `capacity` ranges, at least one. What they hold after a failure is not said.
 * count: where to store how many were filled. Untouched on failure.
 *
 * A table that is named again and again is not looked at again if little is mapped by it; nothing is kept from one call to
 * the next. Tables may be made so that there is hardly an end of what they name: one that names itself has all its entries
 * anew behind each of them, at every level. So a call looks at 16 million entries or a few more (128 MiB of tables), and
 * then ends early, with fewer ranges than there is room for, perhaps none, and a `next` that is not 0. Only the range that
 * such a call begins with may be cut there, and goes on in the next one.
 *
 * Without paging there is one range, from 0 to the end of physical addresses, which is memory in parts only. Addresses that
 * differ in a byte that is ignored (AArch64, TCR_EL1.TBI) are told once. Errors: with a table that is memory, but cannot be
 * read, I/O, VM gone or timeout, and no list; one that is no memory maps nothing.
 */
bool microvmi_get_virtual_map(void *context, const struct microvmi_address_space *space, uint64_t *next,
                              struct microvmi_virtual_range *ranges, size_t capacity, size_t *count);

/*
 * Forget all translations that are remembered of this context, in every thread: after somebody else wrote to tables of a
 * machine that this context keeps paused. Pages that are kept (see microvmi_pause()) stay. Errors: invalid context.
 */
bool microvmi_flush_translations(void *context);

/* ================================================================================================================
 * ABOUT THE MACHINE (since 0.5.0)
 * ============================================================================================================= */

/* What a range of memory is. New kinds may come: treat an unknown one as memory that exists. */
enum microvmi_memory_kind {
    MICROVMI_MEMORY_RAM = 1,   /* the machine's main memory */
    MICROVMI_MEMORY_ROM = 2,   /* exists, cannot be written */
    MICROVMI_MEMORY_DEVICE = 3 /* memory of a device, such as a video card's; may lie above the maximum address */
};
typedef enum microvmi_memory_kind microvmi_memory_kind;

/* A range of guest-physical memory that exists. This layout is final. */
struct microvmi_memory_range {
    uint64_t start;       /* guest-physical address of the first byte */
    uint64_t size;        /* bytes, at least 1 */
    uint32_t kind;        /* enum microvmi_memory_kind */
    uint32_t reserved[3]; /* 0 */
};
typedef struct microvmi_memory_range microvmi_memory_range;

/*
 * The ranges of memory that exist, in ascending order, not overlapping.
 *
 * ranges: room for `capacity` ranges; may be NULL when capacity is 0.
 * count: where to store how many ranges there are, which may be more than `capacity`: the first `capacity` are then
 *   stored, and a second call with more room gets them all. 0 on failure.
 *
 * Asks the hypervisor anew where that is possible. Errors: invalid argument (NULL), VM gone, timeout.
 */
bool microvmi_get_memory_map(void *context, struct microvmi_memory_range *ranges, size_t capacity, size_t *count);

/*
 * Store the number of vCPUs in *count. On failure it is untouched.
 * Errors: invalid argument (NULL), not supported (a raw memory image), VM gone, timeout.
 */
bool microvmi_get_vcpu_count(void *context, uint16_t *count);

/* What a context can. New bits may come. */
enum microvmi_ability {
    MICROVMI_CAN_READ = 1,              /* read memory; every context has it */
    MICROVMI_CAN_WRITE = 2,             /* write memory */
    MICROVMI_CAN_MAP = 4,               /* microvmi_map_physical(), of some of the memory at least */
    MICROVMI_CAN_MEMORY_MAP = 8,        /* tell the ranges that exist; else there is one, up to the maximum address */
    MICROVMI_CAN_PAUSE = 16,            /* pause and resume */
    MICROVMI_CAN_VCPU_COUNT = 32,       /* tell the number of vCPUs */
    MICROVMI_CAN_READ_REGISTERS = 64,   /* read registers, those of the first vCPU at least */
    MICROVMI_CAN_WRITE_REGISTERS = 128, /* write registers, some of the first vCPU's at least */
    MICROVMI_CAN_PAGE_ACCESS = 256,     /* microvmi_set_page_access() */
    MICROVMI_CAN_EVENTS = 512,          /* intercept events; see `answers` for the kinds */
    MICROVMI_CAN_VIRTUAL = 1024,        /* virtual memory, by the base of page tables: every context has it; by a vCPU
                                           where registers can be read as well */
    MICROVMI_CAN_SNAPSHOT = 2048        /* microvmi_snapshot(): whatever can be paused, or never runs, has it */
};
typedef enum microvmi_ability microvmi_ability;

/* Which breakpoints can be intercepted. */
enum microvmi_breakpoints {
    MICROVMI_BREAKPOINTS_OWN = 1,   /* address 0: every breakpoint instruction that the guest executes */
    MICROVMI_BREAKPOINTS_PLACED = 2 /* an address: one that the hypervisor places there */
};
typedef enum microvmi_breakpoints microvmi_breakpoints;

/* What a context can, for programs that choose. Start from MICROVMI_ABILITIES_INIT; the struct may grow. */
struct microvmi_abilities {
    uint32_t struct_size; /* in: of the caller's struct, in bytes; out: how much of it was filled */
    uint32_t breakpoints; /* bits of enum microvmi_breakpoints */
    uint64_t can;         /* bits of enum microvmi_ability */
    uint32_t answers[16]; /* by enum microvmi_event_kind: which of enum microvmi_reply_action an event of that kind can
                             be answered with, 1 << action each; 0 for a kind that cannot be intercepted */
    uint32_t flags[16];   /* by kind: which of enum microvmi_intercept_flag an intercept of it can have */
    uint32_t stands[16];  /* by kind: enum microvmi_stands, what stands at an event that waits for an answer */
};
typedef struct microvmi_abilities microvmi_abilities;
#define MICROVMI_ABILITIES_INIT {sizeof(struct microvmi_abilities), 0, 0, {0}, {0}, {0}}

/*
 * Store what this context can in *abilities, with struct_size set. It asks nobody and changes nothing; what a call of
 * that kind meets (rights, the state of the machine, what its processor has) is still told by the call.
 *
 * Untouched on failure. Errors: invalid argument (NULL, struct_size).
 */
bool microvmi_get_abilities(void *context, struct microvmi_abilities *abilities);

/* ================================================================================================================
 * MACHINES (since 0.5.0)
 *
 * Which machines there are, those included that cannot be opened, with the reason. docs/listing.md has what each driver
 * tells.
 * ============================================================================================================= */

/* What a machine does. New states may come. */
enum microvmi_machine_state {
    MICROVMI_STATE_UNKNOWN = 0, /* nobody could be asked without disturbing others, or nobody knew */
    MICROVMI_STATE_RUNNING = 1,
    MICROVMI_STATE_PAUSED = 2, /* it stands, and can be let run */
    MICROVMI_STATE_OTHER = 3   /* it sleeps, is being saved, its process is stopped: as `reason` says */
};
typedef enum microvmi_machine_state microvmi_machine_state;

/*
 * A machine. Start from MICROVMI_MACHINE_INIT; the struct may grow. Abilities are those of a context that `uri` opens, as far
 * as they can be told before, which MAP, PAGE_ACCESS and EVENTS cannot. Texts are UTF-8 and one line each: control characters
 * of names are escaped, and what is too long is cut. A driver that could ask nobody has one with neither name nor process,
 * and the reason.
 */
struct microvmi_machine {
    uint32_t struct_size; /* in: of the caller's struct, in bytes; out: how much of it was filled */
    uint32_t driver_type; /* enum DriverType */
    uint64_t process_id;  /* 0: none, or not known */
    uint32_t user_id;     /* who runs it; UINT32_MAX: not known */
    uint32_t state;       /* enum microvmi_machine_state */
    uint64_t memory;      /* bytes of RAM; 0: not known */
    uint32_t vcpus;       /* 0: not known */
    uint32_t abilities;   /* bits of enum microvmi_ability; 0: it cannot be opened at present */
    char driver[16];
    char name[128];   /* for people: what opens the machine is `uri` */
    char uuid[40];    /* "" if it is not known */
    char uri[512];    /* for microvmi_open(): opens this very machine; "": nothing does */
    char reason[256]; /* why it cannot be opened at present, or what of it cannot be had; "": nothing is in the way */
};
typedef struct microvmi_machine microvmi_machine;
#define MICROVMI_MACHINE_INIT {sizeof(struct microvmi_machine), 0, 0, 0, 0, 0, 0, 0, "", "", "", "", ""}

/*
 * List the machines that there are now. None of them is disturbed: a QEMU's monitor that another client holds is left alone,
 * nothing is stopped, nothing that runs is waited for. It takes a second at the most beside what looking through the
 * processes takes.
 *
 * driver: the name of a driver, or NULL for all of them. Some tell theirs only when they are named (fake), or have none to
 *   tell (dump, memflow). A driver whose hypervisor or library is not there adds nothing.
 * machines: room for `capacity` of them, each as large as struct_size of the first says, which alone has to be set; may be
 *   NULL when capacity is 0.
 * count: where to store how many there are, which may be more than `capacity`: the first `capacity` are then stored. The
 *   next call lists anew, and may find more. 0 on failure.
 *
 * Errors: invalid argument (NULL, struct_size, a name that is no UTF-8), driver unavailable (there is no such driver), I/O (no
 * descriptors left), and those of the start of the library.
 */
bool microvmi_list_vms(const char *driver, struct microvmi_machine *machines, size_t capacity, size_t *count);

/* ================================================================================================================
 * EVERY REGISTER OF A VCPU (since 0.5.0)
 *
 * struct Registers cannot grow, and its zeros do not tell whether a register is 0 or not known. struct
 * microvmi_vcpu_state has all that the hypervisor tells, by number, and says which that is: an unknown one is never a
 * silent 0. What a driver knows is said in docs/drivers/.
 * ============================================================================================================= */

/* The registers of an x86 vCPU by number. More may follow. Attributes of a segment are bits of its descriptor: type
 * 0-3, S 4, DPL 5-6, P 7, AVL 8, L 9, D/B 10, G 11; a segment that cannot be used is not present (P is 0). */
enum microvmi_x86_register {
    MICROVMI_X86_RAX = 0,
    MICROVMI_X86_RBX,
    MICROVMI_X86_RCX,
    MICROVMI_X86_RDX,
    MICROVMI_X86_RSI,
    MICROVMI_X86_RDI,
    MICROVMI_X86_RSP,
    MICROVMI_X86_RBP,
    MICROVMI_X86_R8,
    MICROVMI_X86_R9,
    MICROVMI_X86_R10,
    MICROVMI_X86_R11,
    MICROVMI_X86_R12,
    MICROVMI_X86_R13,
    MICROVMI_X86_R14,
    MICROVMI_X86_R15,
    MICROVMI_X86_RIP,
    MICROVMI_X86_RFLAGS,
    MICROVMI_X86_CR0,
    MICROVMI_X86_CR2,
    MICROVMI_X86_CR3,
    MICROVMI_X86_CR4,
    MICROVMI_X86_CR8, /* the task priority, 4 bits */
    MICROVMI_X86_DR0,
    MICROVMI_X86_DR1,
    MICROVMI_X86_DR2,
    MICROVMI_X86_DR3,
    MICROVMI_X86_DR6,
    MICROVMI_X86_DR7,
    MICROVMI_X86_XCR0,
    MICROVMI_X86_EFER,
    MICROVMI_X86_STAR,
    MICROVMI_X86_LSTAR,
    MICROVMI_X86_CSTAR,
    MICROVMI_X86_FMASK,
    MICROVMI_X86_KERNEL_GS_BASE, /* what SWAPGS exchanges with GS_BASE */
    MICROVMI_X86_SYSENTER_CS,
    MICROVMI_X86_SYSENTER_ESP,
    MICROVMI_X86_SYSENTER_EIP,
    MICROVMI_X86_TSC_AUX, /* 32 bits, what RDTSCP tells */
    MICROVMI_X86_APIC_BASE,
    MICROVMI_X86_CS_BASE, /* each segment: base, limit in bytes (32 bits), selector (16), attributes (12) */
    MICROVMI_X86_CS_LIMIT,
    MICROVMI_X86_CS_SELECTOR,
    MICROVMI_X86_CS_ATTRIBUTES,
    MICROVMI_X86_DS_BASE,
    MICROVMI_X86_DS_LIMIT,
    MICROVMI_X86_DS_SELECTOR,
    MICROVMI_X86_DS_ATTRIBUTES,
    MICROVMI_X86_ES_BASE,
    MICROVMI_X86_ES_LIMIT,
    MICROVMI_X86_ES_SELECTOR,
    MICROVMI_X86_ES_ATTRIBUTES,
    MICROVMI_X86_FS_BASE,
    MICROVMI_X86_FS_LIMIT,
    MICROVMI_X86_FS_SELECTOR,
    MICROVMI_X86_FS_ATTRIBUTES,
    MICROVMI_X86_GS_BASE,
    MICROVMI_X86_GS_LIMIT,
    MICROVMI_X86_GS_SELECTOR,
    MICROVMI_X86_GS_ATTRIBUTES,
    MICROVMI_X86_SS_BASE,
    MICROVMI_X86_SS_LIMIT,
    MICROVMI_X86_SS_SELECTOR,
    MICROVMI_X86_SS_ATTRIBUTES,
    MICROVMI_X86_TR_BASE,
    MICROVMI_X86_TR_LIMIT,
    MICROVMI_X86_TR_SELECTOR,
    MICROVMI_X86_TR_ATTRIBUTES,
    MICROVMI_X86_LDT_BASE,
    MICROVMI_X86_LDT_LIMIT,
    MICROVMI_X86_LDT_SELECTOR,
    MICROVMI_X86_LDT_ATTRIBUTES,
    MICROVMI_X86_GDT_BASE, /* the tables: base, limit in bytes (16 bits) */
    MICROVMI_X86_GDT_LIMIT,
    MICROVMI_X86_IDT_BASE,
    MICROVMI_X86_IDT_LIMIT
};
typedef enum microvmi_x86_register microvmi_x86_register;

/* The registers of an AArch64 vCPU by number. More may follow. */
enum microvmi_aarch64_register {
    MICROVMI_AARCH64_X0 = 0, /* as microvmi_aarch64_registers */
    MICROVMI_AARCH64_X1,
    MICROVMI_AARCH64_X2,
    MICROVMI_AARCH64_X3,
    MICROVMI_AARCH64_X4,
    MICROVMI_AARCH64_X5,
    MICROVMI_AARCH64_X6,
    MICROVMI_AARCH64_X7,
    MICROVMI_AARCH64_X8,
    MICROVMI_AARCH64_X9,
    MICROVMI_AARCH64_X10,
    MICROVMI_AARCH64_X11,
    MICROVMI_AARCH64_X12,
    MICROVMI_AARCH64_X13,
    MICROVMI_AARCH64_X14,
    MICROVMI_AARCH64_X15,
    MICROVMI_AARCH64_X16,
    MICROVMI_AARCH64_X17,
    MICROVMI_AARCH64_X18,
    MICROVMI_AARCH64_X19,
    MICROVMI_AARCH64_X20,
    MICROVMI_AARCH64_X21,
    MICROVMI_AARCH64_X22,
    MICROVMI_AARCH64_X23,
    MICROVMI_AARCH64_X24,
    MICROVMI_AARCH64_X25,
    MICROVMI_AARCH64_X26,
    MICROVMI_AARCH64_X27,
    MICROVMI_AARCH64_X28,
    MICROVMI_AARCH64_X29,
    MICROVMI_AARCH64_X30,
    MICROVMI_AARCH64_PC,
    MICROVMI_AARCH64_PSTATE,
    MICROVMI_AARCH64_SP_EL0,
    MICROVMI_AARCH64_SP_EL1,
    MICROVMI_AARCH64_TTBR0_EL1,
    MICROVMI_AARCH64_TTBR1_EL1,
    MICROVMI_AARCH64_TCR_EL1,
    MICROVMI_AARCH64_SCTLR_EL1,
    MICROVMI_AARCH64_MAIR_EL1,
    MICROVMI_AARCH64_VBAR_EL1,
    MICROVMI_AARCH64_ESR_EL1,
    MICROVMI_AARCH64_FAR_EL1,
    MICROVMI_AARCH64_ELR_EL1,
    MICROVMI_AARCH64_SPSR_EL1,
    MICROVMI_AARCH64_TPIDR_EL0,
    MICROVMI_AARCH64_TPIDR_EL1,
    MICROVMI_AARCH64_CONTEXTIDR_EL1,
    MICROVMI_AARCH64_MIDR_EL1,
    MICROVMI_AARCH64_ID_AA64MMFR0_EL1,
    MICROVMI_AARCH64_ACTLR_EL1, /* from here on there are those that microvmi_aarch64_registers has no room for */
    MICROVMI_AARCH64_AFSR0_EL1,
    MICROVMI_AARCH64_AFSR1_EL1,
    MICROVMI_AARCH64_AMAIR_EL1,
    MICROVMI_AARCH64_CNTKCTL_EL1,
    MICROVMI_AARCH64_CPACR_EL1,
    MICROVMI_AARCH64_MDSCR_EL1,
    MICROVMI_AARCH64_MPIDR_EL1,
    MICROVMI_AARCH64_PAR_EL1,
    MICROVMI_AARCH64_TPIDRRO_EL0,
    MICROVMI_AARCH64_FPCR,
    MICROVMI_AARCH64_FPSR,
    MICROVMI_AARCH64_ID_AA64MMFR1_EL1,
    MICROVMI_AARCH64_ID_AA64MMFR2_EL1,
    MICROVMI_AARCH64_ID_AA64PFR0_EL1,
    MICROVMI_AARCH64_ID_AA64PFR1_EL1,
    MICROVMI_AARCH64_SP_EL2,
    MICROVMI_AARCH64_ELR_EL2,
    MICROVMI_AARCH64_SPSR_EL2,
    MICROVMI_AARCH64_ESR_EL2,
    MICROVMI_AARCH64_FAR_EL2,
    MICROVMI_AARCH64_HCR_EL2,
    MICROVMI_AARCH64_SCTLR_EL2,
    MICROVMI_AARCH64_MAIR_EL2,
    MICROVMI_AARCH64_TCR_EL2,
    MICROVMI_AARCH64_TTBR0_EL2,
    MICROVMI_AARCH64_VBAR_EL2,
    MICROVMI_AARCH64_VTCR_EL2,
    MICROVMI_AARCH64_VTTBR_EL2,
    MICROVMI_AARCH64_TPIDR_EL2
};
typedef enum microvmi_aarch64_register microvmi_aarch64_register;

/*
 * What is known of one vCPU's registers. Start from MICROVMI_VCPU_STATE_INIT; the struct may grow. The value of a
 * register that is not known is 0, and its bit is not set: MICROVMI_IS_KNOWN(state, MICROVMI_X86_LSTAR) tells. Why QEMU
 * does not tell some, the log says (a warning), and the error of a call that needs them, in QEMU's own words.
 */
struct microvmi_vcpu_state {
    uint32_t struct_size;  /* in: of the caller's struct, in bytes; out: how much of it was filled */
    uint32_t vcpu;         /* whose they are; not looked at when they are written */
    uint32_t architecture; /* enum Registers_Tag: which numbers these are */
    uint32_t reserved;     /* 0 */
    uint64_t known[4];     /* register n: bit n % 64 of word n / 64 */
    uint64_t value[256];   /* by number */
};
typedef struct microvmi_vcpu_state microvmi_vcpu_state;
#define MICROVMI_VCPU_STATE_INIT {sizeof(struct microvmi_vcpu_state), 0, 0, 0, {0}, {0}}

/* Of a pointer to a state: whether register number n is known; and to say that its value is to be written. */
#define MICROVMI_IS_KNOWN(state, n) (((state)->known[(n) / 64] >> ((n) % 64) & 1) != 0)
#define MICROVMI_SET_KNOWN(state, n) ((state)->known[(n) / 64] |= UINT64_C(1) << ((n) % 64))

/*
 * Read all registers of all vCPUs in one go; on a machine that runs they do not belong together. A QEMU that runs is stopped
 * for a moment, which others see (STOP and RESUME).
 *
 * states: room for `capacity` of them, each as large as struct_size of the first says, which alone has to be set; may be
 *   NULL when capacity is 0. One of a vCPU of which nothing is known (it is offline, a dump does not have it) knows none.
 * count: where to store how many vCPUs there are, which may be more than `capacity`: the first `capacity` are then
 *   stored. 0 on failure.
 *
 * Errors: invalid argument (NULL, struct_size), not supported, VM gone, timeout.
 */
bool microvmi_read_vcpu_states(void *context, struct microvmi_vcpu_state *states, size_t capacity, size_t *count);

/*
 * Read all registers of one vCPU, from 0 to microvmi_get_vcpu_count() - 1, into *state, with struct_size set. A QEMU that
 * runs is stopped as for microvmi_read_vcpu_states().
 *
 * Untouched on failure. Errors: invalid argument (no such vCPU, NULL, struct_size), not supported (also: nothing is known
 * of this vCPU), VM gone, timeout.
 */
bool microvmi_read_vcpu_state(void *context, uint16_t vcpu, struct microvmi_vcpu_state *state);

/*
 * Write the registers of one vCPU that are known in *state, and no others. The vCPU has to be stopped, and no event of it
 * open. What was written is read back. It is all or nothing as far as a hypervisor lets that be told before.
 *
 * Errors: invalid argument (no such vCPU, NULL, struct_size, another architecture than the machine's, a number that is no
 * register's, a value that does not fit), not supported (the error names the registers that this hypervisor does not let
 * one write, docs/drivers/ has them; or it does not write registers, or not of a vCPU that runs), VM gone, timeout.
 */
bool microvmi_write_vcpu_state(void *context, uint16_t vcpu, const struct microvmi_vcpu_state *state);

/*
 * The name of a register, lower case ("lstar", "cs_base"), by the number that it has in an architecture (enum
 * Registers_Tag). NULL for a number that is none's. The string is the library's, and lives as long as the process.
 */
const char *microvmi_register_name(uint32_t architecture, uint32_t number);

/* ================================================================================================================
 * REGISTERS, PAGE ACCESSES AND EVENTS (since 0.5.0)
 *
 * An intercept stops a vCPU when the guest does something. microvmi_listen() hands out what it did, as an event, and what
 * stands (`stands` of the event: that vCPU alone, or the whole machine) does so until microvmi_reply_event(). The loop of a
 * program that watches CR3:
 *
 *   struct microvmi_intercept cr3 = MICROVMI_INTERCEPT_INIT;
 *   struct microvmi_event event = MICROVMI_EVENT_INIT;
 *   cr3.kind = MICROVMI_EVENT_CR;
 *   cr3.number = 3;
 *   if (!microvmi_toggle_intercept(vm, MICROVMI_ALL_VCPUS, &cr3, true)) ...
 *   while (running)
 *       if (microvmi_listen(vm, 1000, &event))
 *           microvmi_reply_event(vm, &event, NULL);
 *       else if (microvmi_last_error_code() != MICROVMI_ERROR_TIMEOUT) ...
 *
 * microvmi_destroy(), and the normal end of the process, switch off every intercept, give back page accesses and answer
 * what is open, so that the guest runs on as if nobody had listened. One thread may listen while others reply.
 *
 * CR3. An intercept without a flag tells changes of the address space, and that is the fast way: on QEMU the event comes
 * when the new value is loaded (CONTINUE is its only answer), and writes that change nothing (flushes, the two tables of one
 * process that page-table isolation goes between) are not told. MICROVMI_INTERCEPT_EVERY_WRITE tells every write before it
 * happens; only then DENY is possible. A hypervisor that tells every write in time anyway makes no difference between the
 * two. MICROVMI_INTERCEPT_OBSERVE stops nothing: what is told was done, and waits for no answer. docs/events.md has what
 * each way costs and cannot see, docs/drivers/ what undoes an intercept if the program is killed (SIGKILL).
 * ============================================================================================================= */

/* In place of a vCPU's number: every vCPU. */
#define MICROVMI_ALL_VCPUS 0xffff

/* Of an event: it is not told which vCPU did it. */
#define MICROVMI_VCPU_UNKNOWN 0xffff

/*
 * Write the registers of one vCPU, which has to be stopped: read them, change what is to be changed, write them.
 *
 * vcpu: from 0 to microvmi_get_vcpu_count() - 1.
 * registers: all of them, with the tag that microvmi_read_registers() gave. What a hypervisor does not let one change
 *   stays as it is; docs/drivers/ says what that is.
 *
 * While an event of the vCPU is open, hand the registers to microvmi_reply_event() instead.
 * Errors: invalid argument (no such vCPU, NULL, a tag that is unknown or of another architecture than the machine's), not
 * supported, VM gone, timeout.
 */
bool microvmi_write_registers(void *context, uint16_t vcpu, const struct Registers *registers);

/* How a guest may access a page, or tried to: a combination of bits. */
enum microvmi_page_access {
    MICROVMI_PAGE_ACCESS_NONE = 0,
    MICROVMI_PAGE_ACCESS_READ = 1,
    MICROVMI_PAGE_ACCESS_WRITE = 2,
    MICROVMI_PAGE_ACCESS_EXECUTE = 4,
    MICROVMI_PAGE_ACCESS_ALL = 7
};
typedef enum microvmi_page_access microvmi_page_access;

/*
 * Store how the guest may access the page that holds a guest-physical address, bits of enum microvmi_page_access, in
 * *access. On failure it is untouched. Errors: invalid argument (NULL), not mapped, not supported, VM gone.
 */
bool microvmi_get_page_access(void *context, uint64_t physical_address, uint32_t *access);

/*
 * Allow the guest some accesses to a page and no others; another one stops the vCPU once MICROVMI_EVENT_PAGE_ACCESS is
 * intercepted. The library's own reads and writes are not affected.
 *
 * access: bits of enum microvmi_page_access; processors do not have every combination.
 * Errors: invalid argument (unknown bits), not mapped, not supported (this hypervisor or processor), VM gone.
 */
bool microvmi_set_page_access(void *context, uint64_t physical_address, uint32_t access);

/* What a guest did. New kinds may come; they are only reported to who intercepts them. */
enum microvmi_event_kind {
    MICROVMI_EVENT_CR = 1,            /* it writes a control register */
    MICROVMI_EVENT_MSR = 2,           /* it writes a model-specific register */
    MICROVMI_EVENT_BREAKPOINT = 3,    /* it executes a breakpoint */
    MICROVMI_EVENT_PAGE_ACCESS = 4,   /* it accesses a page in a way that microvmi_set_page_access() took from it */
    MICROVMI_EVENT_SINGLE_STEP = 5,   /* it executed one instruction */
    MICROVMI_EVENT_VIRTUAL_ACCESS = 6 /* it accesses memory in a range of guest-virtual addresses; a read or a write is
                                         told when it was done, an execution before */
};
typedef enum microvmi_event_kind microvmi_event_kind;

/*
 * How an intercept works: a combination of bits. Which a kind can have is told by microvmi_get_abilities().
 *
 * EVERY_WRITE is for CR 3, OBSERVE for CR, see above; who observes, observes all vCPUs. HARDWARE is for a BREAKPOINT at an
 * address: the processor looks for it, so that no byte of the guest is changed while it is set. A processor has few of them.
 */
enum microvmi_intercept_flag {
    MICROVMI_INTERCEPT_NONE = 0,
    MICROVMI_INTERCEPT_EVERY_WRITE = 1, /* every write, before it happens */
    MICROVMI_INTERCEPT_OBSERVE = 2,     /* nothing stops */
    MICROVMI_INTERCEPT_HARDWARE = 4     /* nothing is written into the guest's memory */
};
typedef enum microvmi_intercept_flag microvmi_intercept_flag;

/* What the guest is to be stopped at. Start from MICROVMI_INTERCEPT_INIT; the struct may grow. */
struct microvmi_intercept {
    uint32_t struct_size; /* of the caller's struct, in bytes */
    uint32_t kind;        /* enum microvmi_event_kind */
    uint32_t number;      /* CR: 0, 3 or 4; MSR: its index; else 0 */
    uint32_t flags;       /* bits of enum microvmi_intercept_flag */
    uint64_t address;     /* BREAKPOINT: 0 for every breakpoint instruction of the guest, wherever it is; else the
                             guest-virtual address of one that the hypervisor places, unseen by the guest.
                             VIRTUAL_ACCESS: where the range begins, guest-virtual, in whichever address space the
                             vCPU is */
    uint64_t size;        /* VIRTUAL_ACCESS: of the range, in bytes; else 0 */
    uint32_t access;      /* VIRTUAL_ACCESS: what is told of, bits of enum microvmi_page_access; else 0 */
    uint32_t reserved;    /* 0 */
};
typedef struct microvmi_intercept microvmi_intercept;
#define MICROVMI_INTERCEPT_INIT {sizeof(struct microvmi_intercept), 0, 0, 0, 0, 0, 0, 0}

/* What stands still until an event is answered. New values may come. */
enum microvmi_stands {
    MICROVMI_STANDS_NOTHING = 0, /* the event waits for no answer: a reply to it is an invalid argument */
    MICROVMI_STANDS_VCPU = 1,    /* the vCPU that did it; the others run on */
    MICROVMI_STANDS_MACHINE = 2  /* all vCPUs, and the guest's clocks as far as the hypervisor stops them */
};
typedef enum microvmi_stands microvmi_stands;

/*
 * Something that a guest did. Start from MICROVMI_EVENT_INIT; the struct may grow.
 *
 * A vCPU goes on at the instruction that is about to do what is told, or behind the one that did. VIRTUAL_ACCESS: the
 * addresses are those of the access where the hypervisor tells it, else `virtual_address` is where the range begins; `access`
 * is what was done, or all that was asked for where it is not told which.
 */
struct microvmi_event {
    uint32_t struct_size;         /* in: of the caller's struct, in bytes; out: how much of it was filled */
    uint32_t kind;                /* enum microvmi_event_kind */
    uint64_t id;                  /* names the event for its reply; never used again by this context */
    uint32_t vcpu;                /* who did it; MICROVMI_VCPU_UNKNOWN where that is not told */
    uint32_t number;              /* CR, MSR: which one */
    uint64_t old_value;           /* CR, MSR: what it held, 0 where that is not told */
    uint64_t new_value;           /* CR, MSR: what is written, or was */
    uint64_t physical_address;    /* BREAKPOINT, SINGLE_STEP: of the instruction; accesses: of the memory */
    uint64_t virtual_address;     /* the same, guest-virtual; MICROVMI_ADDRESS_UNKNOWN where it is not told */
    uint32_t access;              /* PAGE_ACCESS: what was tried, bits of enum microvmi_page_access */
    uint32_t instruction_length;  /* of the instruction that did it, or is about to, in bytes; 0 where it is not told */
    uint64_t instruction_pointer; /* where the vCPU goes on; MICROVMI_ADDRESS_UNKNOWN where that is not told */
    uint32_t stands;              /* enum microvmi_stands: what stands until this event is answered */
    uint32_t reserved;            /* 0 */
    uint64_t lost; /* events of this intercept that were lost right before this one; only who observes loses any */
};
typedef struct microvmi_event microvmi_event;
#define MICROVMI_EVENT_INIT {sizeof(struct microvmi_event), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

/* An address that the hypervisor does not tell. */
#define MICROVMI_ADDRESS_UNKNOWN 0xffffffffffffffffu

/* What becomes of what the guest did. */
enum microvmi_reply_action {
    MICROVMI_REPLY_CONTINUE = 0, /* it takes its course: the register is written, the exception of a breakpoint is
                                    delivered, the access is done */
    MICROVMI_REPLY_RETRY = 1,    /* the vCPU goes on at its instruction pointer, and does it again unless that, or the
                                    cause, was changed */
    MICROVMI_REPLY_DENY = 2      /* CR, MSR: the register keeps its value, the guest goes on behind the instruction */
};
typedef enum microvmi_reply_action microvmi_reply_action;

/* The answer to an event. Start from MICROVMI_REPLY_INIT; the struct may grow. */
struct microvmi_reply {
    uint32_t struct_size;              /* of the caller's struct, in bytes */
    uint32_t action;                   /* enum microvmi_reply_action */
    const struct Registers *registers; /* NULL, or what the vCPU's registers become, as microvmi_write_registers() */
};
typedef struct microvmi_reply microvmi_reply;
#define MICROVMI_REPLY_INIT {sizeof(struct microvmi_reply), 0, NULL}

/*
 * Switch an intercept on or off. Switching it again to what it is is a success.
 *
 * vcpu: a vCPU's number, or MICROVMI_ALL_VCPUS.
 * intercept: what to stop at; copied.
 *
 * Intercepts that differ in any member are different ones; what one thing that the guest does makes of several of them is an
 * event each. Errors: invalid argument (NULL, an unknown kind or flag, no such vCPU or register, a member that the kind does
 * not have, a range that is empty or does not end), not supported (this driver, hypervisor or processor), driver unavailable
 * (somebody else listens to the machine, or has its debugger's stub), VM gone, timeout.
 */
bool microvmi_toggle_intercept(void *context, uint16_t vcpu, const struct microvmi_intercept *intercept, bool enabled);

/*
 * Wait for the next event.
 *
 * timeout_ms: the longest wait, in milliseconds; 0 looks only.
 * event: where to store it, with struct_size set. Untouched on failure.
 *
 * What stands until the event is answered is told by its `stands`. A microvmi_destroy() of the context ends the wait.
 * Errors: timeout (no event came), invalid argument (NULL, struct_size), invalid context (also: destroyed meanwhile),
 * not supported, VM gone.
 */
bool microvmi_listen(void *context, uint32_t timeout_ms, struct microvmi_event *event);

/*
 * Answer an event and let what stands by it go on.
 *
 * event: as microvmi_listen() stored it; only its id is looked at.
 * reply: what is to become of it; NULL stands for MICROVMI_REPLY_INIT, CONTINUE.
 *
 * Errors: invalid argument (NULL, an unknown action, an event that is not open any more or waits for no answer), not
 * supported (an action that this event, its kind or the hypervisor does not have: the event stays open), VM gone, timeout.
 */
bool microvmi_reply_event(void *context, const struct microvmi_event *event, const struct microvmi_reply *reply);

/* ================================================================================================================
 * SNAPSHOTS (since 0.5.0)
 *
 * What is read of a machine that runs is of as many moments as there are reads. A snapshot is a copy of one moment:
 * memory and the registers of all vCPUs. It is a context as any other, read-only and always paused, with virtual memory,
 * streams and memory without a copy; nothing of the machine is needed for it any more. docs/snapshots.md says more.
 * ============================================================================================================= */

/* How a snapshot may be taken, bits. */
enum microvmi_snapshot_flag {
    MICROVMI_SNAPSHOT_PAUSE_ONLY =
        1 /* the machine stands while all of it is copied, whatever else its hypervisor has */
};
typedef enum microvmi_snapshot_flag microvmi_snapshot_flag;

/* How a snapshot is to be taken. Start from MICROVMI_SNAPSHOT_OPTIONS_INIT; the struct may grow. */
struct microvmi_snapshot_options {
    uint32_t struct_size; /* of the caller's struct, in bytes */
    uint32_t flags;       /* bits of enum microvmi_snapshot_flag */
    uint64_t max_bytes;   /* what the copy may take of memory at any time; 0: as much as the machine's memory */
    uint32_t threads;     /* how many threads copy memory that is reached directly, up to 64; 0: as many as help */
    uint32_t timeout_ms;  /* how long all of it may take, in milliseconds; 0: as long as it takes */
    /*
     * NULL, or a function that is told how far it is, in bytes, some 20 times a second; false ends it. It is called on
     * the calling thread (a thread of the library's, while the caller waits, if that has too little stack). Where the
     * machine stands while it is copied it is called then as well, at least once: it may stand longer for it. `total`
     * may change. It may call the library, but not microvmi_destroy() for this context, and has to return.
     */
    bool (*progress)(void *opaque, uint64_t done, uint64_t total);
    void *opaque; /* handed to `progress` */
};
typedef struct microvmi_snapshot_options microvmi_snapshot_options;
#define MICROVMI_SNAPSHOT_OPTIONS_INIT {sizeof(struct microvmi_snapshot_options), 0, 0, 0, 0, NULL, NULL}

/*
 * Take a snapshot of a machine.
 *
 * options: how; NULL stands for MICROVMI_SNAPSHOT_OPTIONS_INIT. Copied.
 * error: as init_error of microvmi_init().
 *
 * Returns a context of its own, to be read by any thread and given to microvmi_destroy(), or NULL. It outlives `context`
 * and the machine. Memory is copied as far as it is not zero, into one file in memory without a name. The machine is left
 * as it was found: running, or standing if it stood, by this context's pause or for any other reason. How long it
 * stood is told by microvmi_get_snapshot_info(). Of a dump, or of a snapshot, one is taken without anything that stands.
 * On an error nothing is left. A microvmi_destroy() of `context` meanwhile ends it. A snapshot of
 * MICROVMI_SNAPSHOT_BACKGROUND is not interrupted: who ends it, or whose time is over, waits until its hypervisor, which
 * lets the machine run meanwhile, has written what it copies. MICROVMI_SNAPSHOT_PAUSE_ONLY is for who cannot wait. After
 * one that a QEMU took in the background, what its guest never touched is read and compared as zeros that are there, which
 * takes longer, and no longer passed over (docs/drivers/qemu.md).
 * Errors: invalid argument (struct_size, flags, threads), not supported (a machine that cannot be paused), cancelled,
 * timeout, I/O (no memory for it, more than max_bytes; the machine was let run by others meanwhile, or its memory map
 * changed again and again), and those of microvmi_pause(), microvmi_get_memory_map(), microvmi_read_physical() and
 * microvmi_read_vcpu_states().
 */
void *microvmi_snapshot(void *context, const struct microvmi_snapshot_options *options, const char **error);

/* How a snapshot was taken. More may come. */
enum microvmi_snapshot_method {
    MICROVMI_SNAPSHOT_PAUSED = 1,     /* the machine stood while it was copied */
    MICROVMI_SNAPSHOT_BACKGROUND = 2, /* by its hypervisor, which let it run and kept what was about to change */
    MICROVMI_SNAPSHOT_STATIC = 3      /* of a dump, or of a snapshot: nothing moves there */
};
typedef enum microvmi_snapshot_method microvmi_snapshot_method;

/* About a snapshot. Start from MICROVMI_SNAPSHOT_INFO_INIT; the struct may grow. */
struct microvmi_snapshot_info {
    uint32_t struct_size; /* in: of the caller's struct, in bytes; out: how much of it was filled */
    uint32_t method;      /* enum microvmi_snapshot_method */
    uint64_t stood_ns;    /* how long the machine was kept from running for it, at the most, in nanoseconds */
    uint64_t taken_at;    /* of which moment it is, in nanoseconds since 1970 by the host's clock */
    uint64_t data_bytes;  /* how much memory it takes: pages that are not zero */
};
typedef struct microvmi_snapshot_info microvmi_snapshot_info;
#define MICROVMI_SNAPSHOT_INFO_INIT {sizeof(struct microvmi_snapshot_info), 0, 0, 0, 0}

/*
 * Store what is known about a snapshot in *info, with struct_size set.
 *
 * Untouched on failure. Errors: invalid argument (NULL, struct_size), not supported (a context that is no snapshot).
 */
bool microvmi_get_snapshot_info(void *snapshot, struct microvmi_snapshot_info *info);

/*
 * Store the frames in which the memory of two contexts differs, as runs in ascending order: those in which a byte is not the
 * same, and those of which one of the two has bytes that the other has not. The contexts may be any: two pictures of a
 * machine, a picture and the machine, two dumps, also of different drivers. Call it until `next` is 0:
 *
 *   uint64_t next = 0;
 *   do {
 *       if (!microvmi_diff(older, newer, &next, ranges, capacity, &count)) ...
 *       ... `count` ranges ...
 *   } while (next != 0);
 *
 * older, newer: two contexts; the same one twice is allowed.
 * next: in: a guest-physical address in the frame to begin with. Out: the frame to go on with; 0 if that was all.
 * ranges: room for `capacity` ranges, at least one. They are of whole frames (start and size are multiples of 4096), also
 *   where memory begins or ends within a frame: read them padded. `kind` is the one in `newer` where it has the bytes that
 *   differ, else the one in `older`; neighbours of different kinds are two ranges.
 * count: where to store how many were filled.
 *
 * A call compares 256 MiB, or 16 MiB where memory is read frame by frame, and then ends early, with fewer ranges than there
 * is room for, perhaps none, and a `next` that is not 0: so a caller can tell how far it is, and give up. A run that such a
 * call ends with may go on in the next one. What both know to be zeros without a look (holes of a file, memory that a
 * process never touched) is passed over. A machine that runs changes meanwhile: a frame that the guest is writing may be told
 * or not. Kinds are not compared.
 *
 * Returns false if memory of one of them could not be read: what was found before is in `ranges` and `count`, and `next` is
 * the frame that could not be read. Errors: invalid context, invalid argument (NULL, no room; then *count is 0 and *next as
 * it was), VM gone, permission, I/O, timeout.
 */
bool microvmi_diff(void *older, void *newer, uint64_t *next, struct microvmi_memory_range *ranges, size_t capacity,
                   size_t *count);

/* ================================================================================================================
 * IMAGES (since 0.5.0)
 *
 * What is known about a file, or files, that a machine was opened from: docs/drivers/dump.md has the formats.
 * ============================================================================================================= */

/* How the memory of an image is reached. More may come. */
enum microvmi_image_access {
    MICROVMI_IMAGE_MAPPED = 1, /* it lies in files as it is, which are mapped */
    MICROVMI_IMAGE_CALLS = 2,  /* it lies in files as it is, which are read by system calls (mapped=no) */
    MICROVMI_IMAGE_PIECES = 3  /* page by page, or in larger pieces: each is looked up, and unpacked, when it is read */
};
typedef enum microvmi_image_access microvmi_image_access;

/*
 * About an image. Start from MICROVMI_IMAGE_INFO_INIT; the struct may grow. Pages have 4096 bytes; one that is there in part
 * counts. Texts are UTF-8, without control characters; those that are a list have a line for each of theirs, with \n between
 * two. What is too long is cut, which the counts tell.
 */
struct microvmi_image_info {
    uint32_t struct_size;   /* in: of the caller's struct, in bytes; out: how much of it was filled */
    uint32_t access;        /* enum microvmi_image_access */
    uint64_t pages_present; /* pages that are in the image */
    uint64_t pages_absent;  /* pages that are not, though it tells that the machine had them: they were left out when it
                                was written, or are missing; 0 as well where it tells nothing of others */
    uint64_t pages_zero;    /* those of pages_present that are zeros, of which it has no bytes; UINT64_MAX: it does not
                                tell them apart */
    uint32_t wrappers_count; /* how many lines the lists have */
    uint32_t files_count;
    uint32_t missing_count;
    uint32_t remarks_count;
    char format[32];    /* the format's name, as the parameter `format` has it */
    char wrappers[64];  /* a list: what was around it (gzip, ewf, ...), the outermost first */
    char producer[64];  /* what wrote it, in the image's words; "" if it does not tell */
    char machine[64];   /* the type of machine, in the image's words; "" if it does not tell */
    char files[1024];   /* a list: the paths of all files that belong to it, the one that was named first */
    char missing[1024]; /* a list: what should be in them and is not, and why; only with `partial=on` there is any, as
                           it is an error otherwise */
    char remarks[1024]; /* a list: what one should know of how it was opened */
};
typedef struct microvmi_image_info microvmi_image_info;
#define MICROVMI_IMAGE_INFO_INIT \
    {sizeof(struct microvmi_image_info), 0, 0, 0, 0, 0, 0, 0, 0, "", "", "", "", "", "", ""}

/*
 * Store what is known about the image that a context was opened from in *info, with struct_size set. Nothing is read for it.
 *
 * Untouched on failure. Errors: invalid argument (NULL, struct_size), not supported (a machine that is no image, a snapshot
 * of one included).
 */
bool microvmi_get_image_info(void *context, struct microvmi_image_info *info);

/* ================================================================================================================
 * A MACHINE AS A FILE (since 0.5.0)
 *
 * What `microvmi dump` writes. A file is of one moment, or torn: what refers to each other in it may not fit.
 * ============================================================================================================= */

/* The formats of files. More may come. */
enum microvmi_dump_format {
    MICROVMI_DUMP_BY_NAME = 0,    /* by the ending of `path` (.raw, .lime, .elf, .core, .kdump), else raw */
    MICROVMI_DUMP_RAW = 1,        /* byte N is the one at guest-physical address N, up to the maximum address */
    MICROVMI_DUMP_LIME = 2,       /* the ranges that exist up to there, each behind a header */
    MICROVMI_DUMP_ELF = 3,        /* a core: all memory, the registers of all vCPUs, VMCOREINFO of a Linux guest */
    MICROVMI_DUMP_KDUMP_ZLIB = 4, /* as makedumpfile -c: each page compressed, one for all zeros */
    MICROVMI_DUMP_KDUMP_ZSTD = 5  /* the same with zstd, which takes the system's library (libzstd.so.1) */
};
typedef enum microvmi_dump_format microvmi_dump_format;

/* How a file may be written, bits. */
enum microvmi_dump_flag {
    MICROVMI_DUMP_LIVE = 1,     /* the machine as it is, running or paused; no snapshot is taken */
    MICROVMI_DUMP_SNAPSHOT = 2, /* a snapshot, however long the machine stands for it; not with the one before */
    MICROVMI_DUMP_REPLACE = 4,  /* a file that is there, and what an earlier call left */
    MICROVMI_DUMP_RESUME = 8    /* go on with what an earlier call left, if it left any: see microvmi_dump() */
};
typedef enum microvmi_dump_flag microvmi_dump_flag;

/* How a file is to be written. Start from MICROVMI_DUMP_OPTIONS_INIT; the struct may grow. */
struct microvmi_dump_options {
    uint32_t struct_size; /* of the caller's struct, in bytes */
    uint32_t flags;       /* bits of enum microvmi_dump_flag */
    uint32_t format;      /* enum microvmi_dump_format */
    uint32_t timeout_ms;  /* how long all of it may take, in milliseconds; 0: as long as it takes */
    /* NULL, or a function that is told how far it is, first with a snapshot, then with the file, as that of struct
     * microvmi_snapshot_options; false ends it. */
    bool (*progress)(void *opaque, uint64_t done, uint64_t total);
    void *opaque; /* handed to `progress` */
};
typedef struct microvmi_dump_options microvmi_dump_options;
#define MICROVMI_DUMP_OPTIONS_INIT {sizeof(struct microvmi_dump_options), 0, 0, 0, NULL, NULL}

/* Of when a file is. */
enum microvmi_dump_moment {
    MICROVMI_DUMP_OF_STATIC = 1,   /* of a dump: nothing moves there */
    MICROVMI_DUMP_OF_SNAPSHOT = 2, /* of one moment */
    MICROVMI_DUMP_OF_LIVE = 3      /* of a machine that was read as it was: torn, if it ran */
};
typedef enum microvmi_dump_moment microvmi_dump_moment;

/* About a file that was written. Start from MICROVMI_DUMP_INFO_INIT; the struct may grow. */
struct microvmi_dump_info {
    uint32_t struct_size; /* in: of the caller's struct, in bytes; out: how much of it was filled */
    uint32_t moment;      /* enum microvmi_dump_moment */
    uint64_t file_bytes;  /* how large the file is, holes included */
    uint64_t data_bytes;  /* how much memory was written: pages that are not zeros */
};
typedef struct microvmi_dump_info microvmi_dump_info;
#define MICROVMI_DUMP_INFO_INIT {sizeof(struct microvmi_dump_info), 0, 0, 0}

/*
 * Write a machine into a file, which every program that reads dumps takes.
 *
 * path: the file; one that is there is an error without MICROVMI_DUMP_REPLACE. A pipe or a device is written into, zeros
 *     included; a kdump file is flattened there (makedumpfile -R makes it a file).
 * options: how; NULL stands for MICROVMI_DUMP_OPTIONS_INIT. Copied.
 * info: NULL, or a struct that is filled on success.
 *
 * Without MICROVMI_DUMP_LIVE or MICROVMI_DUMP_SNAPSHOT a snapshot is taken where the machine hardly stands for it: of up
 * to 512 MiB, or by its hypervisor while it runs, and for no more than half of the memory that is free here. Else it is
 * read as it is, and the log says why; info->moment tells. A dump is read as it is.
 * Until the file is whole it is called `path`.partial, readable for its owner alone. Of a snapshot, and of a kdump file,
 * an error leaves nothing. Of another file `path`.partial stays, and MICROVMI_DUMP_RESUME goes on with it, for the same
 * machine and format only; the rest is then of later moments. Pages of zeros take no room on disk.
 * A microvmi_destroy() of `context` meanwhile ends it. Errors: invalid argument (NULL, struct_size, flags, format, a file
 * that is there), driver unavailable (no libzstd), cancelled, timeout, permission, I/O (the file cannot be written), and
 * those of microvmi_snapshot() if one is asked for, microvmi_get_memory_map() and microvmi_read_physical().
 */
bool microvmi_dump(void *context, const char *path, const struct microvmi_dump_options *options,
                   struct microvmi_dump_info *info);

#ifdef __cplusplus
}
#endif

#endif /* LIBMICROVMI_H */
