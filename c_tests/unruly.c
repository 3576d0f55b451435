/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unruly WAY...: a driver of somebody else that raises or returns nonsense is an internal error of one call. It is
 * never taken for a success, it prints nothing, and it does not end the host.
 */
#include "api.h"

#define CHECK_INTERNAL(call) \
    do { \
        CHECK_SAYS(!(call), "%s: %s succeeded", way, #call); \
        CHECK_SAYS(microvmi_last_error_code() == MICROVMI_ERROR_INTERNAL, "%s: %s: code %d, %s", way, #call, \
                   (int)microvmi_last_error_code(), microvmi_last_error()); \
        CHECK_SAYS(microvmi_last_error()[0] != '\0', "%s: %s: no text", way, #call); \
    } while (0)

static void fails_at_open(const char *way)
{
    const char *error = NULL;
    char uri[128];

    snprintf(uri, sizeof(uri), "vmi://unruly/?when=open&how=%s", way);
    CHECK_INTERNAL(microvmi_open(uri, &error));
    CHECK(error != NULL && error[0] != '\0');
    rs_cstring_free((char *)error);
}

/* A number that cannot be is the driver's lie, and told as such; any other trouble of it is a defect. */
static enum microvmi_error expected_of_a_count(const char *way)
{
    bool lies = strcmp(way, "text") == 0 || strcmp(way, "negative") == 0 || strcmp(way, "huge") == 0;

    return lies ? MICROVMI_ERROR_IO : MICROVMI_ERROR_INTERNAL;
}

static void fails_later(const char *way)
{
    struct microvmi_memory_range range;
    struct Registers registers;
    uint64_t count = 77;
    uint16_t vcpus = 77;
    uint8_t buffer[16];
    size_t known = 77;
    char uri[128];
    void *vm;

    snprintf(uri, sizeof(uri), "vmi://unruly/?how=%s", way);
    vm = open_or_fail(uri);
    CHECK_INTERNAL(microvmi_read_physical(vm, 0, buffer, sizeof(buffer), &count));
    CHECK(count == 0);
    CHECK_INTERNAL(microvmi_read(vm, buffer, sizeof(buffer), &count));
    CHECK_INTERNAL(microvmi_padded_read(vm, buffer, sizeof(buffer), &count));
    CHECK_INTERNAL(microvmi_write_physical(vm, 0, buffer, sizeof(buffer)));
    CHECK(!microvmi_get_vcpu_count(vm, &vcpus) && microvmi_last_error_code() == expected_of_a_count(way));
    CHECK(vcpus == 77);
    CHECK(!microvmi_read_registers(vm, 0, &registers) && microvmi_last_error()[0] != '\0'); /* a bad count counts too */
    CHECK_INTERNAL(microvmi_get_memory_map(vm, &range, 1, &known));
    CHECK(known == 0);
    CHECK(!microvmi_pause(vm) && microvmi_last_error_code() == MICROVMI_ERROR_NOT_SUPPORTED);
    CHECK(microvmi_get_driver_type(vm) == MICROVMI_DRIVER_PLUGIN);
    microvmi_destroy(vm);
    CHECK(!microvmi_read(vm, buffer, 1, NULL) && microvmi_last_error_code() == MICROVMI_ERROR_INVALID_CONTEXT);
}

int main(int argc, char **argv)
{
    CHECK_SAYS(argc >= 2, "usage: unruly WAY...");
    for (; *++argv != NULL;) {
        fails_at_open(*argv);
        fails_later(*argv);
    }
    check_frame(open_or_fail(FAKE), 1);
    return 0;
}
