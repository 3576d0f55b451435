# SPDX-License-Identifier: Apache-2.0
"""Bugs about processors: facts that all drivers take from one place, and registers of the wrong architecture."""

from mutants.mutant import Mutant

ARCH = "libmicrovmi_py/arch/x86"
FACTS = "tests/test_arch.py"
ARCHITECTURES = "tests/capi/test_architectures.py"

MUTANTS = (
    Mutant(
        f"{ARCH}/descriptors.py",
        "    if is_null(selector) or offset",
        "    if offset",
        "a null selector has a descriptor",
        (f"{FACTS}::test_a_descriptor_is_within_its_table",),
    ),
    Mutant(
        f"{ARCH}/descriptors.py",
        'table = "ldt" if selector & _LOCAL else "gdt"',
        'table = "gdt"',
        "local descriptors are looked up in the global table",
        (f"{FACTS}::test_a_descriptor_is_within_its_table",),
    ),
    Mutant(
        f"{ARCH}/descriptors.py",
        "    if long_mode and low & _CODE_OR_DATA:",
        "    if long_mode:",
        "in long mode a task's segment has no base",
        (f"{FACTS}::test_in_long_mode_only_segments_of_the_system_have_bases",),
    ),
    Mutant(
        f"{ARCH}/paging.py",
        "is_long = bool((efer or 0) & EFER_LMA)",
        "is_long = bool((efer or 0) & EFER_LMA >> 2)",
        "long mode that is only enabled counts as active",
        (f"{FACTS}::test_the_mode_of_paging_is_told_by_three_registers",),
    ),
    Mutant(
        "libmicrovmi_py/machine/registers.py",
        "    check_architecture(registers, driver.architecture)\n",
        "",
        "registers of another architecture are written",
        (
            f"{ARCHITECTURES}::test_an_x86_machine_takes_no_others",
            f"{ARCHITECTURES}::test_python_has_them_as_their_class",
        ),
    ),
    Mutant(
        "libmicrovmi_py/machine/microvmi.py",
        "            check_architecture(reply.registers, self.driver.architecture)\n",
        "            pass\n",
        "an answer has registers of another architecture",
        (f"{ARCHITECTURES}::test_an_event_stays_open_when_its_answer_has_registers_of_another",),
    ),
    Mutant(
        "libmicrovmi_py/_capi/convert.py",
        "    target.tag = registers.architecture\n",
        "    target.tag = 0\n",
        "all registers are told as those of x86",
        (f"{ARCHITECTURES}::test_the_stubs_have_a_machine_s_own",),
    ),
    Mutant(
        "libmicrovmi_py/arch/aarch64/registers.py",
        "    ttbr0_el1: int = 0\n    ttbr1_el1: int = 0\n",
        "    ttbr1_el1: int = 0\n    ttbr0_el1: int = 0\n",
        "members in another order than in the header",
        ("tests/capi/test_abi.py::test_python_registers_are_those_of_the_header",),
    ),
)
