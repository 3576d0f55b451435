# SPDX-License-Identifier: Apache-2.0
"""Bugs at the boundary between C and Python: structs, arguments, conversions."""

from mutants.mutant import Mutant

STRUCTS = "tests/capi/test_structs.py"
EVENTS_C = "libmicrovmi_py/_native/events.c"
ENTRY_C = "libmicrovmi_py/_native/entry.c"
CONVERT = "libmicrovmi_py/_capi/convert.py"

MUTANTS = (
    Mutant(
        CONVERT,
        "part(*attributes(getattr(struct, name)))",
        "part()",
        "written segments and tables are 0",
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
        CONVERT,
        "None if source == ffi.NULL else registers(source))",
        "None if source == ffi.NULL or source.tag not in _by_tag() else registers(source))",
        "a reply with registers of an unknown tag is accepted",
        (f"{STRUCTS}::test_registers_of_an_unknown_tag_are_not_written",),
    ),
    Mutant(
        CONVERT,
        "kind = _by_tag().get(source.tag)",
        "kind = _by_tag().get(source.tag, _by_tag()[0])",
        "registers of an unknown tag are written",
        (f"{STRUCTS}::test_registers_of_an_unknown_tag_are_not_written",),
    ),
    Mutant(
        ENTRY_C,
        "    return size >= least;",
        "    return size + 1 >= least;",
        "a struct one byte short is read beyond its end",
        (STRUCTS,),
    ),
    Mutant(
        CONVERT,
        "            setattr(inner, member, getattr(source, member))",
        "            pass",
        "segments and tables are not told",
        ("tests/capi/test_open.py::test_a_fake_machine_tells_its_registers",),
    ),
    Mutant(
        CONVERT,
        "attrgetter(*part.__match_args__)",
        "attrgetter(*part.__match_args__[:-1])",
        "written segments have no selector, tables no limit",
        (f"{STRUCTS}::test_every_register_that_is_written_is_read_again",),
    ),
    Mutant(
        ENTRY_C,
        "*told = *known < size ? *known : size;",
        "*told = *known;",
        "an event for a larger struct says that all of it is filled",
        ("tests/capi/test_event_calls.py::test_an_event_for_a_larger_struct_says_how_much_of_it_is_filled",),
    ),
    Mutant(
        CONVERT,
        "return Intercept(kind, pointer.number, pointer.address, pointer.size",
        "return Intercept(kind, pointer.address, pointer.number, pointer.size",
        "number and address of an intercept swapped",
        ("tests/capi/test_event_calls.py::test_a_thousand_events_are_answered",),
    ),
    Mutant(
        CONVERT,
        "check_flags(pointer.flags), page_access(pointer.access)",
        "InterceptFlag.NONE, page_access(pointer.access)",
        "flags of an intercept are lost",
        (f"{STRUCTS}::test_an_intercept_with_a_member_that_is_wrong_is_refused",),
    ),
    Mutant(
        CONVERT,
        "target.flags[kind] = events.flags.get(kind, InterceptFlag.NONE)",
        "pass",
        "C is told of no flags",
        ("tests/contract/test_contract_abilities.py::test_c_and_python_tell_the_same",),
    ),
    Mutant(
        CONVERT,
        "events.stands if kind in events.kinds else Stands.NOTHING",
        "events.stands",
        "what stands is told of kinds that there are not",
        ("tests/contract/test_contract_abilities.py::test_c_and_python_tell_the_same",),
    ),
    Mutant(
        EVENTS_C,
        "memcpy(&taken, intercept, mvi_smaller(intercept->struct_size, sizeof taken));",
        "memcpy(&taken, intercept, sizeof taken);",
        "an intercept of the first version is read past its end",
        (f"{STRUCTS}::test_a_caller_of_the_first_version_intercepts_and_is_told_what_he_knows",),
    ),
    Mutant(
        EVENTS_C,
        "mvi_hand_out(event, &told, sizeof told);",
        "memcpy(event, &told, sizeof told);",
        "an event of the first version is written past its end",
        (f"{STRUCTS}::test_a_caller_of_the_first_version_intercepts_and_is_told_what_he_knows",),
    ),
    Mutant(
        ENTRY_C,
        "mvi_hand_out(abilities, &told, sizeof told);",
        "memcpy(abilities, &told, sizeof told);",
        "abilities of the first version are written past their end",
        (f"{STRUCTS}::test_abilities_for_a_caller_of_the_first_version_end_where_his_do",),
    ),
    Mutant(
        CONVERT,
        "    if bits > PageAccess.ALL:",
        "    if bits > PageAccess.ALL + 1:",
        "an access that there is not is accepted",
        (f"{STRUCTS}::test_an_access_that_there_is_not_is_refused",),
    ),
    Mutant(
        CONVERT,
        "None if source == ffi.NULL else registers(source)",
        "None",
        "registers of an answer are lost",
        (f"{STRUCTS}::test_so_is_every_register_of_an_answer",),
    ),
    Mutant(
        "libmicrovmi_py/_capi/entry.py",
        "row.bytes_read, row.error = done, error.code if error else 0",
        "row.bytes_read, row.error = done, error.code if not done else 0",
        "batch: a request that got a part has no error",
        ("tests/capi/test_batch.py::test_each_request_has_the_result_it_has_alone",),
    ),
    Mutant(
        "libmicrovmi_py/_capi/entry.py",
        "        done[0] = machine.memory.write(convert.buffer(data, size))\n"
        "    except AccessError as err:\n        done[0] = err.completed",
        "        done[0] = machine.memory.write(convert.buffer(data, size))\n"
        "    except AccessError as err:\n        done[0] = 0",
        "a stream write that fails in the middle says that nothing was written",
        (
            "tests/contract/test_contract_failures.py::"
            "test_a_write_that_fails_is_seen_as_far_as_it_got[fake-running-True]",
        ),
    ),
    Mutant(
        "libmicrovmi_py/_capi/entry.py",
        "    except AccessError as err:\n        done[0] = ready + err.completed\n        if not",
        "    except AccessError as err:\n        done[0] = 0\n        if not",
        "a stream read that fails in the middle says that nothing was read",
        ("tests/contract/test_contract_failures.py::test_a_stream_moves_by_what_it_read[fake-running-]",),
    ),
    Mutant(
        "libmicrovmi_py/_capi/entry.py",
        "read_exactly_into(address, view)\n    except AccessError as err:\n        done[0] = ready + err.completed\n",
        "read_exactly_into(address, view)\n    except AccessError as err:\n        done[0] = 0\n",
        "a read that fails in the middle says that nothing was read",
        ("tests/contract/test_contract_failures.py::test_a_read_tells_what_it_has[fake-running-read]",),
    ),
    Mutant(
        "libmicrovmi_py/_capi/convert.py",
        "    return len(ranges)\n",
        "    return min(len(ranges), capacity)\n",
        "a map that does not fit looks as if it did",
        ("tests/capi/test_memory.py::test_the_memory_map_comes_whole_or_in_part",),
    ),
    Mutant(
        "libmicrovmi_py/_capi/mapped.py",
        "        holds.pop()\n",
        "        holds.clear()\n",
        "the first of two holds on memory ends both",
        ("tests/capi/test_map.py::test_an_address_that_was_handed_out_twice_is_given_back_twice",),
    ),
    Mutant(
        "libmicrovmi_py/_capi/mapped.py",
        "        if not holds:\n            del _held[address]",
        "",
        "an entry for each address that was ever mapped",
        ("tests/capi/test_map.py",),
        "costs a few bytes for each address, and what is given back twice is still refused",
    ),
)
