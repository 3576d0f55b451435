/* SPDX-License-Identifier: Apache-2.0 */
/*
 * foreign-python INITIALIZED LIBRARY CODE TEXT...: a simulator of a host that is another Python. Linked with -rdynamic
 * it defines the real symbols by which a Python is told, so that they take the place of libpython's, as those of a
 * statically linked python3.99 would. Any call but these two would be a call into a Python of another layout.
 */
static int initialized;

int Py_IsInitialized(void);
const char *Py_GetVersion(void);

int Py_IsInitialized(void)
{
    return initialized;
}

const char *Py_GetVersion(void)
{
    return "3.99.1 (main, Jan  1 2099, 00:00:00) [a simulator]";
}

#define main expect_error_main
#include "expect-error.c"
#undef main

int main(int argc, char **argv)
{
    CHECK_SAYS(argc >= 4, "usage: foreign-python INITIALIZED LIBRARY CODE TEXT...");
    initialized = argv[1][0] == '1';
    return expect_error_main(argc - 1, argv + 1);
}
