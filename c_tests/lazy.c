/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lazy LIBRARY: what does not need Python neither starts nor loads it: loading, version, build info, the last error, freeing,
 * and every call without a live context.
 */
#define _GNU_SOURCE
#include "api.h"

/* Not before it is needed is libpython in the process at all. */
static bool python_runs(void)
{
    void *found = dlsym(RTLD_DEFAULT, "Py_IsInitialized");
    int (*is_initialized)(void);

    *(void **)&is_initialized = found;
    return found != NULL && is_initialized() != 0;
}

int main(int argc, char **argv)
{
    char expected[32];
    uint64_t value = 7;
    void *vm;

    CHECK_SAYS(argc == 2, "usage: lazy LIBRARY");
    use_library(argv[1]);
    CHECK_SAYS(dlsym(RTLD_DEFAULT, "Py_GetVersion") == NULL, "loading the library loaded libpython");
    snprintf(expected, sizeof(expected), "%d.%d.%d", MICROVMI_VERSION_MAJOR, MICROVMI_VERSION_MINOR,
             MICROVMI_VERSION_PATCH);
    CHECK_SAYS(strcmp(microvmi_version(), expected) == 0, "version %s", microvmi_version());
    CHECK_SAYS(strstr(microvmi_build_info(), "Python 3.") != NULL, "build info: %s", microvmi_build_info());
    CHECK_SAYS(strstr(microvmi_build_info(), expected) != NULL, "build info: %s", microvmi_build_info());
    CHECK(microvmi_last_error()[0] == '\0' && microvmi_last_error_code() == MICROVMI_OK);
    microvmi_destroy(NULL);
    rs_cstring_free(NULL);
    CHECK(!microvmi_pause(NULL) && microvmi_last_error_code() == MICROVMI_ERROR_INVALID_CONTEXT);
    CHECK(!microvmi_get_max_physical_addr((void *)0x1234, &value) && value == 7);
    CHECK(microvmi_last_error_code() == MICROVMI_ERROR_INVALID_CONTEXT);
    CHECK(microvmi_get_driver_type(NULL) == MICROVMI_DRIVER_UNKNOWN);
    CHECK_SAYS(dlsym(RTLD_DEFAULT, "Py_GetVersion") == NULL, "a call that needs no Python loaded it");
    vm = open_or_fail(FAKE);
    CHECK_SAYS(python_runs(), "opening did not start Python: the test asks in the wrong place");
    microvmi_destroy(vm);
    return 0;
}
