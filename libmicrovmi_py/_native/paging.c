/* SPDX-License-Identifier: Apache-2.0 */
/* Making address spaces ready for walks, and walks whose entries somebody else reads; the rules are in paging.h. */
#include "paging.h"

#include <string.h>

/* Bits from `low` to `high`; none if `high` is lower. */
static uint64_t mvi_bits(unsigned low, unsigned high)
{
    return high < low ? 0 : (UINT64_MAX >> (63 - high)) >> low << low;
}

/* ------------------------------------------------------------------------------------------------ x86 ------------ */

/* Bit 5 is reserved as well, but QEMU's own emulation marks these entries there as used, as it does all others. */
#define MVI_PDPTE_RESERVED (mvi_bits(1, 2) | mvi_bits(6, 8) | UINT64_C(1) << 63)

/* The lower half, and of long modes the upper one, which has the same tables. */
static void mvi_x86_halves(struct mvi_space *space, struct mvi_half half, bool two)
{
    space->halves[0] = half;
    if (two)
        space->halves[1] = half;
}

static void mvi_prepare_x86_32(struct mvi_space *space, unsigned physical_bits)
{
    struct mvi_half half = {
        .root = space->given.base & mvi_bits(12, 31),
        .frame_bits = mvi_bits(12, 31),
        .levels = 2,
        .address_bits = 32,
        .page_shift = 12,
        .level_bits = 10,
        .top_bits = 10,
    };

    space->entry_size = 4;
    space->large_bit = (space->given.control & MICROVMI_PAGING_NO_LARGE_PAGES) != 0 ? 0 : 0x80;
    half.reserved_large[1] = UINT64_C(1) << 21 | mvi_bits(physical_bits < 40 ? physical_bits - 19 : 21, 20);
    mvi_x86_halves(space, half, false);
}

static uint64_t mvi_no_execute_reserved(const struct mvi_space *space)
{
    return (space->given.control & MICROVMI_PAGING_NO_EXECUTE_DISABLE) != 0 ? UINT64_C(1) << 63 : 0;
}

static void mvi_prepare_x86_pae(struct mvi_space *space, unsigned physical_bits)
{
    uint64_t reserved = mvi_bits(physical_bits, 62) | mvi_no_execute_reserved(space);
    struct mvi_half half = {
        .root = space->given.base & mvi_bits(5, 31),
        .frame_bits = mvi_bits(12, 51),
        .levels = 3,
        .address_bits = 32,
        .page_shift = 12,
        .level_bits = 9,
        .top_bits = 2,
        .reserved = {reserved, reserved, reserved | MVI_PDPTE_RESERVED},
        .reserved_large = {0, reserved | mvi_bits(13, 20), UINT64_MAX},
    };

    space->entry_size = 8;
    space->large_bit = 0x80;
    mvi_x86_halves(space, half, false);
}

static void mvi_prepare_x86_long(struct mvi_space *space, unsigned physical_bits, unsigned levels)
{
    uint64_t reserved = mvi_bits(physical_bits, 51) | mvi_no_execute_reserved(space);
    bool gigabytes = (space->given.control & MICROVMI_PAGING_NO_GIGABYTE_PAGES) == 0;
    struct mvi_half half = {
        .root = space->given.base & mvi_bits(12, 51),
        .frame_bits = mvi_bits(12, 51),
        .levels = levels,
        .address_bits = 12 + 9 * levels - 1,
        .page_shift = 12,
        .level_bits = 9,
        .top_bits = 9,
        .reserved = {reserved, reserved, reserved, reserved, reserved},
        .reserved_large = {0, reserved | mvi_bits(13, 20), gigabytes ? reserved | mvi_bits(13, 29) : UINT64_MAX,
                           UINT64_MAX, UINT64_MAX},
    };

    space->entry_size = 8;
    space->large_bit = 0x80;
    mvi_x86_halves(space, half, true);
}

