# SPDX-License-Identifier: Apache-2.0
"""The interface of libkvmi 0.1 to 1.1: the functions that are used, and the layouts that they take.

Functions that not all versions have are declared as well; whether they are there shows when they are called.
"""

from __future__ import annotations

LIBRARIES = ("libkvmi.so", "libkvmi.so.1", "libkvmi.so.0")
"""File names of the library, the first that is there is taken."""

PATH_LIMIT = 107
"""Bytes of a socket's path; a longer one would be cut off silently."""

NAME_SIZE = 64
"""Bytes of a machine's name with its terminating zero."""

EVENT_CR, EVENT_MSR, EVENT_BREAKPOINT, EVENT_PF, EVENT_PAUSE_VCPU, EVENT_SINGLESTEP = 1, 2, 4, 6, 10, 11
EVENT_UNHOOK = 0
"""The only event that takes no answer."""

ACTION_CONTINUE, ACTION_RETRY = 0, 1

PF_REPLY_SIZE = 272
"""Bytes that follow an answer to a page fault; all zero: no content of the introspector's, no single-step."""

DECLARATIONS = """
struct kvm_regs {
    uint64_t rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags;
};
struct kvm_segment {
    uint64_t base; uint32_t limit; uint16_t selector;
    uint8_t type, present, dpl, db, s, l, g, avl, unusable, padding;
};
struct kvm_dtable { uint64_t base; uint16_t limit; uint16_t padding[3]; };
struct kvm_sregs {
    struct kvm_segment cs, ds, es, fs, gs, ss, tr, ldt;
    struct kvm_dtable gdt, idt;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base;
    uint64_t interrupt_bitmap[4];
};
struct kvm_msr_entry { uint32_t index, reserved; uint64_t data; };
struct kvm_msrs { uint32_t nmsrs, pad; struct kvm_msr_entry entries[9]; };

struct register_write { uint32_t number, padding; uint64_t old_value, new_value; };
struct breakpoint { uint64_t gpa; uint8_t length; uint8_t padding[7]; };
struct page_fault { uint64_t gva, gpa; uint8_t access, padding1; uint16_t view; uint32_t padding2; };
struct kvmi_dom_event {
    void *next;
    uint16_t size, vcpu; uint8_t event, padding1[3];
    uint8_t mode, padding2; uint16_t view; uint32_t padding3;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    uint64_t msrs[9];
    union { struct register_write write; struct breakpoint breakpoint; struct page_fault page_fault; } detail;
    unsigned char message[8184];
    unsigned int seq;
};

typedef int (*new_guest)(void *dom, unsigned char (*uuid)[16], void *context);
void *kvmi_init_unix_socket(const char *path, new_guest accept, void *handshake, void *context);
void kvmi_uninit(void *listener);
void kvmi_domain_close(void *dom, bool shut_down);
bool kvmi_domain_is_connected(const void *dom);
void kvmi_domain_name(const void *dom, char *name, size_t size);
int kvmi_connection_fd(const void *dom);
int kvmi_get_vcpu_count(void *dom, unsigned int *count);
int kvmi_get_maximum_gfn(void *dom, unsigned long long *gfn);
int kvmi_read_physical(void *dom, unsigned long long gpa, void *buffer, size_t size);
int kvmi_write_physical(void *dom, unsigned long long gpa, const void *buffer, size_t size);
int kvmi_get_registers(void *dom, unsigned short vcpu, struct kvm_regs *regs, struct kvm_sregs *sregs,
                       struct kvm_msrs *msrs, unsigned int *mode);
int kvmi_set_registers(void *dom, unsigned short vcpu, const struct kvm_regs *regs);
int kvmi_pause_all_vcpus(void *dom, unsigned int count);
int kvmi_set_page_access(void *dom, unsigned long long *gpa, unsigned char *access, unsigned short count,
                         unsigned short view);
int kvmi_control_events(void *dom, unsigned short vcpu, int id, bool enable);
int kvmi_control_cr(void *dom, unsigned short vcpu, unsigned int cr, bool enable);
int kvmi_control_msr(void *dom, unsigned short vcpu, unsigned int msr, bool enable);
int kvmi_control_singlestep(void *dom, unsigned short vcpu, bool enable);
int kvmi_wait_event(void *dom, int milliseconds);
int kvmi_pop_event(void *dom, struct kvmi_dom_event **event);
int kvmi_reply_event(void *dom, unsigned int seq, const void *data, size_t size);
void free(void *event);
"""
