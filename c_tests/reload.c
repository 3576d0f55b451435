/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reload LIBRARY: dlclose() leaves the library and its Python in place; dlopen() again works, as does a machine that
 * was open meanwhile. Not linked with the library.
 */
#include <dlfcn.h>

#include "check.h"

struct calls {
    const char *(*version)(void);
    void *(*open)(const char *, const char **);
    bool (*pause)(void *);
};

static void *load(const char *path, struct calls *calls)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    CHECK_SAYS(library != NULL, "dlopen: %s", dlerror());
    *(void **)&calls->version = dlsym(library, "microvmi_version");
    *(void **)&calls->open = dlsym(library, "microvmi_open");
    *(void **)&calls->pause = dlsym(library, "microvmi_pause");
    CHECK(calls->version != NULL && calls->open != NULL && calls->pause != NULL);
    return library;
}

int main(int argc, char **argv)
{
    struct calls calls;
    void *library, *still, *vm;
    int round;

    CHECK_SAYS(argc == 2, "usage: reload LIBRARY");
    for (round = 0; round < 3; round++) {
        library = load(argv[1], &calls);
        vm = round > 0 ? calls.open("vmi://fake/", NULL) : NULL; /* the first time it is only loaded */
        CHECK_SAYS(vm != NULL || round == 0, "round %d: cannot open", round);
        CHECK(dlclose(library) == 0);
        still = dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD);
        CHECK_SAYS(still != NULL, "dlclose() unmapped the library");
        CHECK(dlclose(still) == 0);
        CHECK(calls.version()[0] != '\0');
        CHECK(vm == NULL || calls.pause(vm));
    }
    return 0;
}