static const char *mvi_prepare_x86(struct mvi_space *space)
{
    unsigned physical_bits = space->given.physical_bits != 0 ? space->given.physical_bits : 52;

    if (space->given.control >> 3 != 0)
        return "control has bits that are not of enum microvmi_paging_control";
    if (space->given.upper_base != 0)
        return "upper_base is not 0, but x86 has one base";
    space->choosing_bit = 63;
    if (space->given.paging == MICROVMI_PAGING_X86_32)
        mvi_prepare_x86_32(space, physical_bits);
    else if (space->given.paging == MICROVMI_PAGING_X86_PAE)
        mvi_prepare_x86_pae(space, physical_bits);
    else
        mvi_prepare_x86_long(space, physical_bits, space->given.paging == MICROVMI_PAGING_X86_4_LEVELS ? 4 : 5);
    return NULL;
}

/* ------------------------------------------------------------------------------------------------ AArch64 -------- */

#define MVI_TCR(space, bit, width) ((unsigned)((space)->given.control >> (bit)) & ((1u << (width)) - 1))

/* The logarithm of the size of a page, by TG0 and TG1; 0: reserved. */
static const uint8_t mvi_granules[2][4] = {{12, 16, 14, 0}, {0, 14, 12, 16}};

/* The bits of physical addresses, by IPS; there is nothing beyond 52. */
static const uint8_t mvi_sizes[8] = {32, 36, 40, 42, 44, 48, 52, 52};

static unsigned mvi_aarch64_physical_bits(const struct mvi_space *space, unsigned granule)
{
    unsigned bits = mvi_sizes[MVI_TCR(space, 32, 3)], given = space->given.physical_bits;

    if (granule != 16 && bits > 48)
        bits = 48;
    return given != 0 && given < bits ? given : bits;
}

static void mvi_aarch64_entries(struct mvi_half *half, unsigned physical_bits)
{
    unsigned level, largest = half->page_shift == 12 || half->far ? 3 : 2;
    uint64_t reserved = mvi_bits(physical_bits, 47);

    half->frame_bits = mvi_bits(half->page_shift, 47);
    for (level = 1; level <= MVI_LEVELS; level++) {
        half->reserved[level - 1] = reserved;
        half->reserved_large[level - 1] = level > 1 && level <= largest ? reserved : UINT64_MAX;
    }
}

/* Where a half's tables are: the base is aligned to the size of the highest one. */
static uint64_t mvi_aarch64_root(const struct mvi_half *half, uint64_t base)
{
    unsigned shift = half->top_bits + 3 > 6 || !half->far ? half->top_bits + 3 : 6;
    uint64_t root = base & mvi_bits(shift, 47);

    return half->far ? (root & ~mvi_bits(0, 5)) | (base >> 2 & 15) << 48 : root;
}

static const char *mvi_prepare_aarch64_half(struct mvi_space *space, unsigned which)
{
    struct mvi_half *half = &space->halves[which];
    unsigned granule = mvi_granules[which][MVI_TCR(space, which ? 30 : 14, 2)], size = MVI_TCR(space, which * 16, 6);
    unsigned bits = 64 - size, physical_bits;
    bool known;

    half->ignored_bits = MVI_TCR(space, 37 + which, 1) != 0 ? 8 : 0;
    half->closed = MVI_TCR(space, which ? 23 : 7, 1) != 0;
    known = bits <= (granule == 16 ? 52 : 48) && bits >= 16 && bits > granule;
    if (half->closed && (granule == 0 || !known))
        return NULL; /* whoever uses one half leaves anything in the fields of the other: there is none */
    if (granule == 0)
        return "control is a TCR_EL1 whose size of pages is reserved";
    if (!known)
        return "control is a TCR_EL1 whose size of addresses (T0SZ, T1SZ) is none that is known";
    physical_bits = mvi_aarch64_physical_bits(space, granule);
    half->far = physical_bits == 52;
    half->plain = MVI_TCR(space, 41 + which, 1) != 0;
    half->address_bits = bits;
    half->page_shift = granule;
    half->level_bits = granule - 3;
    half->levels = (bits - granule + half->level_bits - 1) / half->level_bits;
    half->top_bits = bits - granule - (half->levels - 1) * half->level_bits;
    mvi_aarch64_entries(half, physical_bits);
    half->root = mvi_aarch64_root(half, which ? space->given.upper_base : space->given.base);
    return NULL;
}

