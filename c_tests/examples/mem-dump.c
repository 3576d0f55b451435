/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem-dump: write a machine's physical memory to a file.
 *
 *   cc -o mem-dump mem-dump.c -lmicrovmi
 *   ./mem-dump -o debian.dump debian
 *
 * The offset in the file is the physical address. Holes in the guest's memory and blocks of zeros are holes in the
 * file. The machine is paused meanwhile if its driver can, and runs again afterwards, after Ctrl-C as well. The data
 * goes to a temporary file beside the output, which takes its name only when it is complete.
 */
#define _GNU_SOURCE /* SEEK_DATA, SEEK_HOLE */
#define _FILE_OFFSET_BITS 64

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ending.h"
#include "target.h"

#define PROGRAM "mem-dump"
#define PIECE ((size_t)4 << 20) /* bytes read in one call */
#define BLOCK ((size_t)PAGE_SIZE)
#define MIB (1024.0 * 1024.0)

struct dump {
    void *vm;
    int fd;
    const char *path; /* of the temporary file */
    uint8_t *buffer;  /* PIECE bytes */
    uint64_t total;   /* bytes that are to be read */
    uint64_t done;    /* of these, bytes that were tried */
    uint64_t missing; /* bytes that the map names, but that could not be read as no memory is there */
    uint64_t written; /* bytes that are not zeros */
    bool progress;
    struct timespec start;
    struct timespec shown;
};

static double seconds_since(const struct timespec *then)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - then->tv_sec) + (double)(now.tv_nsec - then->tv_nsec) / 1e9;
}

static void show_progress(struct dump *dump, bool last)
{
    double seconds = seconds_since(&dump->start);
    double percent = dump->total > 0 ? 100.0 * (double)dump->done / (double)dump->total : 100.0;

    if (!dump->progress || (!last && seconds_since(&dump->shown) < 0.2)) {
        return;
    }
    clock_gettime(CLOCK_MONOTONIC, &dump->shown);
    fprintf(stderr, "\r%3.0f %%  %8.0f MiB/s%s", percent, seconds > 0 ? (double)dump->done / MIB / seconds : 0.0,
            last ? "\n" : "");
}

static bool write_all(struct dump *dump, const uint8_t *data, size_t size, uint64_t offset)
{
    while (size > 0) {
        ssize_t count = pwrite(dump->fd, data, size, (off_t)offset);

        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count <= 0) {
            fprintf(stderr, PROGRAM ": %s: cannot write at offset 0x%" PRIx64 ": %s\n", dump->path, offset,
                    count < 0 ? strerror(errno) : "no space");
            return false;
        }
        data += count;
        size -= (size_t)count;
        offset += (uint64_t)count;
        dump->written += (uint64_t)count;
    }
    return true;
}

static bool is_zero(const uint8_t *data, size_t size)
{
    return data[0] == 0 && memcmp(data, data + 1, size - 1) == 0;
}

/* Write the blocks that are not zeros, neighbours in one go; the others stay holes in the file. */
static bool write_sparse(struct dump *dump, const uint8_t *data, size_t size, uint64_t address)
{
    size_t first = 0, at;

    for (at = 0; at < size; at += BLOCK) {
        size_t block = size - at < BLOCK ? size - at : BLOCK;

        if (!is_zero(data + at, block)) {
            continue;
        }
        if (at > first && !write_all(dump, data + first, at - first, address + first)) {
            return false;
        }
        first = at + block;
    }
    return first >= size || write_all(dump, data + first, size - first, address + first);
}

/*
 * Dump up to `size` bytes at `address`; *step is how far it got. The map may be older than the machine: a frame that
 * is not there any more is passed over.
 */
