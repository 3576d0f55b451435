# SPDX-License-Identifier: Apache-2.0
"""Bugs of start-up, of the way into Python, and of what belongs to the host."""

from __future__ import annotations

from mutants.mutant import Mutant

_NATIVE = "libmicrovmi_py/_native"
_CAPI = "libmicrovmi_py/_capi"
_PROCESS = "tests/startup/test_process.py::"
_CLOSED = "tests/startup/test_closed_streams.py::"
_PRIVILEGES = "tests/startup/test_privileges.py::"
_HARDENING = "tests/startup/test_hardening.py::"
_PUBLISHING = "tests/capi/test_publishing.py::"
_SHORTAGE = "tests/startup/test_shortage.py::"

_CLOSED_C = (f"{_CLOSED}test_shared_ram_stays_out_of_reach_of_a_stray_print[12]",)
_CLOSED_PYTHON = (f"{_CLOSED}test_a_python_program_is_no_worse_off[shared-12]",)
_SETUID = (
    f"{_PRIVILEGES}test_a_setuid_program_ignores_it",
    f"{_PRIVILEGES}test_a_program_with_a_capability_ignores_it",
)

MUTANTS = (
    Mutant(
        f"{_CAPI}/boundary.py",
        "            lib.mvi_hand_on_interrupt()\n",
        "            pass\n",
        "Ctrl-C during a call is lost for a Python host",
        ("tests/startup/test_python_hosts.py::test_an_interrupt_during_a_call_reaches_the_program",),
    ),
    Mutant(
        f"{_CAPI}/handles.py",
        "        with self._publishing:\n",
        "        if True:\n",
        "of two publishers an old table may win",
        (f"{_PUBLISHING}test_of_two_publishers_the_one_with_the_newer_table_wins",),
    ),
    Mutant(
        f"{_CAPI}/handles.py",
        "            if lib.mvi_context_publish(self.context, *map(ffi.cast, kinds, addresses)):\n",
        "            if lib.mvi_context_publish(self.context, *map(ffi.cast, kinds, addresses)) or True:\n",
        "a table is freed while readers of a destroyed context use it",
        (f"{_PUBLISHING}test_a_table_that_could_not_be_replaced_is_kept",),
    ),
    Mutant(
        f"{_CAPI}/boundary.py",
        "            function(handle.machine, *arguments)\n            handle.publish()\n",
        "            function(handle.machine, *arguments)\n",
        "C goes on with the old memory map after microvmi_get_memory_map",
        (f"{_PUBLISHING}test_what_the_memory_map_brings_is_read_by_c",),
    ),
    Mutant(
        f"{_NATIVE}/calls.c",
        "    held = mvi_standard_enter();\n",
        "    held = false;\n",
        "the host's printf lands in the files of a driver, or of a hypervisor's library",
        (f"{_CLOSED}test_files_of_somebody_else_s_driver_stay_out_of_reach",),
    ),
    Mutant(
        f"{_NATIVE}/standard.c",
        'open("/dev/null", O_PATH | O_CLOEXEC)',
        'open("/dev/null", O_RDWR | O_CLOEXEC)',
        "a closed standard stream takes the host's output for a while",
        _CLOSED_C,
    ),
    Mutant(
        f"{_NATIVE}/standard.c",
        "    if (flags != -1 && (flags & O_PATH) != 0)\n        close(fd);\n",
        "    (void)flags;\n",
        "placeholders stay when the call is over",
        _CLOSED_C,
    ),
    Mutant(
        f"{_NATIVE}/boot.c",
        "    bool held = mvi_standard_enter();\n    int failed;\n",
        "    bool held = false;\n    int failed;\n",
        "files that Python reads at its start are read by the host from its closed standard input",
        (f"{_CLOSED}test_shared_ram_stays_out_of_reach_of_a_stray_print[0]",),
    ),
    Mutant(
        "libmicrovmi_py/transport/fds.py",
        "            self._entered = _users > 0 or not _all_open()\n",
        "            self._entered = False\n",
        "a Python program without standard streams prints into guest memory",
        _CLOSED_PYTHON,
    ),
    Mutant(
        "libmicrovmi_py/transport/mapping.py",
        "        with StandardStreamsHeld():  # the module keeps a descriptor of its own\n",
        "        if True:\n",
        "the descriptor that mmap keeps is standard output",
        _CLOSED_PYTHON,
    ),
    Mutant(
        f"{_NATIVE}/entry.c",
        "    if (uri != NULL && uri[0] != '\\0')\n",
        "    if (uri != NULL)\n",
        "an empty MICROVMI_URI is an error",
        ("tests/capi/test_open.py::test_an_empty_variable_is_none",),
    ),
    Mutant(
        f"{_NATIVE}/entry.h",
        "    return __atomic_load_n(&mvi_forked, __ATOMIC_RELAXED) == 0 ? mvi_context_enter(context) : NULL;\n",
        "    return mvi_context_enter(context);\n",
        "reads work in a forked child",
        (f"{_PROCESS}test_memory_that_needs_no_python_is_not_read_in_a_child",),
    ),
    Mutant(
        f"{_NATIVE}/entry_memory.c",
        "    if (mvi_is_forked())\n        return false;\n    mvi_clear_error();\n    return pointer == NULL",
        "    mvi_clear_error();\n    return pointer == NULL",
        "unmap succeeds in a forked child",
        (f"{_PROCESS}test_memory_that_needs_no_python_is_not_read_in_a_child",),
    ),
    Mutant(
        f"{_NATIVE}/stream.c",
        "    size = *position < table->max_address ? mvi_smaller(size, table->max_address - *position) : 0;\n",
        "",
        "a stream reads over the maximum address within a kept page",
        ("tests/capi/test_kept_streams.py::test_streams_end_at_the_end_within_a_kept_page",),
    ),
    Mutant(
        f"{_NATIVE}/environment.c",
        "    return mvi_privileged ? NULL : getenv(name);\n",
        "    return getenv(name);\n",
        "MICROVMI_URI and RUST_LOG of another user count in a setuid program",
        _SETUID,
    ),
    Mutant(
        f"{_NATIVE}/environment.c",
        "    mvi_privileged = getauxval(AT_SECURE) != 0 || geteuid() != getuid() || getegid() != getgid();\n",
        "    mvi_privileged = geteuid() != getuid() || getegid() != getgid();\n",
        "a program that gave up its setuid rights, or has a capability, runs another user's plugins",
        _SETUID,
    ),
    Mutant(
        f"{_CAPI}/entry.py",
        "environment.decide(lib.mvi_environment_counts())\n",
        "environment.decide(True)\n",
        "setuid programs run another user's plugins",
        _SETUID,
    ),
    Mutant(
        "libmicrovmi_py/environment.py",
        "    return bool(pairs.get(_AT_SECURE, 1))\n",
        "    return False\n",
        "a Python with a capability runs another user's plugins",
        (f"{_PRIVILEGES}test_a_python_with_a_capability_ignores_it",),
    ),
    Mutant(
        f"{_NATIVE}/calls.c",
        "here > mvi_thread.stack && here - mvi_thread.stack >= MVI_STACK_NEEDED;\n",
        "true;\n",
        "Python 3.14 ends a host that calls from a small thread or a fiber",
        (f"{_PROCESS}test_a_thread_with_a_small_stack_may_call", f"{_PROCESS}test_a_fiber_may_call"),
        why="seen with Python 3.14 and later; those before get by with 64 KiB for what the test does",
    ),
    Mutant(
        f"{_NATIVE}/calls.c",
        "        mvi_keep_error(errand.code, errand.text);\n",
        "        free(errand.text);\n",
        "a call from a small thread fails without an error",
        (f"{_PROCESS}test_a_thread_with_a_small_stack_may_call",),
    ),
    Mutant(
        f"{_NATIVE}/calls.c",
        "    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);\n    held =",
        "    cancel = PTHREAD_CANCEL_ENABLE;\n    held =",
        "a cancelled thread takes Python's lock with it",
        (f"{_PROCESS}test_a_cancelled_thread_ends_after_its_call",),
    ),
    Mutant(
        f"{_NATIVE}/interpreter.c",
        "    return state != NULL && PyThreadState_GetInterpreter(state) != main_one;\n",
        "    return false;\n",
        "a sub-interpreter that holds the lock waits for itself, with all signals blocked",
        ("tests/startup/test_python_hosts.py::test_a_sub_interpreter_is_refused_or_served_and_never_waits",),
    ),
    Mutant(
        f"{_NATIVE}/error.c",
        "    if (mvi_error_has_key)\n",
        "    if (true)\n",
        "without a key left the host's first one is overwritten",
        (f"{_SHORTAGE}test_the_library_works_again_when_there_is_enough[keys]",),
    ),
    Mutant(
        f"{_NATIVE}/readers.c",
        "    reader = mvi_reader_has_key ? mvi_take_reader() : NULL;\n",
        "    reader = mvi_take_reader();\n",
        "likewise by a read",
        (f"{_SHORTAGE}test_the_library_works_again_when_there_is_enough[keys]",),
    ),
    Mutant(
        f"{_NATIVE}/boot.c",
        "!(running || mvi_interpreter_has_room())",
        "false",
        "a start without memory ends the process, prints, or is never tried again",
        (f"{_SHORTAGE}test_the_library_starts_when_there_is_memory_again",),
    ),
    Mutant(
        f"{_NATIVE}/boot.c",
        "    if (!mvi_boot_failed || mvi_boot_how == MVI_FOR_GOOD)\n",
        "    if (true)\n",
        "a start that failed for a shortage fails for ever",
        (f"{_SHORTAGE}test_the_library_works_again_when_there_is_enough[descriptors]",),
    ),
    Mutant(
        "libmicrovmi_py/drivers/registry.py",
        "        check_room()\n",
        "",
        "without descriptors there are no drivers, now and ever after",
        (f"{_SHORTAGE}test_the_library_works_again_when_there_is_enough[descriptors]",),
        why="the folder of formats is listed first and tells; this is for plug-ins and the import system",
    ),
    Mutant(
        "Makefile",
        "HARD_LINK := -Wl,-z,relro -Wl,-z,now",
        "HARD_LINK := -Wl,-z,relro -Wl,-z,lazy",
        "function pointers of the library can be overwritten",
        (f"{_HARDENING}test_everything_is_bound_at_load_time_and_then_read_only",),
    ),
    Mutant(
        "Makefile",
        "HARDENED := -fstack-protector-strong ",
        "HARDENED := -fno-stack-protector ",
        "a stack overflow in C is not noticed",
        (f"{_HARDENING}test_stacks_and_copies_are_checked",),
    ),
    Mutant(
        f"{_NATIVE}/python.c",
        "    if (mvi_python_fits(version()))\n",
        "    version();\n    if (true)\n",
        "another Python than the library's is called with the wrong layout",
        ("tests/startup/test_python_hosts.py::test_a_foreign_python_is_refused",),
    ),
)
