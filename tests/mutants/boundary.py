# SPDX-License-Identifier: Apache-2.0
"""Bugs at the boundary between C and Python: structs, arguments, conversions."""

from mutants.mutant import Mutant

STRUCTS = "tests/capi/test_structs.py"
EVENTS_C = "libmicrovmi_py/_native/events.c"
CONVERT = "libmicrovmi_py/_capi/convert.py"

MUTANTS = (
    Mutant(
        CONVERT,
        "SegmentReg(segment.base, segment.limit, segment.selector)",
        "SegmentReg(segment.base, segment.selector, segment.limit)",
        "written segments: limit and selector swapped",
        (f"{STRUCTS}::test_every_register_that_is_written_is_read_again",),
    ),
    Mutant(
        "libmicrovmi_py/_capi/entry.py",
        "machine.listen(timeout_ms / 1000)",
        "machine.listen(timeout_ms)",
        "listen waits 1000 times as long",
        (f"{STRUCTS}::test_listen_waits_as_many_milliseconds_as_it_is_told",),
    ),
    Mutant(
        EVENTS_C,
        "mvi_need_struct(&reply->struct_size, MVI_REPLY_SIZE,",
        "mvi_need_struct(&reply->struct_size, 0,",
        "a reply with struct_size 0 is accepted",
        (f"{STRUCTS}::test_a_reply_whose_size_is_too_small_leaves_the_event_open",),
    ),
    Mutant(
        EVENTS_C,
        "(reply->registers == NULL || mvi_need_registers(reply->registers)) &&",
        "true &&",
        "a reply with registers of an unknown tag is accepted",
        (f"{STRUCTS}::test_registers_of_an_unknown_tag_are_not_written",),
    ),
    Mutant(
        EVENTS_C,
        "return mvi_enter(context) && mvi_need_registers(registers) &&",
        'return mvi_enter(context) && mvi_need(registers, "registers") &&',
        "registers of an unknown tag are written",
        (f"{STRUCTS}::test_registers_of_an_unknown_tag_are_not_written",),
    ),
    Mutant(
        EVENTS_C,
        "    return *given >= least;",
        "    return *given + 1 >= least;",
        "a struct one byte short is read beyond its end",
        (STRUCTS,),
    ),
)
