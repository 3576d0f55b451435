# SPDX-License-Identifier: Apache-2.0
"""Bugs of events that are found in the guest's code."""

from __future__ import annotations

from mutants.mutant import Mutant

_EVENTS = "libmicrovmi_py/drivers/qemu/events"
_INSTRUCTIONS = f"{_EVENTS}/instructions.py"
_CODE = f"{_EVENTS}/code.py"
_TABLES = f"{_EVENTS}/codetables.py"
_WATCH = f"{_EVENTS}/codewatch.py"
_WRITTEN = f"{_EVENTS}/mechanisms/written.py"
_OWN = f"{_EVENTS}/mechanisms/own_breakpoint.py"
_PAGING = "libmicrovmi_py/arch/x86/paging.py"
_T_INSTRUCTIONS = "tests/drivers/qemu/test_instructions.py"
_T_CODE = "tests/drivers/qemu/test_code.py"
_T_FOUND = "tests/drivers/qemu/test_found_events.py"

MUTANTS = (
    Mutant(
        _INSTRUCTIONS,
        "if _LOCK in prefixes or len(opcode) < 2",
        "if len(opcode) < 2",
        "a write of CR8 is told as one of CR0",
        (_T_INSTRUCTIONS,),
    ),
    Mutant(
        _INSTRUCTIONS,
        "        rex = data[at] if data[at] in _REX else 0\n",
        "        rex = 0\n",
        "the value is told of another register",
        (_T_INSTRUCTIONS,),
    ),
    Mutant(
        _INSTRUCTIONS,
        "            at -= 1\n",
        "            break\n",
        "an instruction with a prefix is missed",
        (_T_INSTRUCTIONS,),
    ),
    Mutant(
        _CODE,
        "PageRights.KERNEL_EXECUTE, PageRights.USER_EXECUTE)",
        "PageRights.KERNEL_EXECUTE, PageRights(0))",
        "programs are searched as if they were the kernel",
        (f"{_T_CODE}::test_what_a_user_may_execute_and_what_nobody_may_is_no_code_of_the_kernel",),
    ),
    Mutant(
        _CODE,
        "            found[twin_tables(tables, memory.read)] = None\n",
        "            pass\n",
        "what only the other tables of a process map is missed",
        (f"{_T_CODE}::test_both_tables_of_a_pair_are_looked_at",),
    ),
    Mutant(
        _CODE,
        "_by_target(ranges, found, self._across_ends(ranges))",
        "_by_target(ranges, found, ())",
        "an instruction that goes on in another frame is missed",
        (f"{_T_CODE}::test_an_instruction_may_go_on_in_a_page_that_is_elsewhere_in_memory",),
    ),
    Mutant(
        _CODE,
        "        start = max((run.start << PAGE_SHIFT) - LONGEST, 0)\n",
        "        start = run.start << PAGE_SHIFT\n",
        "an instruction that ends in a new frame is missed",
        (f"{_T_CODE}::test_an_instruction_may_end_in_a_frame_that_is_new",),
    ),
    Mutant(
        _CODE,
        "        found = {} if anew else {",
        "        found = {",
        "code that is written in place is never found",
        (f"{_T_CODE}::test_code_that_was_written_in_place_is_found_when_all_is_looked_at_anew",),
    ),
    Mutant(
        _CODE,
        '            _refuse(count > _MOST_SITES, f"there are more than {_MOST_SITES}")\n',
        "",
        "a guest has QEMU place as many breakpoints as it likes",
        (f"{_T_CODE}::test_places_are_limited",),
    ),
    Mutant(
        _CODE,
        "            _refuse(count >= _MOST_RANGES,",
        "            _refuse(False,",
        "a guest's page tables are walked for hours",
        (f"{_T_CODE}::test_code_everywhere_is_searched_once_and_refused_where_it_has_too_many_places",),
    ),
    Mutant(
        _PAGING,
        "    return entry & 1 == 1 and not entry >> 63\n",
        "    return entry & 1 == 1 and entry >> 63 != 0\n",
        "new code is not noticed",
        (f"{_T_FOUND}::test_code_whose_page_table_is_written_is_found_at_that_stop",),
    ),
    Mutant(
        _TABLES,
        "                yield from tables_below(self._read(table))\n",
        "",
        "the tables of modules are not watched",
        (f"{_T_FOUND}::test_page_tables_of_code_are_watched_where_the_guest_can_write_them",),
    ),
    Mutant(
        _WATCH,
        "        changed = self._tables.find(spaces, self._code.ranges) or changed\n",
        "        changed = not self._tables.places and self._tables.find(spaces, self._code.ranges) or changed\n",
        "a page table that is made later is not watched",
        (f"{_T_FOUND}::test_a_new_table_beside_those_of_code_is_watched_as_well",),
    ),
    Mutant(
        _WATCH,
        "            self._unsure = before != self.edition\n",
        "",
        "code that appears between a look and the watch is missed",
        (f"{_T_FOUND}::test_what_changes_until_a_new_table_is_watched_is_looked_at_before_the_machine_goes_on",),
    ),
    Mutant(
        _WATCH,
        'if registers["cs_selector"] & 3 or',
        "if",
        "a program at the same address is told as the kernel",
        (f"{_T_FOUND}::test_a_user_s_program_at_the_same_address_is_nobody_s_write",),
    ),
    Mutant(
        _WRITTEN,
        '(registers["rdx"] & _LOW) << 32 | registers["rax"] & _LOW',
        '(registers["rdx"] & _LOW) << 32 | registers["rax"]',
        "the value of an MSR has bits that are not written",
        (f"{_T_FOUND}::test_an_msr_is_told_by_its_number",),
    ),
    Mutant(
        _WRITTEN,
        'registers["cr0"] & ~(_MACHINE_STATUS & ~1) | low',
        'registers["cr0"] & ~_MACHINE_STATUS | low',
        "lmsw is told to clear what it cannot",
        (f"{_T_FOUND}::test_what_cr0_becomes",),
    ),
    Mutant(
        _WRITTEN,
        "                _refuse_kvm(self.machine)\n",
        "                pass\n",
        "a KVM guest's code is written into",
        (f"{_T_FOUND}::test_under_kvm_nothing_is_placed",),
    ),
    Mutant(
        _OWN,
        "            self._frames[vcpu] = found._replace(rip=at)\n",
        "            self._frames[vcpu] = found\n",
        "an exception that is undone goes on behind the instruction",
        (f"{_T_FOUND}::test_an_own_breakpoint_is_told_at_the_handler_and_can_be_undone",),
    ),
    Mutant(
        _OWN,
        "answers=frozenset((ReplyAction.CONTINUE,))",
        "answers=None",
        "an exception is undone to registers that nobody knows",
        (f"{_T_FOUND}::test_a_stack_that_tells_nothing_leaves_one_answer",),
    ),
    Mutant(
        _OWN,
        "places if places and places != self.places else self.places",
        "self.places",
        "breakpoints are not told any more once another table is loaded",
        (f"{_T_FOUND}::test_a_handler_that_is_replaced_is_found",),
    ),
)
