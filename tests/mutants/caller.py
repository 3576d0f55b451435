# SPDX-License-Identifier: Apache-2.0
"""Bugs of calls that another process makes: memory of another size, events that are lost, ends that nobody is told."""

from __future__ import annotations

from mutants.mutant import Mutant

CALLER, FAR, EMIT = (
    "libmicrovmi_py/_native/caller.c",
    "libmicrovmi_py/stubgen/elsewhere.py",
    "libmicrovmi_py/stubgen/emit.py",
)

ARGUMENTS = "tests/capi/test_elsewhere_arguments.py::test_"
ENDS = "tests/capi/test_elsewhere_ends.py::test_"

MUTANTS = (
    Mutant(
        CALLER,
        "    signal(SIGTERM, SIG_IGN);",
        "    signal(SIGUSR2, SIG_IGN);",
        "a service that is stopped cannot let its paused machine run",
        (f"{ENDS}signals_that_end_a_service_leave_the_caller_to_its_program",),
    ),
    Mutant(
        CALLER,
        "!is_gone(fd) &&",
        "true &&",
        "a listen that was broken off takes the events of the next one",
        (f"{ENDS}a_step_is_told_once_and_not_to_who_has_given_up",),
    ),
    Mutant(
        CALLER,
        "    answer_untold(call->arguments);\n",
        "",
        "the guest stands at an event that nobody was told",
        (f"{ENDS}an_event_on_the_way_to_who_is_gone_is_told_the_next",),
    ),
    Mutant(
        CALLER,
        "(good && receive(fd, &told, sizeof told))",
        "good",
        "an event that was sent to who is gone counts as told",
        (f"{ENDS}an_event_on_the_way_to_who_is_gone_is_told_the_next",),
    ),
    Mutant(
        CALLER,
        "!is_true(result) && left > TURN_MS",
        "!is_true(result) && left > TURN_MS && false",
        "a listen ends early",
        (f"{ENDS}a_listen_lasts_as_long_as_was_said",),
    ),
    Mutant(
        CALLER,
        "    if (called == NULL)\n        return false;\n",
        "    if (called == NULL)\n        return answer(fd, call, 0, pieces, sizes);\n",
        "a function that is not there fails without a reason",
        (f"{ENDS}a_function_that_the_library_lacks_is_told_as_by_ctypes",),
    ),
    Mutant(
        CALLER,
        "    return size > 0 || ",
        "    return *fd >= 0 || ",
        "one thread too many closes the machines of all",
        (f"{ENDS}one_thread_too_many_fails_alone",),
    ),
    Mutant(
        CALLER,
        "    raise_limit();\n",
        "",
        "a program of many threads has too few descriptors",
        (f"{ENDS}the_caller_may_open_as_much_as_the_system_allows",),
    ),
    Mutant(
        FAR,
        "        getattr(self._library, name)  # AttributeError, as ctypes words it, for one that it lacks\n",
        "",
        "a module for a later library loads an older one",
        (f"{ENDS}a_function_that_the_library_lacks_is_told_as_by_ctypes",),
    ),
    Mutant(
        FAR,
        "            raise ConnectionError(self._why_gone()) from None\n",
        "            raise\n",
        "nobody is told what has ended",
        (f"{ENDS}after_the_end_of_the_caller_one_line_says_so_and_the_way_out",),
    ),
    Mutant(
        FAR,
        'if code < 0 else f"ended with code {code}"',
        'if code else f"ended with code {code}"',
        "a program that ended by itself is told as killed",
        (f"{ENDS}a_caller_that_ended_by_itself_tells_its_code",),
    ),
    Mutant(
        FAR,
        "taken[index + 1] if index in _COUNTED.get(self._name, ()) else 1",
        "1",
        "the library writes behind the memory that it was given",
        (
            f"{ARGUMENTS}behind_a_pointer_is_as_much_as_the_call_says",
            f"{ARGUMENTS}behind_a_pointer_are_as_many_structs_as_the_call_says",
        ),
    ),
    Mutant(
        FAR,
        "isinstance(value, ctypes.Array) and ctypes.sizeof(value) < needed",
        "not value",
        "what lies behind an array that is too short is overwritten",
        (f"{ARGUMENTS}an_array_that_is_shorter_than_the_call_says_is_refused",),
    ),
    Mutant(
        FAR,
        "    if said > size:\n",
        "    if not size:\n",
        "what lies behind a struct that says to be larger is overwritten",
        (f"{ARGUMENTS}a_struct_that_says_to_be_larger_than_it_is_is_refused",),
    ),
    Mutant(
        EMIT,
        'after.name == "size_t"',
        'after.name == "uint64_t"',
        "the library writes behind the memory that it was given, for the module does not know its size",
        (f"{ARGUMENTS}every_size_in_the_header_is_that_of_the_pointer_before_it",),
    ),
    Mutant(
        FAR,
        "        taken = kind.from_param(value)\n",
        "        taken = value if issubclass(kind, ctypes._Pointer) else kind.from_param(value)\n",
        "memory of another type is taken for what the library fills",
        (f"{ARGUMENTS}what_ctypes_refuses_is_refused_in_its_words",),
    ),
    Mutant(
        FAR,
        "    return ctypes.cast(value, ctypes.c_void_p).value or 0\n",
        "    inner = getattr(value, '_obj', None)\n"
        "    return ctypes.cast(value if inner is None else ctypes.byref(inner), ctypes.c_void_p).value or 0\n",
        "an offset of byref() is lost",
        (f"{ARGUMENTS}an_offset_counts",),
    ),
    Mutant(
        FAR,
        'getattr(value, "_as_parameter_", value)) for',
        "value) for",
        "objects that stand for a number are refused",
        (f"{ARGUMENTS}every_form_of_an_argument_is_taken",),
    ),
)
