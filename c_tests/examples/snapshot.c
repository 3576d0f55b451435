/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot: memory and registers of a machine that runs, of one moment.
 *
 *   cc -o snapshot snapshot.c -lmicrovmi
 *   ./snapshot debian ./debian.raw
 *
 * Takes a snapshot, tells how long the machine stood still for it and where its vCPUs were, and writes its memory to FILE
 * if there is one: byte N of the file is guest-physical address N, what is zero is a hole. The machine has gone on long
 * before. Ctrl-C, SIGTERM and SIGHUP end it and leave the machine as it was found.
 */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#include "ending.h"
#include "target.h"

#define PROGRAM "snapshot"
#define PIECE ((size_t)1 << 20)
#define DATA 3 /* SEEK_DATA and SEEK_HOLE, as microvmi_seek() takes them */
#define HOLE 4

/* Called by the library while it copies, on this thread: false ends it. */
static bool on_progress(void *quiet, uint64_t done, uint64_t total)
{
    if (quiet == NULL && total > 0) {
        fprintf(stderr, "\r%3" PRIu64 " %%%s", done / (total / 100 + 1) + (done == total), done == total ? "\n" : "");
    }
    return ending_signal() == 0;
}

static void *take(void *vm, const char *target, struct microvmi_snapshot_options *options)
{
    const char *error = NULL;
    void *snapshot = microvmi_snapshot(vm, options, &error);

    if (snapshot == NULL) {
        fprintf(stderr, PROGRAM ": no snapshot of %s: %s\n", target, error != NULL ? error : "no reason given");
    }
    rs_cstring_free((char *)error);
    return snapshot;
}

static const char *name_of(uint32_t method)
{
    switch (method) {
    case MICROVMI_SNAPSHOT_PAUSED:
        return "paused";
    case MICROVMI_SNAPSHOT_BACKGROUND:
        return "background";
    case MICROVMI_SNAPSHOT_STATIC:
        return "static";
    default:
        return "in a way that is newer than this program";
    }
}

static void tell(void *snapshot)
{
    struct microvmi_snapshot_info info = MICROVMI_SNAPSHOT_INFO_INIT;
    struct Registers registers;
    uint16_t count = 0, vcpu;

    if (microvmi_get_snapshot_info(snapshot, &info)) {
        printf("%s, stood still %.3f ms, %.1f MiB of data\n", name_of(info.method), (double)info.stood_ns / 1e6,
               (double)info.data_bytes / (1 << 20));
    }
    if (!microvmi_get_vcpu_count(snapshot, &count)) {
        return;
    }
    for (vcpu = 0; vcpu < count; vcpu++) {
        if (microvmi_read_registers(snapshot, vcpu, &registers) && registers.tag == X86) {
            printf("vCPU %u at %#" PRIx64 "\n", vcpu, registers.x86.rip);
        }
    }
}

static bool write_all(int file, const uint8_t *bytes, size_t size, uint64_t place)
{
    ssize_t count;

    for (; size > 0; bytes += count, size -= (size_t)count, place += (uint64_t)count) {
        count = pwrite(file, bytes, size, (off_t)place);
        if (count < 0) {
            return false;
        }
    }
    return true;
}

/* Write what is not zero; holes of the memory and of the snapshot become holes of the file. */
static bool write_memory(void *snapshot, int file)
{
    uint8_t *buffer = malloc(PIECE);
    uint64_t end = 0, at = 0, hole, count;
    bool good = buffer != NULL && microvmi_get_max_physical_addr(snapshot, &end) && ftruncate(file, (off_t)end) == 0;

    while (good && ending_signal() == 0 && microvmi_padded_seek(snapshot, (int64_t)at, DATA, &at) && at < end) {
        good = microvmi_padded_seek(snapshot, (int64_t)at, HOLE, &hole);
        while (good && at < hole && ending_signal() == 0) {
            count = hole - at < PIECE ? hole - at : PIECE;
            good = microvmi_read_physical_padded(snapshot, at, buffer, (size_t)count, NULL) &&
                   write_all(file, buffer, (size_t)count, at);
            at += count;
        }
    }
    free(buffer);
    return good;
}

static int save(void *snapshot, const char *path)
{
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    bool good = file >= 0 && write_memory(snapshot, file);

    if (!good) {
        fprintf(stderr, PROGRAM ": %s: %s\n", path,
                microvmi_last_error_code() != MICROVMI_OK ? microvmi_last_error() : strerror(errno));
    }
    if (file >= 0 && close(file) != 0) {
        good = false;
    }
    return good ? 0 : 1;
}

static int run(const char *target, const char *path, struct microvmi_snapshot_options *options)
{
    void *vm = open_target(PROGRAM, target), *snapshot;
    int status = 0;

    if (vm == NULL) {
        return 1;
    }
    snapshot = take(vm, target, options);
    microvmi_destroy(vm); /* it is not needed any more */
    if (snapshot == NULL) {
        return ending_signal() != 0 ? 128 + ending_signal() : 1;
    }
    tell(snapshot);
    if (path != NULL) {
        status = save(snapshot, path);
    }
    microvmi_destroy(snapshot);
    return ending_signal() != 0 ? 128 + ending_signal() : status;
}

static int usage(FILE *stream, int status)
{
    fputs("usage: snapshot [-p] [-q] [-m MIB] TARGET [FILE]\n"
          "Take a snapshot of a machine that runs, and write its memory to FILE.\n"
          "  -p      pause the machine while it is copied, whatever else its hypervisor can\n"
          "  -q      do not tell how far it is\n"
          "  -m MIB  the copy may take so much memory, and no more\n" TARGET_HELP,
          stream);
    return status;
}

int main(int argc, char **argv)
{
    struct microvmi_snapshot_options options = MICROVMI_SNAPSHOT_OPTIONS_INIT;
    static char quiet;
    char *end;
    int option;

    options.progress = on_progress;
    while ((option = getopt(argc, argv, "pqm:h")) != -1) {
        switch (option) {
        case 'p':
            options.flags |= MICROVMI_SNAPSHOT_PAUSE_ONLY;
            break;
        case 'q':
            options.opaque = &quiet;
            break;
        case 'm':
            options.max_bytes = (uint64_t)strtoul(optarg, &end, 10) << 20;
            if (end == optarg || *end != '\0' || options.max_bytes == 0) {
                fprintf(stderr, PROGRAM ": %s: not a number of MiB\n", optarg);
                return usage(stderr, 2);
            }
            break;
        case 'h':
            return usage(stdout, 0);
        default:
            return usage(stderr, 2);
        }
    }
    if (argc - optind != 1 && argc - optind != 2) {
        return usage(stderr, 2);
    }
    block_ending_signals();
    return run(argv[optind], argc - optind == 2 ? argv[optind + 1] : NULL, &options);
}
