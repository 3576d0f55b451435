/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The library as a test program reaches it. Linked, the functions are the header's. Compiled with -DBY_DLOPEN the same
 * names call what use_library() took from dlopen(RTLD_LOCAL), as ctypes, JNA, LuaJIT, Ruby and Node do.
 */
#ifndef C_TESTS_API_H
#define C_TESTS_API_H

#include <dlfcn.h>

#include <libmicrovmi.h>

#include "check.h"

#ifdef BY_DLOPEN

/* clang-format off */
#define FUNCTIONS(X) \
    X(microvmi_init) X(microvmi_open) X(microvmi_destroy) X(microvmi_pause) X(microvmi_resume) \
    X(microvmi_read_physical) X(microvmi_get_max_physical_addr) X(microvmi_get_driver_type) X(rs_cstring_free) \
    X(microvmi_version) X(microvmi_build_info) X(microvmi_last_error) X(microvmi_last_error_code) \
    X(microvmi_get_driver_name) X(microvmi_envlogger_init)
/* clang-format on */

#define DECLARE(name) static __typeof__(&name) api_##name;
FUNCTIONS(DECLARE)

#define LOAD(name) \
    *(void **)&api_##name = dlsym(library, #name); \
    CHECK_SAYS(api_##name != NULL, "no %s in the library", #name);

static inline void *use_library(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    CHECK_SAYS(library != NULL, "dlopen: %s", dlerror());
    FUNCTIONS(LOAD)
    return library;
}

#define microvmi_init api_microvmi_init
#define microvmi_open api_microvmi_open
#define microvmi_destroy api_microvmi_destroy
#define microvmi_pause api_microvmi_pause
#define microvmi_resume api_microvmi_resume
#define microvmi_read_physical api_microvmi_read_physical
#define microvmi_get_max_physical_addr api_microvmi_get_max_physical_addr
#define microvmi_get_driver_type api_microvmi_get_driver_type
#define microvmi_get_driver_name api_microvmi_get_driver_name
#define microvmi_version api_microvmi_version
#define microvmi_build_info api_microvmi_build_info
#define microvmi_envlogger_init api_microvmi_envlogger_init
#define microvmi_last_error api_microvmi_last_error
#define microvmi_last_error_code api_microvmi_last_error_code
#define rs_cstring_free api_rs_cstring_free

#else

/* Nothing to load: the program is linked with the library. */
static inline void *use_library(const char *path)
{
    (void)path;
    return NULL;
}

#endif

#define FAKE "vmi://fake/"

/* Open a machine, or fail with the library's reason. */
static inline void *open_or_fail(const char *uri)
{
    const char *error = NULL;
    void *vm = microvmi_open(uri, &error);

    CHECK_SAYS(vm != NULL, "cannot open %s: %s", uri, error != NULL ? error : "no reason given");
    CHECK(error == NULL);
    return vm;
}

/* In the fake machine every frame is filled with its own number as a little-endian 64-bit integer. */
static inline void check_frame(void *vm, uint64_t frame)
{
    uint64_t words[PAGE_SIZE / 8], count = 0;
    size_t i;

    CHECK_SAYS(microvmi_read_physical(vm, frame * PAGE_SIZE, (uint8_t *)words, sizeof(words), &count),
               "frame %" PRIu64 ": %s", frame, microvmi_last_error());
    CHECK(count == sizeof(words));
    for (i = 0; i < PAGE_SIZE / 8; i++) {
        CHECK_SAYS(words[i] == frame, "frame %" PRIu64 ", word %zu: 0x%" PRIx64, frame, i, words[i]);
    }
}

#endif
