/* SPDX-License-Identifier: Apache-2.0 */
/* A domain that ends under a client: clear errors, no hang, and nothing left of the domain once the client let go. */
#include "domain.h"

#define DOMAINS_BUT_DOM0 "xl list | tail -n +3 | grep ."

int main(void)
{
    void *vm = open_tiny();
    struct microvmi_event event = MICROVMI_EVENT_INIT;
    struct Registers registers;
    const char *error = NULL;

    watch(vm, MICROVMI_EVENT_CR, 3);
    CHECK(system("xl destroy tiny") == 0);
    FAILS_WITH(MICROVMI_ERROR_VM_GONE, microvmi_read_registers(vm, 0, &registers));
    FAILS_WITH(MICROVMI_ERROR_VM_GONE, microvmi_pause(vm));
    while (microvmi_listen(vm, 1000, &event))
        (void)microvmi_reply_event(vm, &event, NULL);
    CHECK_SAYS(microvmi_last_error_code() == MICROVMI_ERROR_VM_GONE, "%s", microvmi_last_error());
    microvmi_destroy(vm);

    CHECK(microvmi_open(TINY, &error) == NULL);
    printf("%s\n", error);
    rs_cstring_free((char *)error);
    CHECK_SAYS(system(DOMAINS_BUT_DOM0) != 0, "something of the domain is left");
    return 0;
}
