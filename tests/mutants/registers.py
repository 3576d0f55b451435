# SPDX-License-Identifier: Apache-2.0
"""Bugs of the states of vCPUs: what is told that is not known, what is written that must not be."""

from mutants.mutant import Mutant

ARCH, MACHINE, CAPI = (
    "libmicrovmi_py/arch",
    "libmicrovmi_py/machine/registers.py",
    "libmicrovmi_py/_capi/vcpu_states.py",
)
DUMP, KVM = "libmicrovmi_py/drivers/dump", "libmicrovmi_py/drivers/kvm/vcpus.py"
VIRTUALBOX, XEN = "libmicrovmi_py/drivers/virtualbox/vcpus.py", "libmicrovmi_py/drivers/saved/xenstate.py"
C = "libmicrovmi_py/_native/registers.c"

STATES, STRUCTS, NOTES = (
    "tests/test_vcpu_states.py",
    "tests/capi/test_capi_states.py",
    "tests/drivers/dump/test_dump_registers.py",
)
CONTROL, FDP = "tests/drivers/kvm/test_kvm_control.py", "tests/drivers/virtualbox/test_virtualbox_registers.py"
CONTEXT = "tests/drivers/xen/test_xen_context.py"

MUTANTS = (
    Mutant(
        MACHINE,
        "    if not state:\n",
        "    if state is None:\n",
        "a vCPU of which nothing is known has registers that are all 0",
        (f"{STATES}::test_a_vcpu_of_which_nothing_is_known_is_empty_among_all_and_an_error_alone",),
    ),
    Mutant(
        MACHINE,
        "    if fixed := [name for name in values if name not in known]:",
        "    if fixed := [name for name in values if name not in known and not known]:",
        "what cannot be written is handed to the driver",
        (f"{STATES}::test_what_cannot_be_written_is_named_and_nothing_is_written",),
    ),
    Mutant(
        MACHINE,
        "{name: value for name, value in changed.items() if name in known}",
        "changed",
        "the frozen struct writes what cannot be written",
        (f"{STATES}::test_what_cannot_be_written_is_named_and_nothing_is_written",),
    ),
    Mutant(
        MACHINE,
        "    check_values(driver.architecture, values)\n    known = driver.writable_registers\n    if fixed",
        "    known = driver.writable_registers\n    if fixed",
        "values that do not fit, and names that are none, are written",
        (f"{STATES}::test_a_value_that_does_not_fit_is_refused_and_nothing_is_written",),
    ),
    Mutant(
        f"{ARCH}/x86/registers.py",
        '    **{f"{name}_attributes": 12 for name in SEGMENTS},\n',
        "",
        "attributes have 64 bits",
        (f"{STATES}::test_a_value_that_does_not_fit_is_refused_and_nothing_is_written",),
    ),
    Mutant(
        f"{ARCH}/x86/registers.py",
        '{"msr_efer": "efer", "msr_star": "star", "msr_lstar": "lstar"}',
        '{"msr_efer": "efer", "msr_star": "lstar", "msr_lstar": "star"}',
        "STAR and LSTAR swapped in the frozen struct",
        (NOTES, f"{STATES}::test_what_is_not_known_is_0_in_the_frozen_struct_only"),
    ),
    Mutant(
        f"{ARCH}/x86/descriptors.py",
        "rights & 0xFF | rights >> 4 & 0xF00",
        "rights & 0xFFF",
        "bits of the limit are attributes",
        ("tests/test_arch.py::test_a_descriptor_has_base_and_limit_in_pieces",),
    ),
    Mutant(
        f"{ARCH}/state.py",
        "if value != now.get(name, 0)}",
        "}",
        "an answer to an event makes known what was not",
        (f"{STATES}::test_an_answer_to_an_event_makes_nothing_known_that_was_not",),
    ),
    Mutant(
        CAPI,
        "mask, values = _mask(state.architecture, tuple(state))",
        "mask, values = _mask(state.architecture, tuple(name for name in state if state[name]))",
        "a register that is 0 is not known",
        (f"{STRUCTS}::test_all_vcpus_come_in_one_call",),
    ),
    Mutant(
        CAPI,
        "    if known >> len(names):\n",
        "    if False:\n",
        "numbers that are no register's are left out",
        (f"{STRUCTS}::test_what_cannot_be_written_is_refused_and_nothing_is_written",),
    ),
    Mutant(
        CAPI,
        "place + vcpu * room",
        "place + vcpu * _SIZE",
        "structs of a later version overlap",
        (f"{STRUCTS}::test_structs_of_a_later_version_are_stepped_over",),
    ),
    Mutant(
        CAPI,
        "for number, name in enumerate(names) if known >> number & 1}",
        "for number, name in enumerate(names)}",
        "what is not known is written as well",
        (f"{STRUCTS}::test_values_that_are_not_known_are_not_written",),
    ),
    Mutant(
        C,
        '    "cr4",\n    "cr8",\n',
        '    "cr8",\n    "cr4",\n',
        "two names are swapped",
        (f"{STRUCTS}::test_header_library_and_python_have_the_same_numbers",),
    ),
    Mutant(
        C,
        "(capacity == 0 || mvi_need_state(states",
        "(capacity == 0 || mvi_need(states",
        "a struct that is too small is written behind its end",
        (f"{STRUCTS}::test_what_is_wrong_is_refused_and_changes_nothing",),
    ),
    Mutant(
        f"{DUMP}/notes.py",
        "    if min(size, len(content)) >= end:\n",
        "    if True:\n",
        "an old note of QEMU is damaged",
        (f"{NOTES}::test_qemu_knows_attributes_and_since_2_12_the_other_base_of_gs",),
    ),
    Mutant(
        f"{DUMP}/notes.py",
        "_PRESENT if rights & _VBOX_UNUSABLE else 0",
        "0",
        "a segment that cannot be used is present",
        (f"{NOTES}::test_an_unusable_segment_of_virtualbox_is_not_present",),
    ),
    Mutant(
        f"{DUMP}/notes.py",
        'level = values["pstate"] >> 2 & 3 if values["pstate"] & 1 else 0',
        'level = values["pstate"] >> 2 & 3',
        "the stack pointer of programs is told for the kernel's",
        (f"{NOTES}::test_aarch64_notes_have_general_registers_and_no_page_tables",),
    ),
    Mutant(
        f"{DUMP}/windows_registers.py",
        "for bit, names in parts if flags & bit for name in names}",
        "for bit, names in parts for name in names}",
        "a context has what its flags do not say",
        (f"{NOTES}::test_a_windows_context_has_what_its_flags_say",),
    ),
    Mutant(
        f"{DUMP}/__init__.py",
        "            self.architecture = self._processors.states[0].architecture\n",
        "            pass\n",
        "an AArch64 dump is an x86 machine's",
        (f"{NOTES}::test_aarch64_notes_have_general_registers_and_no_page_tables",),
    ),
    Mutant(
        KVM,
        "    if error == errno.EINVAL:  #",
        "    if False:  #",
        "a processor without TSC_AUX has no registers",
        (f"{CONTROL}::test_of_a_processor_without_tsc_aux_the_others_are_told",),
    ),
    Mutant(
        KVM,
        "    return bits & ~_PRESENT if segment.unusable else bits\n",
        "    return bits\n",
        "a segment that cannot be used is present",
        (f"{CONTROL}::test_registers_are_all_told",),
    ),
    Mutant(
        VIRTUALBOX,
        "{**(abi.REGISTERS if vcpu == 0 else {}),",
        "{**abi.REGISTERS,",
        "the first vCPU's registers are told for another's",
        (f"{FDP}::test_what_is_known_of_which_vcpu",),
    ),
    Mutant(
        VIRTUALBOX,
        "long_mode=long_mode) if found else {}",
        "long_mode=long_mode)",
        "a descriptor that is not there has base 0",
        (f"{FDP}::test_a_descriptor_outside_its_table_tells_nothing",),
    ),
    Mutant(
        XEN,
        'known["cr8"] >> 4 & 0xF',
        'known["cr8"] & 0xF',
        "the lower half of the task priority is CR8",
        (f"{CONTEXT}::test_the_apic_and_extended_state_tell_the_rest",),
    ),
    Mutant(
        XEN,
        "    if len(record) < CPU_SIZE:\n",
        "    if False:\n",
        "a vCPU that is offline is an error of all",
        (f"{CONTEXT}::test_the_apic_and_extended_state_tell_the_rest",),
    ),
)
