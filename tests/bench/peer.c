/* SPDX-License-Identifier: Apache-2.0 */
/* A library with the ABI of libmicrovmi 0.4.0 that reads the file it is given as vm_name; or zeros, with -DWRONG. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <libmicrovmi.h>

static int file;

void *microvmi_init(const enum DriverType *driver_type, const struct DriverInitParamsFFI *init_params,
                    const char **init_error)
{
    (void)driver_type;
    (void)init_error;
    file = open(init_params->common.vm_name, O_RDONLY | O_CLOEXEC);
    return file < 0 ? NULL : &file;
}

bool microvmi_read_physical(void *context, uint64_t physical_address, uint8_t *buffer, size_t size,
                            uint64_t *bytes_read)
{
    *bytes_read = (uint64_t)pread(*(int *)context, buffer, size, (off_t)physical_address);
#ifdef WRONG
    memset(buffer, 0, size);
#endif
    return *bytes_read == size;
}
