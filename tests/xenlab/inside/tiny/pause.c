/* SPDX-License-Identifier: Apache-2.0 */
/* Pause freezes the guest's counter and resume moves it; a context that ends lets go of what it paused. */
#include "domain.h"

static void check_still(void *vm)
{
    CHECK_SAYS(!counts(vm, 0.5), "the guest counts while it is paused");
}

int main(void)
{
    void *vm = open_tiny(), *other = open_domain(TINY);

    WORKS(microvmi_pause(vm));
    check_still(vm);
    WORKS(microvmi_pause(vm));
    WORKS(microvmi_resume(vm));
    CHECK_SAYS(counts(vm, 10), "the guest does not count after it was resumed");
    WORKS(microvmi_resume(vm));
    CHECK(counts(vm, 10));

    WORKS(microvmi_pause(vm));
    check_still(other);
    microvmi_destroy(vm);
    CHECK_SAYS(counts(other, 10), "the guest stands still after the context that paused it ended");
    microvmi_destroy(other);
    return 0;
}