static const char *mvi_prepare_aarch64(struct mvi_space *space)
{
    const char *wrong;

    if (MVI_TCR(space, 59, 1) != 0)
        return "control is a TCR_EL1 with DS, addresses of 52 bits with small pages, which is not known";
    space->choosing_bit = 55;
    space->entry_size = 8;
    space->aarch64 = true;
    space->dirty = MVI_TCR(space, 39, 2) == 3; /* HD, which counts together with HA */
    wrong = mvi_prepare_aarch64_half(space, 0);
    return wrong != NULL ? wrong : mvi_prepare_aarch64_half(space, 1);
}

/* ------------------------------------------------------------------------------------------------ spaces --------- */

const char *mvi_space_prepare(struct mvi_space *space, const struct microvmi_address_space *given)
{
    memset(space, 0, sizeof *space);
    space->given = *given;
    if (given->reserved != 0)
        return "reserved is not 0: start from MICROVMI_ADDRESS_SPACE_INIT";
    if (given->physical_bits != 0 && (given->physical_bits < 32 || given->physical_bits > 52))
        return "physical_bits is neither 0 nor from 32 to 52";
    switch (given->paging) {
    case MICROVMI_PAGING_OFF:
        space->off = true;
        return NULL;
    case MICROVMI_PAGING_X86_32:
    case MICROVMI_PAGING_X86_PAE:
    case MICROVMI_PAGING_X86_4_LEVELS:
    case MICROVMI_PAGING_X86_5_LEVELS:
        return mvi_prepare_x86(space);
    case MICROVMI_PAGING_AARCH64:
        return mvi_prepare_aarch64(space);
    default:
        return "paging is none of enum microvmi_paging";
    }
}

uint64_t mvi_space_reach(const struct mvi_space *space, uint64_t address)
{
    const struct mvi_half *upper = &space->halves[1];
    uint64_t start = upper->levels != 0 ? UINT64_MAX << upper->address_bits : 0;

    if (space->off)
        return UINT64_MAX - address;
    if (space->halves[0].ignored_bits != 0 || upper->ignored_bits != 0)
        return (PAGE_SIZE - 1) - (address & (PAGE_SIZE - 1));
    return start - 1 - address;
}

/* ------------------------------------------------------------------------------------------------ walks ---------- */

void mvi_walk_nowhere(const struct mvi_space *space, struct mvi_walk *walk)
{
    unsigned which = (unsigned)(walk->virtual_address >> space->choosing_bit) & 1;

    walk->address = space->off ? walk->virtual_address : MICROVMI_ADDRESS_UNKNOWN;
    walk->rights = space->off ? MVI_ALL_RIGHTS : 0;
    walk->failure = space->off ? MICROVMI_TRANSLATION_OK : MICROVMI_TRANSLATION_NOT_CANONICAL;
    if (mvi_is_canonical(&space->halves[which], which, walk->virtual_address)) {
        walk->failure = MICROVMI_TRANSLATION_NOT_PRESENT;
        walk->half = which;
        walk->level = space->halves[which].levels;
    }
}

void mvi_walk_refuse(struct mvi_walk *walk)
{
    walk->failure = MICROVMI_TRANSLATION_TABLE_NOT_MEMORY;
    walk->entry = 0;
    walk->rights = 0;
}

void mvi_walk_tell(const struct mvi_space *space, const struct mvi_walk *walk, struct microvmi_translation *translation)
{
    const struct mvi_half *half = &space->halves[walk->half];

    *translation = (struct microvmi_translation){
        .struct_size = sizeof *translation,
        .failure = walk->failure,
        .physical_address = walk->address,
        .page_size = walk->level != 0 ? UINT64_C(1) << mvi_level_shift(half, walk->level)
                     : space->off     ? PAGE_SIZE
                                      : 0,
        .rights = walk->rights,
        .level = walk->level,
        .entry = walk->entry,
        .entry_address = walk->entry_address,
    };
}
