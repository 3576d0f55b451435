/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lazy LIBRARY: what does not need Python does not start it: loading, version, build info, the last error, freeing,
 * and every call without a live context.
 */
#include "api.h"

/* `library` is a handle, whose dependencies are searched too, or NULL for everything that is linked. */
static bool python_runs(void *library)
{
    void *found = dlsym(library, "Py_IsInitialized");
    int (*is_initialized)(void);

    CHECK_SAYS(found != NULL, "no Py_IsInitialized to ask");
    *(void **)&is_initialized = found;
    return is_initialized() != 0;
}

int main(int argc, char **argv)
{
    char expected[32];
    uint64_t value = 7;
    void *library, *vm;

    CHECK_SAYS(argc == 2, "usage: lazy LIBRARY");
    library = use_library(argv[1]);
    CHECK(!python_runs(library));
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
    CHECK_SAYS(!python_runs(library), "a call that needs no Python started it");
    vm = open_or_fail(FAKE);
    CHECK_SAYS(python_runs(library), "opening did not start Python: the test asks in the wrong place");
    microvmi_destroy(vm);
    return 0;
}
