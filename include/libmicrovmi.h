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
 *   signalfd, and calls microvmi_release_all(). After SIGKILL nobody lets the machine run but its user.
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
 * the hypervisor does not tell is 0. No driver of this version has such machines, but one from elsewhere may. Since 0.5.0.
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
 * microvmi_pause() or microvmi_get_memory_map(). Pages of a packed dump are kept from the opening on.
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
 * Errors: not mapped (a hole, or beyond the machine's memory), VM gone, permission, I/O (a file that became shorter, or
 * memory that has not arrived).
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
    MICROVMI_ERROR_INTERNAL = 14           /* a defect of the library */
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
 *                                       kvm_unix_socket, memflow_connector_name and memflow_connector_args are known.
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
    uint64_t physical_address; /* in: as in microvmi_read_physical() */
    uint8_t *buffer;           /* in: at least `size` bytes */
    size_t size;               /* in: bytes, up to PTRDIFF_MAX */
    uint64_t bytes_read;       /* out: the length of the valid prefix */
    int32_t error;             /* out: enum microvmi_error, 0 when all bytes were read */
    uint32_t reserved;         /* not used */
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
    MICROVMI_CAN_EVENTS = 512           /* intercept events; see `answers` for the kinds */
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
};
typedef struct microvmi_abilities microvmi_abilities;
#define MICROVMI_ABILITIES_INIT {sizeof(struct microvmi_abilities), 0, 0, {0}}

/*
 * Store what this context can in *abilities, with struct_size set. It asks nobody and changes nothing; what a call of
 * that kind meets (rights, the state of the machine, what its processor has) is still told by the call.
 *
 * Untouched on failure. Errors: invalid argument (NULL, struct_size).
 */
bool microvmi_get_abilities(void *context, struct microvmi_abilities *abilities);

/* ================================================================================================================
 * REGISTERS, PAGE ACCESSES AND EVENTS (since 0.5.0)
 *
 * An intercept stops a vCPU when the guest does something. microvmi_listen() hands out what it did, as an event, and the
 * vCPU stands still until microvmi_reply_event(). The loop of a program that watches CR3:
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
 * ============================================================================================================= */

/* In place of a vCPU's number: every vCPU. */
#define MICROVMI_ALL_VCPUS 0xffff

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
    MICROVMI_EVENT_CR = 1,          /* it writes a control register */
    MICROVMI_EVENT_MSR = 2,         /* it writes a model-specific register */
    MICROVMI_EVENT_BREAKPOINT = 3,  /* it executes a breakpoint */
    MICROVMI_EVENT_PAGE_ACCESS = 4, /* it accesses a page in a way that microvmi_set_page_access() took from it */
    MICROVMI_EVENT_SINGLE_STEP = 5  /* it executed one instruction */
};
typedef enum microvmi_event_kind microvmi_event_kind;

/* What the guest is to be stopped at. Start from MICROVMI_INTERCEPT_INIT; the struct may grow. */
struct microvmi_intercept {
    uint32_t struct_size; /* of the caller's struct, in bytes */
    uint32_t kind;        /* enum microvmi_event_kind */
    uint32_t number;      /* CR: 0, 3 or 4; MSR: its index; else 0 */
    uint32_t reserved;    /* 0 */
    uint64_t address;     /* BREAKPOINT: 0 for every breakpoint instruction of the guest, wherever it is; else the
                             guest-virtual address of one that the hypervisor places, unseen by the guest */
};
typedef struct microvmi_intercept microvmi_intercept;
#define MICROVMI_INTERCEPT_INIT {sizeof(struct microvmi_intercept), 0, 0, 0, 0}

/* Something that a guest did. Start from MICROVMI_EVENT_INIT; the struct may grow. */
struct microvmi_event {
    uint32_t struct_size;        /* in: of the caller's struct, in bytes; out: how much of it was filled */
    uint32_t kind;               /* enum microvmi_event_kind */
    uint64_t id;                 /* names the event for its reply; never used again by this context */
    uint32_t vcpu;               /* who did it, and is stopped */
    uint32_t number;             /* CR, MSR: which one */
    uint64_t old_value;          /* CR, MSR: what it held, 0 where that is not told */
    uint64_t new_value;          /* CR, MSR: what is written */
    uint64_t physical_address;   /* BREAKPOINT, SINGLE_STEP: of the instruction; PAGE_ACCESS: of the memory */
    uint64_t virtual_address;    /* the same, guest-virtual; MICROVMI_ADDRESS_UNKNOWN where it is not told */
    uint32_t access;             /* PAGE_ACCESS: what was tried, bits of enum microvmi_page_access */
    uint32_t instruction_length; /* BREAKPOINT: in bytes, 0 where it is not told */
};
typedef struct microvmi_event microvmi_event;
#define MICROVMI_EVENT_INIT {sizeof(struct microvmi_event), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

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
 * Errors: invalid argument (NULL, an unknown kind, no such vCPU or register), not supported (this driver, hypervisor or
 * processor), driver unavailable (somebody else listens to the machine), VM gone, timeout.
 */
bool microvmi_toggle_intercept(void *context, uint16_t vcpu, const struct microvmi_intercept *intercept, bool enabled);

/*
 * Wait for the next event.
 *
 * timeout_ms: the longest wait, in milliseconds; 0 looks only.
 * event: where to store it, with struct_size set. Untouched on failure.
 *
 * The vCPU is stopped until the event is answered; the others run on. A microvmi_destroy() of the context ends the wait.
 * Errors: timeout (no event came), invalid argument (NULL, struct_size), invalid context (also: destroyed meanwhile),
 * not supported, VM gone.
 */
bool microvmi_listen(void *context, uint32_t timeout_ms, struct microvmi_event *event);

/*
 * Answer an event and let its vCPU go on.
 *
 * event: as microvmi_listen() stored it; only its id is looked at.
 * reply: what is to become of it; NULL stands for MICROVMI_REPLY_INIT, CONTINUE.
 *
 * Errors: invalid argument (NULL, an unknown action, an event that is not open any more), not supported (an action that
 * this kind of event, or the hypervisor, does not have: the event stays open), VM gone, timeout.
 */
bool microvmi_reply_event(void *context, const struct microvmi_event *event, const struct microvmi_reply *reply);

#ifdef __cplusplus
}
#endif

#endif /* LIBMICROVMI_H */
