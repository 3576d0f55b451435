/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the tiny guest (tiny.S) keeps what, and what its registers hold: for its assembly, its linker script, the C
 * checks and, as the module `layout`, the Python checks. Nothing but numbers.
 */
#ifndef XENLAB_LAYOUT_H
#define XENLAB_LAYOUT_H

/* Guest-physical addresses, which are its virtual ones too. */
#define CODE_ADDRESS 0x100000
#define PAGE_ADDRESS 0x110000     /* the page it shows: a text, then what follows */
#define COUNTER_ADDRESS 0x110100  /* 64 bits, one more each round */
#define SCRATCH_ADDRESS 0x110800  /* 64 bits that it never touches after the start */
#define SCRATCH_START 0x0f1e2d3c4b5a6978
#define TABLES_ADDRESS 0x111000   /* its page tables, a page each: two roots, one directory of pointers, one of pages */
#define OTHER_ROOT_ADDRESS 0x112000
#define PATTERN_ADDRESS 0x400000  /* each 8 bytes hold their own address */
#define PATTERN_SIZE 0x800000

/* General registers that keep their values from the start on. */
#define KNOWN_RBX 0xb0b1b2b3b4b5b6b7
#define KNOWN_RBP 0x5051525354555657
#define KNOWN_RSI 0x6061626364656667
#define KNOWN_RDI 0x7071727374757677
#define KNOWN_R8 0x0808080808080808
#define KNOWN_R9 0x0909090909090909
#define KNOWN_R10 0x1010101010101010
#define KNOWN_R11 0x1111111111111111
#define KNOWN_R12 0x1212121212121212
#define KNOWN_R13 0x1313131313131313
#define KNOWN_R14 0x1414141414141414
#define KNOWN_R15 0x1515151515151515

/* Model-specific registers: their numbers and what they hold. SYSENTER_CS changes each round. */
#define MSR_SYSENTER_CS 0x174
#define MSR_SYSENTER_ESP 0x175
#define MSR_SYSENTER_EIP 0x176
#define MSR_EFER 0xc0000080
#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define KNOWN_SYSENTER_ESP 0x00007e57
#define KNOWN_SYSENTER_EIP 0x0000e175
#define KNOWN_STAR 0x0023001000000000
#define KNOWN_LSTAR 0xffffffff81a0b000
#define KNOWN_EFER 0x501

/* Bits it flips each round. */
#define CR0_FLIP 0x8
#define CR4_FLIP 0x4

#endif