static bool dump_piece(struct dump *dump, uint64_t address, size_t size, uint64_t *step)
{
    uint64_t count = 0;

    if (!microvmi_read_physical(dump->vm, address, dump->buffer, size, &count)) {
        uint64_t frame_end = ((address + count) | (PAGE_SIZE - 1)) + 1;

        if (microvmi_last_error_code() != MICROVMI_ERROR_NOT_MAPPED) {
            fprintf(stderr, PROGRAM ": cannot read memory at 0x%" PRIx64 ": %s\n", address + count,
                    microvmi_last_error());
            return false;
        }
        *step = frame_end - address < size ? frame_end - address : size;
        dump->missing += *step - count;
    } else {
        *step = size;
    }
    return write_sparse(dump, dump->buffer, (size_t)count, address);
}

/*
 * Where data begins, or the next hole, at or after an address and before `end`. Holes are memory that the guest never
 * touched: a dump of a large idle machine is quick. The padded cursor, which nothing else here uses, is moved there.
 */
static uint64_t next_edge(void *vm, uint64_t address, int whence, uint64_t end)
{
    uint64_t edge;

    if (!microvmi_padded_seek(vm, (int64_t)address, whence, &edge)) {
        return whence == SEEK_DATA ? address : end;
    }
    if (edge <= address && whence == SEEK_HOLE) {
        return end; /* memory that does not exist: let the read say so */
    }
    return edge < end ? edge : end;
}

static bool dump_range(struct dump *dump, uint64_t start, uint64_t end)
{
    while (start < end && ending_signal() == 0) {
        uint64_t data = next_edge(dump->vm, start, SEEK_DATA, end);
        uint64_t step = data - start;

        if (step == 0) {
            uint64_t size = next_edge(dump->vm, start, SEEK_HOLE, end) - start;

            if (!dump_piece(dump, start, size < PIECE ? (size_t)size : PIECE, &step)) {
                return false;
            }
        }
        start += step;
        dump->done += step;
        show_progress(dump, false);
    }
    return ending_signal() == 0;
}

/*
 * The ranges of memory below the maximum address, without those of devices: reading these may wake the device.
 * Returns an array for free() and its length, or NULL after it printed the reason.
 */
static struct microvmi_memory_range *memory_ranges(void *vm, uint64_t max_address, size_t *kept)
{
    struct microvmi_memory_range *ranges = NULL, *more;
    size_t capacity = 0, count = 64, i;

    while (count > capacity) {
        capacity = count;
        more = realloc(ranges, capacity * sizeof(*ranges));
        if (more == NULL || !microvmi_get_memory_map(vm, more, capacity, &count)) {
            fprintf(stderr, PROGRAM ": cannot get the memory map: %s\n",
                    more == NULL ? "out of memory" : microvmi_last_error());
            free(more != NULL ? more : ranges);
            return NULL;
        }
        ranges = more;
    }
    for (*kept = i = 0; i < count; i++) {
        if (ranges[i].kind == MICROVMI_MEMORY_DEVICE || ranges[i].start >= max_address) {
            continue;
        }
        if (ranges[i].size > max_address - ranges[i].start) {
            ranges[i].size = max_address - ranges[i].start;
        }
        ranges[(*kept)++] = ranges[i];
    }
    return ranges;
}

static bool dump_ranges(struct dump *dump, uint64_t max_address)
{
    size_t count = 0, i;
    struct microvmi_memory_range *ranges = memory_ranges(dump->vm, max_address, &count);
    bool ok = ranges != NULL;

    for (i = 0; ok && i < count; i++) {
        dump->total += ranges[i].size;
    }
    for (i = 0; ok && i < count; i++) {
        ok = dump_range(dump, ranges[i].start, ranges[i].start + ranges[i].size);
    }
    free(ranges);
    return ok;
}

