/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What frames seem to hold; see content.h. These are guesses, made for a picture of millions of frames: each looks for
 * what is typical, and none takes a frame apart. The loops are plain, so that the compiler makes vectors of them.
 */
#include "internal.h"

#include "content.h"

#include <string.h>

#define WORDS (PAGE_SIZE / 8)
#define LEAST_TEXT 64     /* bytes that are not zero */
#define LEAST_X86_CODE 48 /* instructions that are recognised: one in 20 of a page of code */
#define SAMPLE_STEP 8     /* every eighth byte, and not the same one of each word */
#define SAMPLES (PAGE_SIZE / SAMPLE_STEP)
#define MOST_REPEATED 2300 /* sum of the squares of how often each value is there; 1534 expected of random bytes */

/* What is counted of a frame. */
struct counts {
    unsigned filled, words, pointers, text; /* bytes and words that are not zero, and what those seem to be */
};

/* Whether a word is a kernel's address, or one of a program: of the upper part of what it has. */
static unsigned is_pointer(uint64_t word)
{
    bool kernel = word >= 0xffff800000000000u && word < 0xfffffffffffff000u; /* above are error numbers */
    bool user = word - 0x500000000000u < 0xb00000000000u;

    return kernel | user;
}

static void count_words(const uint8_t *page, struct counts *counts)
{
    unsigned words = 0, pointers = 0, index;
    uint64_t word;

    for (index = 0; index < WORDS; index++) {
        memcpy(&word, page + (size_t)index * 8, 8);
        words += word != 0;
        pointers += is_pointer(word);
    }
    counts->words = words;
    counts->pointers = pointers;
}

/* Bytes in pieces whose counts fit into a byte. */
static void count_bytes(const uint8_t *page, struct counts *counts)
{
    unsigned piece, index;

    counts->filled = counts->text = 0;
    for (piece = 0; piece < PAGE_SIZE; piece += 128) {
        uint8_t filled = 0, text = 0, byte;

        for (index = 0; index < 128; index++) {
            byte = page[piece + index];
            filled += byte != 0;
            text += ((uint8_t)(byte - ' ') < 0x5f) | ((uint8_t)(byte - '\t') < 5);
        }
        counts->filled += filled;
        counts->text += text;
    }
}

/* Instructions of 64-bit x86 by their two first bytes (REX.W and what moves, adds or compares), calls nearby, and
 * what compilers put between functions. */
static unsigned count_x86(const uint8_t *page)
{
    unsigned found = 0, piece, index;

    for (piece = 0; piece + 128 < PAGE_SIZE; piece += 128) {
        const uint8_t *at = page + piece;
        uint8_t here = 0;

        for (index = 0; index < 128; index++) {
            uint8_t first = at[index], second = at[index + 1], fifth = at[index + 4];
            uint8_t move = ((second & 0xfc) == 0x88) | (second == 0x8d) | (second == 0x83) | (second == 0x85);
            uint8_t other = (second == 0xc7) | (second == 0x39) | (second == 0x01) | (second == 0x29);
            uint8_t call = (first == 0xe8) & ((uint8_t)(fifth + 1) < 2);
            uint8_t filling = (first == 0xcc) & (second == 0xcc);

            here += (((first & 0xfa) == 0x48) & (move | other)) | call | filling;
        }
        found += here;
    }
    return found;
}

/* Whether four bytes may be a common instruction of AArch64: by the highest of them. */
static unsigned is_aarch64(uint32_t word)
{
    unsigned top = word >> 24;
    unsigned branch = ((top & 0x7c) == 0x14) | (top == 0x54) | ((top & 0x7c) == 0x34);
    unsigned memory = ((top & 0xfe) == 0xa8) | ((top & 0xbe) == 0xb8) | (top == 0x39);
    unsigned number = ((top & 0x1f) == 0x11) | ((top & 0x7f) == 0x52) | ((top & 0x7f) == 0x2a) | ((top & 0x9f) == 0x90);

    return branch | memory | number | (top == 0xd6) | (top == 0xd5) | ((top & 0x7f) == 0x6b);
}

static unsigned count_aarch64(const uint8_t *page)
{
    unsigned found = 0, index;
    uint32_t word;

    for (index = 0; index < PAGE_SIZE; index += 4) {
        memcpy(&word, page + index, 4);
        found += is_aarch64(word);
    }
    return found;
}

static bool is_code(const uint8_t *page, bool aarch64, unsigned filled)
{
    if (aarch64)
        return filled > PAGE_SIZE / 4 && count_aarch64(page) > PAGE_SIZE / 4 * 6 / 10;
    return count_x86(page) >= LEAST_X86_CODE;
}

/* Whether no value is much more frequent than others, as in what is compressed or encrypted. */
static bool is_random(const uint8_t *page)
{
    uint16_t times[256] = {0};
    unsigned index, repeated = 0;

    for (index = 0; index < SAMPLES; index++)
        times[page[index * SAMPLE_STEP + index / 8 % SAMPLE_STEP]]++;
    for (index = 0; index < 256; index++)
        repeated += (unsigned)times[index] * times[index];
    return repeated < MOST_REPEATED;
}

static uint8_t content_of(const uint8_t *page, bool aarch64)
{
    struct counts counts;

    if (page[0] == 0 && memcmp(page, page + 1, PAGE_SIZE - 1) == 0)
        return MVI_CONTENT_ZERO;
    count_words(page, &counts);
    if (counts.pointers != 0 && counts.pointers * 4 >= counts.words)
        return MVI_CONTENT_POINTERS;
    count_bytes(page, &counts);
    if (counts.filled >= LEAST_TEXT && counts.text * 10 >= counts.filled * 9)
        return MVI_CONTENT_TEXT;
    if (is_code(page, aarch64, counts.filled))
        return MVI_CONTENT_CODE;
    return is_random(page) ? MVI_CONTENT_RANDOM : MVI_CONTENT_DATA;
}

void mvi_contents(const uint8_t *bytes, size_t count, bool aarch64, uint8_t *contents)
{
    size_t index;

    for (index = 0; index < count; index++)
        contents[index] = content_of(bytes + index * PAGE_SIZE, aarch64);
}
