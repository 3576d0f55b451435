/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A PVH guest of one page of code. It fills a pattern, sets registers that a check can know, and then goes round: it
 * counts, and writes CR3, CR0, CR4 and an MSR, and executes a breakpoint. layout.h says where everything is.
 */
#include "layout.h"

#define PRESENT_WRITABLE 0x3
#define LARGE_PAGE 0x83
#define ENTRIES 512
#define CODE_SELECTOR 8
#define DATA_SELECTOR 16
#define BREAKPOINT_VECTOR 3
#define REST 400000

        .section .note.pvh, "a", @note
        .align 4
        .long 4, 4, 18                  /* length of name, of value; XEN_ELFNOTE_PHYS32_ENTRY */
        .asciz "Xen"
        .long entry

        .text
        .code32
        .globl entry
entry:
        cld
        movl $stack_end, %esp
        call map_memory
        call enter_long_mode
        lgdt gdt_pointer
        ljmp $CODE_SELECTOR, $in_long_mode

/* The first GiB, where it is, in pages of 2 MiB; both roots are the same but for their addresses. */
map_memory:
        movl $(pointers + PRESENT_WRITABLE), root
        movl $(pointers + PRESENT_WRITABLE), other_root
        movl $(pages + PRESENT_WRITABLE), pointers
        movl $LARGE_PAGE, %eax
        movl $pages, %edi
        movl $ENTRIES, %ecx
1:      movl %eax, (%edi)
        addl $0x200000, %eax
        addl $8, %edi
        loop 1b
        ret

enter_long_mode:
        movl $root, %eax
        movl %eax, %cr3
        movl %cr4, %eax
        orl $0x20, %eax                 /* PAE */
        movl %eax, %cr4
        movl $MSR_EFER, %ecx
        rdmsr
        orl $0x101, %eax                /* LME, SCE */
        wrmsr
        movl %cr0, %eax
        orl $0x80000001, %eax           /* PG, PE */
        movl %eax, %cr0
        ret

        .code64
        .macro set_msr number, value
        movl $\number, %ecx
        movl $(\value & 0xffffffff), %eax
        movl $(\value >> 32 & 0xffffffff), %edx
        wrmsr
        .endm

in_long_mode:
        movl $DATA_SELECTOR, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        call handle_breakpoints
        call fill_pattern
        set_msr MSR_STAR, KNOWN_STAR
        set_msr MSR_LSTAR, KNOWN_LSTAR
        set_msr MSR_SYSENTER_ESP, KNOWN_SYSENTER_ESP
        set_msr MSR_SYSENTER_EIP, KNOWN_SYSENTER_EIP
        movabsq $KNOWN_RBX, %rbx
        movabsq $KNOWN_RBP, %rbp
        movabsq $KNOWN_RSI, %rsi
        movabsq $KNOWN_RDI, %rdi
        movabsq $KNOWN_R8, %r8
        movabsq $KNOWN_R9, %r9
        movabsq $KNOWN_R10, %r10
        movabsq $KNOWN_R11, %r11
        movabsq $KNOWN_R12, %r12
        movabsq $KNOWN_R13, %r13
        movabsq $KNOWN_R14, %r14
        movabsq $KNOWN_R15, %r15

round:
        incq counter
        movq $other_root, %rax
        movq %rax, %cr3
        movq $root, %rax
        movq %rax, %cr3
        movq %cr0, %rax
        xorq $CR0_FLIP, %rax
        movq %rax, %cr0
        movq %cr4, %rax
        xorq $CR4_FLIP, %rax
        movq %rax, %cr4
        movl $MSR_SYSENTER_CS, %ecx
        movzwl counter, %eax
        xorl %edx, %edx
        wrmsr
        int3
        movl $REST, %ecx
1:      loop 1b
        jmp round

handle_breakpoints:
        movl $after_breakpoint, %eax
        movw %ax, idt + BREAKPOINT_VECTOR * 16
        movw $CODE_SELECTOR, idt + BREAKPOINT_VECTOR * 16 + 2
        movw $0x8e00, idt + BREAKPOINT_VECTOR * 16 + 4
        shrl $16, %eax
        movw %ax, idt + BREAKPOINT_VECTOR * 16 + 6
        lidt idt_pointer
        ret

fill_pattern:
        movl $PATTERN_ADDRESS, %edi
        movl $(PATTERN_SIZE / 8), %ecx
1:      movq %rdi, (%rdi)
        addq $8, %rdi
        loop 1b
        ret

after_breakpoint:
        iretq

        .align 8
gdt:    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
        .word . - gdt - 1
        .long gdt
        .align 8
idt_pointer:
        .word 32 * 16 - 1
        .quad idt

        .section .page, "aw"
        .asciz "libmicrovmi: the tiny guest's page"
        .org COUNTER_ADDRESS - PAGE_ADDRESS
counter:
        .quad 0
        .org SCRATCH_ADDRESS - PAGE_ADDRESS
        .quad SCRATCH_START

        .section .tables, "aw", @nobits
root:   .skip 4096
other_root:
        .skip 4096
pointers:
        .skip 4096
pages:  .skip 4096
idt:    .skip 4096
        .skip 4096
stack_end:

        .section .note.GNU-stack, "", @progbits