/* Dump everything into dump->fd. The machine is paused when this returns true or false: the caller destroys it. */
static bool dump_machine(struct dump *dump)
{
    uint64_t max_address;

    pause_if_possible(PROGRAM, dump->vm);
    if (!microvmi_get_max_physical_addr(dump->vm, &max_address)) {
        fprintf(stderr, PROGRAM ": cannot get the maximum address: %s\n", microvmi_last_error());
        return false;
    }
    clock_gettime(CLOCK_MONOTONIC, &dump->start);
    dump->shown = dump->start;
    if (!dump_ranges(dump, max_address)) {
        if (dump->progress) {
            fputc('\n', stderr);
        }
        return false;
    }
    show_progress(dump, true);
    if (ftruncate(dump->fd, (off_t)max_address) != 0) {
        fprintf(stderr, PROGRAM ": %s: cannot set the size to 0x%" PRIx64 ": %s\n", dump->path, max_address,
                strerror(errno));
        return false;
    }
    return true;
}

static void summary(const struct dump *dump, const char *output)
{
    fprintf(stderr, "%s: %.1f MiB of memory, %.1f MiB not zero, %.2f s\n", output, (double)dump->done / MIB,
            (double)dump->written / MIB, seconds_since(&dump->start));
    if (dump->missing > 0) {
        fprintf(stderr, PROGRAM ": warning: %" PRIu64 " bytes that the memory map names do not exist\n", dump->missing);
    }
}

/* Give the complete file its name. */
static bool finish(const struct dump *dump, const char *output)
{
    if (close(dump->fd) != 0 || rename(dump->path, output) != 0) {
        fprintf(stderr, PROGRAM ": %s: cannot finish: %s\n", output, strerror(errno));
        return false;
    }
    return true;
}

/* Create the temporary file, readable by its owner only: a dump holds every secret of the guest. */
static bool create_temporary(struct dump *dump, char *path, const char *output)
{
    struct stat status;

    if (lstat(output, &status) == 0 && !S_ISREG(status.st_mode)) {
        fprintf(stderr, PROGRAM ": %s: exists and is not a regular file\n", output);
        return false;
    }
    dump->fd = mkstemp(path);
    if (dump->fd < 0) {
        fprintf(stderr, PROGRAM ": %s: cannot create: %s\n", path, strerror(errno));
    }
    dump->path = path;
    return dump->fd >= 0;
}

static int run(const char *target, const char *output, bool quiet)
{
    struct dump dump = {.fd = -1, .progress = !quiet && isatty(STDERR_FILENO)};
    char *path = malloc(strlen(output) + sizeof(".XXXXXX"));
    bool ok;

    dump.buffer = malloc(PIECE);
    if (path == NULL || dump.buffer == NULL) {
        fputs(PROGRAM ": out of memory\n", stderr);
        free(dump.buffer);
        free(path);
        return 1;
    }
    strcpy(path, output);
    strcat(path, ".XXXXXX");
    dump.vm = open_target(PROGRAM, target);
    ok = dump.vm != NULL && create_temporary(&dump, path, output) && dump_machine(&dump);
    microvmi_destroy(dump.vm); /* the machine runs again */
    if (ok && (ok = finish(&dump, output)) && !quiet) {
        summary(&dump, output);
    }
    if (!ok && dump.fd >= 0) {
        unlink(path);
    }
    free(dump.buffer);
    free(path);
    return ending_signal() != 0 ? 128 + ending_signal() : !ok;
}

static int usage(FILE *stream, int status)
{
    fputs("usage: mem-dump [-o FILE] [-q] TARGET\n"
          "Write the physical memory of a machine to FILE (memory.dump): offset = address, holes are sparse.\n"
          "  -o FILE  the output\n"
          "  -q       no progress and no summary\n" TARGET_HELP,
          stream);
    return status;
}

int main(int argc, char **argv)
{
    const char *output = "memory.dump";
    bool quiet = false;
    int option;

    while ((option = getopt(argc, argv, "o:qh")) != -1) {
        switch (option) {
        case 'o':
            output = optarg;
            break;
        case 'q':
            quiet = true;
            break;
        case 'h':
            return usage(stdout, 0);
        default:
            return usage(stderr, 2);
        }
    }
    if (argc - optind != 1 || output[0] == '\0') {
        return usage(stderr, 2);
    }
    block_ending_signals();
    return run(argv[optind], output, quiet);
}
