/* SPDX-License-Identifier: Apache-2.0 */
/*
 * arguments: nonsense is an error, never a crash: contexts that are none, driver types and positions that do not exist,
 * names that are no UTF-8, NULL where a buffer or a result belongs.
 */
#include "api.h"

#define CHECK_ERROR(code, call) \
    do { \
        CHECK_SAYS(!(call), "%s succeeded", #call); \
        CHECK_SAYS(microvmi_last_error_code() == (code), "%s: code %d, %s", #call, (int)microvmi_last_error_code(), \
                   microvmi_last_error()); \
        CHECK_SAYS(microvmi_last_error()[0] != '\0', "%s: no text", #call); \
    } while (0)

#define INVALID_ARGUMENT(call) CHECK_ERROR(MICROVMI_ERROR_INVALID_ARGUMENT, call)
#define INVALID_CONTEXT(call) CHECK_ERROR(MICROVMI_ERROR_INVALID_CONTEXT, call)

#define CHECK_WORKS(call) \
    do { \
        CHECK_SAYS(call, "%s: %s", #call, microvmi_last_error()); \
        CHECK_SAYS(microvmi_last_error_code() == MICROVMI_OK && microvmi_last_error()[0] == '\0', \
                   "%s: an error is left", #call); \
    } while (0)

/* ---------------------------------------------------------------------------------------------------- context ---- */

static void memory_calls_refuse(void *vm)
{
    struct microvmi_address_space space = MICROVMI_ADDRESS_SPACE_INIT;
    struct microvmi_translation translation = MICROVMI_TRANSLATION_INIT;
    uint8_t buffer[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    uint64_t number = 77;

    INVALID_CONTEXT(microvmi_read_physical(vm, 0, buffer, sizeof(buffer), &number));
    CHECK(number == 0);
    INVALID_CONTEXT(microvmi_read_physical(vm, 0, buffer, sizeof(buffer), NULL));
    INVALID_CONTEXT(microvmi_write_physical(vm, 0, buffer, sizeof(buffer)));
    number = 77;
    INVALID_CONTEXT(microvmi_read(vm, buffer, sizeof(buffer), &number));
    CHECK(number == 0);
    number = 77;
    INVALID_CONTEXT(microvmi_write(vm, buffer, sizeof(buffer), &number));
    CHECK(number == 0);
    number = 77;
    INVALID_CONTEXT(microvmi_padded_read(vm, buffer, sizeof(buffer), &number));
    CHECK(number == 0);
    number = 77;
    INVALID_CONTEXT(microvmi_read_physical_padded(vm, 0, buffer, sizeof(buffer), &number));
    CHECK(number == 0);
    number = 77;
    INVALID_CONTEXT(microvmi_seek(vm, 0, SEEK_SET, &number));
    INVALID_CONTEXT(microvmi_tell(vm, &number));
    INVALID_CONTEXT(microvmi_padded_seek(vm, 0, SEEK_SET, &number));
    INVALID_CONTEXT(microvmi_padded_tell(vm, &number));
    INVALID_CONTEXT(microvmi_get_max_physical_addr(vm, &number));
    CHECK(number == 77);
    INVALID_CONTEXT(microvmi_read_virtual(vm, &space, 0, buffer, sizeof(buffer), &number));
    CHECK(number == 0);
    number = 77;
    INVALID_CONTEXT(microvmi_read_virtual_padded(vm, &space, 0, buffer, sizeof(buffer), &number));
    CHECK(number == 0);
    INVALID_CONTEXT(microvmi_write_virtual(vm, &space, 0, buffer, sizeof(buffer)));
    INVALID_CONTEXT(microvmi_translate_address(vm, &space, 0, &translation));
    CHECK(translation.physical_address == 0);
    INVALID_CONTEXT(microvmi_read_virtual_batch(vm, &space, NULL, 0));
    INVALID_CONTEXT(microvmi_get_address_space(vm, 0, &space));
    INVALID_CONTEXT(microvmi_get_twin_address_space(vm, &space, &space));
    INVALID_CONTEXT(microvmi_flush_translations(vm));
    CHECK(buffer[0] == 1 && buffer[7] == 8);
}

static void event_calls_refuse(void *vm)
{
    struct microvmi_intercept intercept = MICROVMI_INTERCEPT_INIT;
    struct microvmi_event event = MICROVMI_EVENT_INIT;
    struct Registers registers;
    uint32_t access = 77;

    memset(&registers, 0, sizeof(registers));
    intercept.kind = MICROVMI_EVENT_CR;
    intercept.number = 3;
    INVALID_CONTEXT(microvmi_write_registers(vm, 0, &registers));
    INVALID_CONTEXT(microvmi_get_page_access(vm, 0, &access));
    CHECK(access == 77);
    INVALID_CONTEXT(microvmi_set_page_access(vm, 0, MICROVMI_PAGE_ACCESS_READ));
    INVALID_CONTEXT(microvmi_toggle_intercept(vm, MICROVMI_ALL_VCPUS, &intercept, true));
    INVALID_CONTEXT(microvmi_listen(vm, 0, &event));
    CHECK(event.id == 0 && event.struct_size == sizeof(event));
    INVALID_CONTEXT(microvmi_reply_event(vm, &event, NULL));
}

static void all_calls_refuse(void *vm)
{
    struct microvmi_memory_range range;
    struct Registers registers;
    size_t count = 77;
    uint16_t vcpus = 77;

    memory_calls_refuse(vm);
    event_calls_refuse(vm);
    INVALID_CONTEXT(microvmi_pause(vm));
    INVALID_CONTEXT(microvmi_resume(vm));
    memset(&registers, 0x5a, sizeof(registers));
    INVALID_CONTEXT(microvmi_read_registers(vm, 0, &registers));
    CHECK(registers.x86.rax == 0x5a5a5a5a5a5a5a5a);
    INVALID_CONTEXT(microvmi_get_memory_map(vm, &range, 1, &count));
    CHECK(count == 0);
    INVALID_CONTEXT(microvmi_get_vcpu_count(vm, &vcpus));
    CHECK(vcpus == 77);
    INVALID_CONTEXT(microvmi_get_driver_type(vm) != MICROVMI_DRIVER_UNKNOWN);
    INVALID_CONTEXT(microvmi_get_driver_name(vm) != NULL);
    if (vm != NULL) {
        microvmi_destroy(vm);
        CHECK(microvmi_last_error_code() == MICROVMI_ERROR_INVALID_CONTEXT);
    }
}

static void contexts(void)
{
    static int not_a_context;
    void *live = open_or_fail(FAKE), *other = open_or_fail(FAKE);
    uint64_t random = 0x9e3779b97f4a7c15;
    int i;

    CHECK(live != other);
    all_calls_refuse(NULL);
    all_calls_refuse(&not_a_context);
    all_calls_refuse((void *)1);
    all_calls_refuse((void *)UINTPTR_MAX);
    all_calls_refuse((void *)((uintptr_t)live ^ (uintptr_t)1 << 32));
    all_calls_refuse((void *)((uintptr_t)live ^ (uintptr_t)1 << 63));
    for (i = 0; i < 10000; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        INVALID_CONTEXT(microvmi_pause((void *)(uintptr_t)random));
        INVALID_CONTEXT(microvmi_pause((void *)(uintptr_t)i));
    }
    microvmi_destroy(live);
    CHECK(microvmi_last_error_code() == MICROVMI_OK);
    all_calls_refuse(live); /* destroyed: destroys it once more as well */
    for (i = 0; i < 100; i++) {
        void *next = open_or_fail(FAKE);

        CHECK_SAYS(next != live && next != other, "a token came back");
        microvmi_destroy(next);
    }
    all_calls_refuse(live);
    check_frame(other, 4);
    microvmi_destroy(other);
}

/* ---------------------------------------------------------------------------------------------------- opening ---- */

static void refuse_uri(const char *uri, enum microvmi_error code)
{
    const char *error = NULL;

    CHECK_SAYS(microvmi_open(uri, &error) == NULL, "opened: %s", uri);
    CHECK_SAYS(error != NULL && error[0] != '\0', "no reason: %s", uri);
    CHECK_SAYS(microvmi_last_error_code() == code, "%s: code %d, %s", uri, (int)microvmi_last_error_code(), error);
    CHECK_SAYS(strcmp(error, microvmi_last_error()) == 0, "%s, but the last error is: %s", error,
               microvmi_last_error());
    CHECK_SAYS(strstr(error, "Traceback") == NULL && strstr(error, "please report") == NULL, "%s: %s", uri, error);
    rs_cstring_free((char *)error);
    CHECK(microvmi_open(uri, NULL) == NULL);
}

static void uris(void)
{
    static char huge[1 << 20];

    refuse_uri(NULL, MICROVMI_ERROR_INVALID_ARGUMENT);
    refuse_uri("", MICROVMI_ERROR_INVALID_ARGUMENT);
    refuse_uri("vmi://no-such-driver/", MICROVMI_ERROR_DRIVER_UNAVAILABLE);
    refuse_uri("vmi://fake/?size", MICROVMI_ERROR_INVALID_ARGUMENT);
    refuse_uri("vmi://fake/?size=many", MICROVMI_ERROR_INVALID_ARGUMENT);
    refuse_uri("vmi://fake/?size=-4096", MICROVMI_ERROR_INVALID_ARGUMENT);
    refuse_uri("vmi://fake/?nonsense=1", MICROVMI_ERROR_INVALID_ARGUMENT);
    refuse_uri("vmi://fake/?size=4096&size=8192", MICROVMI_ERROR_INVALID_ARGUMENT);
    refuse_uri("vmi://fake/?holes=0x5000-0x4000", MICROVMI_ERROR_INVALID_ARGUMENT);
    refuse_uri("vmi://fake/path/more?size=4096", MICROVMI_ERROR_INVALID_ARGUMENT);
    refuse_uri("vmi://fake/?vm_name=%ff%fe", MICROVMI_ERROR_INVALID_ARGUMENT);
    refuse_uri("vmi://fake/?vm_name=\xff\xfe", MICROVMI_ERROR_INVALID_ARGUMENT);
    refuse_uri("vmi://fake/?vm_name=two%0Alines", MICROVMI_ERROR_INVALID_ARGUMENT);
    refuse_uri("vmi://[fake/", MICROVMI_ERROR_INVALID_ARGUMENT);
    refuse_uri("http://fake/", MICROVMI_ERROR_INVALID_ARGUMENT);
    refuse_uri("/no/such/image.raw", MICROVMI_ERROR_IO);
    memset(huge, 'a', sizeof(huge) - 1);
    refuse_uri(huge, MICROVMI_ERROR_INVALID_ARGUMENT);
    memcpy(huge, "vmi://fake/?size=", 17);
    refuse_uri(huge, MICROVMI_ERROR_INVALID_ARGUMENT);
}

static void refuse_init(const enum DriverType *driver, const struct DriverInitParamsFFI *params,
                        enum microvmi_error code)
{
    const char *error = NULL;

    CHECK(microvmi_init(driver, params, &error) == NULL);
    CHECK_SAYS(error != NULL && error[0] != '\0', "no reason");
    CHECK_SAYS(microvmi_last_error_code() == code, "code %d, not %d: %s", (int)microvmi_last_error_code(), (int)code,
               error);
    CHECK_SAYS(strstr(error, "Traceback") == NULL && strstr(error, "please report") == NULL, "%s", error);
    rs_cstring_free((char *)error);
    CHECK(microvmi_init(driver, params, NULL) == NULL);
}

static void driver_types(void)
{
    static const int nonsense[] = {7, 99, -1, INT32_MAX, INT32_MIN};
    struct DriverInitParamsFFI params;
    enum DriverType driver;
    size_t i;

    memset(&params, 0, sizeof(params));
    params.common.vm_name = "there-is-no-such-machine";
    for (i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
        memcpy(&driver, &nonsense[i], sizeof(driver));
        refuse_init(&driver, &params, MICROVMI_ERROR_INVALID_ARGUMENT);
        refuse_init(&driver, NULL, MICROVMI_ERROR_INVALID_ARGUMENT);
    }
    refuse_init(NULL, &params, MICROVMI_ERROR_NO_DRIVER);
}

static void names_that_are_no_utf8(void)
{
    enum DriverType driver = MICROVMI_DRIVER_QEMU;
    struct DriverInitParamsFFI params;
    char *arguments[] = {"key=value", "\xc3\x28"};

    memset(&params, 0, sizeof(params));
    params.common.vm_name = "\xff\xfe\x80";
    refuse_init(&driver, &params, MICROVMI_ERROR_INVALID_ARGUMENT);
    refuse_init(NULL, &params, MICROVMI_ERROR_INVALID_ARGUMENT);
    memset(&params, 0, sizeof(params));
    params.kvm.unix_socket.path = "\xff";
    refuse_init(NULL, &params, MICROVMI_ERROR_INVALID_ARGUMENT);
    memset(&params, 0, sizeof(params));
    params.memflow.connector_name = "\xff";
    refuse_init(NULL, &params, MICROVMI_ERROR_INVALID_ARGUMENT);
    params.memflow.connector_name = "name";
    params.memflow.connector_args.default_.args_arr = arguments;
    params.memflow.connector_args.default_.args_arr_len = 2;
    refuse_init(NULL, &params, MICROVMI_ERROR_INVALID_ARGUMENT);
}

/* ------------------------------------------------------------------------------------------- a live machine ------ */

static void null_where_memory_belongs(void *vm)
{
    uint64_t count = 77;

    INVALID_ARGUMENT(microvmi_read_physical(vm, 0, NULL, 1, &count));
    CHECK(count == 0);
    INVALID_ARGUMENT(microvmi_write_physical(vm, 0, NULL, 1));
    INVALID_ARGUMENT(microvmi_read(vm, NULL, 1, NULL));
    INVALID_ARGUMENT(microvmi_write(vm, NULL, 1, NULL));
    INVALID_ARGUMENT(microvmi_padded_read(vm, NULL, 1, NULL));
    INVALID_ARGUMENT(microvmi_read_physical_padded(vm, 0, NULL, 1, NULL));
    INVALID_ARGUMENT(microvmi_tell(vm, NULL));
    INVALID_ARGUMENT(microvmi_padded_tell(vm, NULL));
    INVALID_ARGUMENT(microvmi_get_max_physical_addr(vm, NULL));
    INVALID_ARGUMENT(microvmi_read_registers(vm, 0, NULL));
    INVALID_ARGUMENT(microvmi_get_memory_map(vm, NULL, 1, NULL));
    INVALID_ARGUMENT(microvmi_get_vcpu_count(vm, NULL));
    CHECK_WORKS(microvmi_read_physical(vm, 0, NULL, 0, NULL));
    CHECK_WORKS(microvmi_read_physical(vm, UINT64_MAX, NULL, 0, &count));
    CHECK_WORKS(microvmi_write_physical(vm, 0, NULL, 0));
    CHECK_WORKS(microvmi_read(vm, NULL, 0, NULL));
    CHECK_WORKS(microvmi_write(vm, NULL, 0, NULL));
    CHECK_WORKS(microvmi_padded_read(vm, NULL, 0, NULL));
    CHECK_WORKS(microvmi_seek(vm, 1, SEEK_CUR, NULL));
    CHECK_WORKS(microvmi_padded_seek(vm, 1, SEEK_CUR, NULL));
}

static void counts_that_nobody_asked_for(void *vm)
{
    uint8_t buffer[64];

    CHECK_WORKS(microvmi_read_physical(vm, 0, buffer, sizeof(buffer), NULL));
    CHECK_WORKS(microvmi_read_physical_padded(vm, 0, buffer, sizeof(buffer), NULL));
    CHECK_WORKS(microvmi_read(vm, buffer, sizeof(buffer), NULL));
    CHECK_WORKS(microvmi_write(vm, buffer, sizeof(buffer), NULL));
    CHECK_WORKS(microvmi_padded_read(vm, buffer, sizeof(buffer), NULL));
    CHECK(!microvmi_read_physical(vm, 0x4000, buffer, sizeof(buffer), NULL));
    CHECK(microvmi_last_error_code() == MICROVMI_ERROR_NOT_MAPPED);
}

static void positions_and_numbers(void *vm)
{
    static const int nonsense[] = {-1, 5, 99, INT32_MAX, INT32_MIN};
    static const uint16_t no_vcpu[] = {2, 3, 255, UINT16_MAX};
    struct Registers registers;
    uint64_t position = 77;
    size_t i;

    for (i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
        INVALID_ARGUMENT(microvmi_seek(vm, 0, nonsense[i], &position));
        INVALID_ARGUMENT(microvmi_padded_seek(vm, 0, nonsense[i], &position));
    }
    CHECK(position == 77);
    memset(&registers, 0x5a, sizeof(registers));
    for (i = 0; i < sizeof(no_vcpu) / sizeof(no_vcpu[0]); i++) {
        INVALID_ARGUMENT(microvmi_read_registers(vm, no_vcpu[i], &registers));
    }
    CHECK(registers.x86.rip == 0x5a5a5a5a5a5a5a5a);
    CHECK_WORKS(microvmi_read_registers(vm, 1, &registers));
    CHECK(registers.tag == X86 && registers.x86.rip == 0xfff0 && registers.x86.cs.base == 0xffff0000);
}

/* Sizes and addresses whose sum does not fit: the buffer is one frame, and only what exists is written. */
static void sums_that_overflow(void *vm)
{
    static const uint64_t beyond[] = {0x100000,          0x100001,  UINT64_C(1) << 63, UINT64_C(0xffffffff80000000),
                                      UINT64_MAX - 4094, UINT64_MAX};
    uint8_t buffer[PAGE_SIZE];
    uint64_t count;
    size_t i;

    memset(buffer, 0x5a, sizeof(buffer));
    for (i = 0; i < sizeof(beyond) / sizeof(beyond[0]); i++) {
        count = 77;
        CHECK_ERROR(MICROVMI_ERROR_NOT_MAPPED, microvmi_read_physical(vm, beyond[i], buffer, sizeof(buffer), &count));
        CHECK(count == 0);
        CHECK_ERROR(MICROVMI_ERROR_NOT_MAPPED, microvmi_write_physical(vm, beyond[i], buffer, sizeof(buffer)));
    }
    for (i = 0; i < sizeof(buffer); i++) {
        CHECK(buffer[i] == 0x5a);
    }
    CHECK_ERROR(MICROVMI_ERROR_NOT_MAPPED, microvmi_read_physical(vm, 0xff000, buffer, PTRDIFF_MAX, &count));
    CHECK(count == PAGE_SIZE);
    CHECK_ERROR(MICROVMI_ERROR_NOT_MAPPED, microvmi_read_physical(vm, 0x3000, buffer, PTRDIFF_MAX, &count));
    CHECK(count == PAGE_SIZE);
    INVALID_ARGUMENT(microvmi_read_physical(vm, 0x3000, buffer, SIZE_MAX, &count));
    CHECK(count == 0);
    INVALID_ARGUMENT(microvmi_padded_read(vm, buffer, SIZE_MAX, &count));
    INVALID_ARGUMENT(microvmi_write_physical(vm, 0x3000, buffer, SIZE_MAX));
}

static void memory_map(void *vm)
{
    struct microvmi_memory_range ranges[4];
    size_t count = 77;

    INVALID_ARGUMENT(microvmi_get_memory_map(vm, NULL, 1, &count));
    CHECK(count == 0);
    CHECK_WORKS(microvmi_get_memory_map(vm, NULL, 0, &count));
    CHECK(count == 2);
    memset(ranges, 0x5a, sizeof(ranges));
    CHECK_WORKS(microvmi_get_memory_map(vm, ranges, 1, &count));
    CHECK(count == 2 && ranges[0].start == 0 && ranges[0].size == 0x4000 && ranges[0].kind == MICROVMI_MEMORY_RAM);
    CHECK(ranges[0].reserved[0] == 0 && ranges[0].reserved[1] == 0 && ranges[0].reserved[2] == 0);
    CHECK(ranges[1].start == 0x5a5a5a5a5a5a5a5a);
    CHECK_WORKS(microvmi_get_memory_map(vm, ranges, 4, &count));
    CHECK(count == 2 && ranges[1].start == 0x5000 && ranges[1].size == 0xfb000);
}

/* ---------------------------------------------------------------------------------------------------- events ----- */

static void registers_to_be_written(void *vm)
{
    struct Registers registers;
    int no_tag = 5;

    CHECK_WORKS(microvmi_read_registers(vm, 1, &registers));
    INVALID_ARGUMENT(microvmi_write_registers(vm, 1, NULL));
    INVALID_ARGUMENT(microvmi_write_registers(vm, 2, &registers));
    registers.x86.r15 = UINT64_MAX;
    registers.x86.gs.base = UINT64_C(0xffff888000000000);
    registers.x86.idt.limit = 0xfff;
    CHECK_WORKS(microvmi_write_registers(vm, 1, &registers));
    memset(&registers, 0, sizeof(registers));
    CHECK_WORKS(microvmi_read_registers(vm, 1, &registers));
    CHECK(registers.x86.r15 == UINT64_MAX && registers.x86.gs.base == UINT64_C(0xffff888000000000));
    CHECK(registers.x86.idt.limit == 0xfff && registers.x86.rip == 0xfff0);
    memcpy(&registers.tag, &no_tag, sizeof(no_tag));
    INVALID_ARGUMENT(microvmi_write_registers(vm, 1, &registers));
}

static void page_accesses(void *vm)
{
    uint32_t access = 77;

    INVALID_ARGUMENT(microvmi_get_page_access(vm, 0, NULL));
    CHECK_ERROR(MICROVMI_ERROR_NOT_MAPPED, microvmi_get_page_access(vm, 0x4fff, &access));
    CHECK_ERROR(MICROVMI_ERROR_NOT_MAPPED, microvmi_set_page_access(vm, UINT64_MAX, MICROVMI_PAGE_ACCESS_READ));
    INVALID_ARGUMENT(microvmi_set_page_access(vm, 0, 8));
    CHECK(access == 77);
    CHECK_WORKS(microvmi_set_page_access(vm, 0x3fff, MICROVMI_PAGE_ACCESS_READ));
    CHECK_WORKS(microvmi_get_page_access(vm, 0x3000, &access));
    CHECK(access == MICROVMI_PAGE_ACCESS_READ);
    CHECK_WORKS(microvmi_set_page_access(vm, 0x3000, MICROVMI_PAGE_ACCESS_ALL));
}

static void intercepts(void *vm)
{
    struct microvmi_intercept intercept = MICROVMI_INTERCEPT_INIT;

    INVALID_ARGUMENT(microvmi_toggle_intercept(vm, 0, NULL, true));
    INVALID_ARGUMENT(microvmi_toggle_intercept(vm, 0, &intercept, true)); /* of no kind */
    intercept.kind = 99;
    INVALID_ARGUMENT(microvmi_toggle_intercept(vm, 0, &intercept, true));
    intercept.kind = MICROVMI_EVENT_CR;
    intercept.number = 2;
    INVALID_ARGUMENT(microvmi_toggle_intercept(vm, 0, &intercept, true));
    intercept.number = 3;
    INVALID_ARGUMENT(microvmi_toggle_intercept(vm, 2, &intercept, true));
    intercept.address = 1;
    INVALID_ARGUMENT(microvmi_toggle_intercept(vm, 0, &intercept, true));
    intercept.address = 0;
    intercept.reserved = 1;
    INVALID_ARGUMENT(microvmi_toggle_intercept(vm, 0, &intercept, true));
    intercept.reserved = 0;
    intercept.struct_size = offsetof(struct microvmi_intercept, size) - 1; /* smaller than any that there was */
    INVALID_ARGUMENT(microvmi_toggle_intercept(vm, 0, &intercept, true));
    intercept.struct_size++; /* of a caller from the past */
    CHECK_WORKS(microvmi_toggle_intercept(vm, 0, &intercept, false));
    intercept.struct_size = 4096; /* of a caller from the future */
    CHECK_WORKS(microvmi_toggle_intercept(vm, 0, &intercept, false));
}

static void events(void *vm)
{
    struct microvmi_intercept intercept = MICROVMI_INTERCEPT_INIT;
    struct microvmi_event event = MICROVMI_EVENT_INIT, before;
    struct microvmi_reply reply = MICROVMI_REPLY_INIT;

    INVALID_ARGUMENT(microvmi_listen(vm, 0, NULL));
    before = event;
    CHECK_ERROR(MICROVMI_ERROR_TIMEOUT, microvmi_listen(vm, 20, &event));
    CHECK(memcmp(&before, &event, sizeof(event)) == 0);
    event.struct_size = 8;
    INVALID_ARGUMENT(microvmi_listen(vm, 0, &event));
    event.struct_size = sizeof(event);
    INVALID_ARGUMENT(microvmi_reply_event(vm, &event, NULL)); /* which never happened */
    INVALID_ARGUMENT(microvmi_reply_event(vm, NULL, NULL));
    intercept.kind = MICROVMI_EVENT_BREAKPOINT;
    CHECK_WORKS(microvmi_toggle_intercept(vm, 1, &intercept, true));
    CHECK_WORKS(microvmi_listen(vm, 1000, &event));
    CHECK(event.kind == MICROVMI_EVENT_BREAKPOINT && event.vcpu == 1 && event.instruction_length == 1);
    reply.action = 99;
    INVALID_ARGUMENT(microvmi_reply_event(vm, &event, &reply));
    reply.struct_size = 0;
    INVALID_ARGUMENT(microvmi_reply_event(vm, &event, &reply));
    reply.struct_size = sizeof(reply);
    reply.action = MICROVMI_REPLY_DENY;
    CHECK_ERROR(MICROVMI_ERROR_NOT_SUPPORTED, microvmi_reply_event(vm, &event, &reply));
    CHECK_WORKS(microvmi_reply_event(vm, &event, NULL));
    INVALID_ARGUMENT(microvmi_reply_event(vm, &event, NULL)); /* twice */
    CHECK_WORKS(microvmi_toggle_intercept(vm, MICROVMI_ALL_VCPUS, &intercept, false));
}

int main(void)
{
    void *vm;

    contexts();
    uris();
    driver_types();
    names_that_are_no_utf8();
    vm = open_or_fail(FAKE "?holes=0x4000-0x5000&vcpus=2");
    null_where_memory_belongs(vm);
    counts_that_nobody_asked_for(vm);
    positions_and_numbers(vm);
    sums_that_overflow(vm);
    memory_map(vm);
    registers_to_be_written(vm);
    page_accesses(vm);
    intercepts(vm);
    events(vm);
    microvmi_destroy(vm);
    return 0;
}
