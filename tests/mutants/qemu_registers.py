# SPDX-License-Identifier: Apache-2.0
"""Bugs of the registers of QEMU's vCPUs: what is believed of a device state, and what is left after a write."""

from mutants.mutant import Mutant

QEMU, RSP = "libmicrovmi_py/drivers/qemu", "libmicrovmi_py/transport/rsp.py"
STATE, REGISTERS = "tests/drivers/qemu/test_device_state.py", "tests/drivers/qemu/test_registers.py"

MUTANTS = (
    Mutant(
        "libmicrovmi_py/drivers/saved/x86state.py",
        "    if section.version != VERSION or not",
        "    if not",
        "a device state of another version is read as if it were known",
        (f"{STATE}::test_another_version_is_not_known",),
    ),
    Mutant(
        "libmicrovmi_py/drivers/saved/x86state.py",
        " or not section.ends_at(data, layout.struct.size):",
        " or len(data) < section.start + layout.struct.size:",
        "fields of another layout are told as registers",
        (f"{STATE}::test_fields_that_end_elsewhere_make_the_vcpu_unknown",),
    ),
    Mutant(
        f"{QEMU}/vcpus.py",
        "    if sorted(section.instance for section in found) != vcpus.indexes:",
        "    if not set(vcpus.indexes) <= {section.instance for section in found}:",
        "a guest makes up a vCPU in the memory of a device",
        (f"{STATE}::test_a_device_whose_content_looks_like_a_vcpu_makes_all_of_them_doubtful",),
    ),
    Mutant(
        f"{QEMU}/vcpus.py",
        "    return bool(printed) and not unlike\n",
        "    return bool(printed)\n",
        "registers of a device state that does not agree with the monitor are told",
        (f"{STATE}::test_a_state_that_does_not_agree_is_not_taken",),
    ),
    Mutant(
        f"{QEMU}/vcpus.py",
        "and (stands or not unstopped):",
        "and (stands or unstopped or not unstopped):",
        "a call that stopped no machine before stops it",
        (f"{REGISTERS}::test_the_struct_that_does_not_grow_stops_no_machine",),
    ),
    Mutant(
        f"{QEMU}/stops.py",
        "    return not sleeps and not state.no_pause",
        "    return not state.no_pause",
        "a machine that sleeps does not sleep on after its registers were read",
        (f"{REGISTERS}::test_a_machine_that_must_not_be_stopped_for_it_is_not",),
    ),
    Mutant(
        f"{QEMU}/devicestate.py",
        "        added = None if self._kept and self._is_there(client) else self._add(client)\n",
        "        added = self._add(client)\n",
        "reading registers of a machine that stands takes QEMU's descriptors one by one",
        (f"{REGISTERS}::test_what_qemu_holds_of_ours_is_one_set_while_the_machine_stands",),
    ),
    Mutant(
        f"{QEMU}/stub.py",
        "        stack.callback(_detach, client)\n",
        "",
        "the debugger's stub stays open after a write",
        (f"{REGISTERS}::test_what_is_written_is_read_back",),
    ),
    Mutant(
        f"{QEMU}/stub.py",
        '    if rsp.swallowed and stops.word(client.ask("query-status")) == "paused":\n',
        '    if stops.word(client.ask("query-status")) == "paused":\n',
        "a machine that others stopped is let run after a write",
        (f"{REGISTERS}::test_what_others_do_with_the_machine_meanwhile_counts",),
    ),
    Mutant(
        RSP,
        "        if self._watch:\n            self._wait(self._watch)\n",
        "",
        "a machine that others let run during a write stands until the time is over",
        (f"{REGISTERS}::test_what_others_do_with_the_machine_meanwhile_counts",),
    ),
    Mutant(
        f"{QEMU}/stub.py",
        "        if label in others:\n",
        "        if label == others:\n",
        "a write takes the user's debugger's stub away",
        (f"{REGISTERS}::test_a_stub_of_somebody_else_is_left_alone",),
    ),
    Mutant(
        f"{QEMU}/writes.py",
        "    if unlike:\n        _not_taken(rsp, before, places)\n",
        "    if not unlike:\n        _not_taken(rsp, before, places)\n",
        "half of a write that failed stays",
        (f"{REGISTERS}::test_a_value_that_the_vcpu_does_not_take_is_named_and_the_others_taken_back",),
    ),
    Mutant(
        f"{QEMU}/writes.py",
        "            _not_taken(rsp, before, places)\n        raise\n",
        "            pass\n        raise\n",
        "what was written before an error of the stub stays",
        (f"{REGISTERS}::test_what_was_written_before_an_error_of_the_stub_is_taken_back",),
    ),
    Mutant(
        f"{QEMU}/writes.py",
        "        _check_numbers(rsp, known, printed)\n",
        "",
        "another vCPU than was asked for is written",
        (f"{REGISTERS}::test_a_stub_in_trouble_is_told_and_ended",),
    ),
    Mutant(
        RSP,
        'or told != b"%02x" % _checksum(data)',
        "or len(told) != 2",
        "garbage of a stub is taken for an answer",
        ("tests/transport/test_rsp.py::test_a_wrong_answer_is_an_io_error",),
    ),
)
