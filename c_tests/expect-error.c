/* SPDX-License-Identifier: Apache-2.0 */
/*
 * expect-error LIBRARY CODE TEXT...: opening the fake machine must fail at once with that code, and with an error that
 * has every TEXT in it; a second time as well. Everything else must still answer.
 */
#include "api.h"

static void check_error(const char *error, int code, char **texts)
{
    CHECK_SAYS(error != NULL && error[0] != '\0', "no init_error");
    CHECK_SAYS((int)microvmi_last_error_code() == code, "code %d: %s", (int)microvmi_last_error_code(), error);
    CHECK_SAYS(strcmp(error, microvmi_last_error()) == 0, "init_error '%s', last error '%s'", error,
               microvmi_last_error());
    for (; *texts != NULL; texts++) {
        CHECK_SAYS(strstr(error, *texts) != NULL, "no '%s' in: %s", *texts, error);
    }
    CHECK_SAYS(strstr(error, "Traceback") == NULL, "a traceback: %s", error);
}

int main(int argc, char **argv)
{
    struct DriverInitParamsFFI params;
    const char *error = NULL;
    uint64_t count = 1;
    uint8_t byte;

    CHECK_SAYS(argc >= 3, "usage: expect-error LIBRARY CODE TEXT...");
    use_library(argv[1]);
    CHECK(microvmi_open(FAKE, &error) == NULL);
    check_error(error, atoi(argv[2]), argv + 3);
    rs_cstring_free((char *)error);

    memset(&params, 0, sizeof(params));
    error = NULL;
    CHECK(microvmi_init(NULL, &params, &error) == NULL);
    check_error(error, atoi(argv[2]), argv + 3);
    rs_cstring_free((char *)error);

    CHECK(microvmi_open(FAKE, NULL) == NULL);
    CHECK(microvmi_version()[0] != '\0' && microvmi_build_info()[0] != '\0');
    CHECK(!microvmi_read_physical(NULL, 0, &byte, 1, &count) && count == 0);
    CHECK(microvmi_last_error_code() == MICROVMI_ERROR_INVALID_CONTEXT);
    microvmi_destroy(NULL);
    return 0;
}
