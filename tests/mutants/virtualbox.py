# SPDX-License-Identifier: Apache-2.0
"""Bugs of the VirtualBox driver."""

from mutants.mutant import Mutant

HERE = "libmicrovmi_py/drivers/virtualbox"
ARCH = "libmicrovmi_py/arch/x86"
TESTS = "tests/drivers/virtualbox/test_virtualbox"
REGISTERS, EVENTS, MEMORY, TROUBLE = (f"{TESTS}_{name}.py" for name in ("registers", "events", "memory", "trouble"))
KILLED = f"{TESTS}_killed.py"
TOLD = f"{REGISTERS}::test_no_register_is_told_for_another"
WRITTEN = f"{REGISTERS}::test_no_register_is_written_for_another"
FIRST_CALL = f"{TROUBLE}::test_the_first_call_without_an_answer_says_so"
FAILURES = "tests/contract/test_contract_failures.py"
KEPT = f"{FAILURES}::test_an_error_that_is_kept_in_a_cycle_harms_nothing_when_it_is_collected"

MUTANTS = (
    Mutant(
        f"{HERE}/abi.py", '"rsi": 14,\n    "rdi": 15,', '"rsi": 15,\n    "rdi": 14,', "rsi and rdi swapped", (TOLD,)
    ),
    Mutant(
        f"{HERE}/abi.py", '"rsi": 14,\n    "rdi": 15,', '"rsi": 15,\n    "rdi": 14,', "the same, written", (WRITTEN,)
    ),
    Mutant(f"{HERE}/abi.py", '"r10": 6,\n    "r11": 7,', '"r10": 7,\n    "r11": 6,', "r10 and r11 swapped", (TOLD,)),
    Mutant(f"{HERE}/abi.py", '"es": 31, "fs": 32', '"es": 32, "fs": 31', "es and fs swapped", (TOLD,)),
    Mutant(f"{HERE}/abi.py", '"idt": (39, 40)', '"idt": (40, 39)', "base and limit of the IDT swapped", (TOLD,)),
    Mutant(f"{ARCH}/msrs.py", '"lstar": 0xC0000082', '"lstar": 0xC0000083', "CSTAR told for LSTAR", (TOLD,)),
    Mutant(
        f"{ARCH}/msrs.py",
        '"sysenter_esp": 0x175',
        '"sysenter_esp": 0x176',
        "SYSENTER_EIP written for ESP",
        (WRITTEN,),
    ),
    Mutant(
        f"{HERE}/hits.py",
        '& 0xFFFFFFFF for name in ("rax", "rdx")',
        '& 0xFFFFFFFFFFFFFFFF for name in ("rax", "rdx")',
        "MSR value with garbage of the upper halves",
        (f"{EVENTS}::test_the_value_of_an_msr_is_the_lower_halves_of_two_registers",),
    ),
    Mutant(
        f"{HERE}/hits.py",
        'machine.register(0, abi.REGISTERS["rcx"]) & 0xFFFFFFFF',
        'machine.register(0, abi.REGISTERS["rcx"])',
        "an MSR whose number has garbage above is not told",
        (f"{EVENTS}::test_the_value_of_an_msr_is_the_lower_halves_of_two_registers",),
    ),
    Mutant(
        f"{HERE}/hits.py",
        "high << 32 | low",
        "low << 32 | high",
        "halves of an MSR's value swapped",
        (EVENTS,),
    ),
    Mutant(
        f"{HERE}/library.py",
        "        if not believed:\n            self._check()\n        return result",
        "        return result",
        "a call that was given up returns the made-up answer",
        (FIRST_CALL,),
    ),
    Mutant(
        f"{HERE}/library.py",
        "            believed = self._line.end()\n            self._line.unlock()",
        "            believed = True\n            self._line.unlock()",
        "a call that was answered is given up later",
        (f"{TROUBLE}::test_a_call_that_was_answered_is_not_waited_for[range]",),
    ),
    Mutant(
        f"{HERE}/library.py",
        "            if self._users == 0:\n                self._left.set()",
        "            if self._users < 0:\n                self._left.set()",
        "a thread for each machine that was ever open",
        (f"{TROUBLE}::test_opening_and_closing_leaves_nothing",),
    ),
    Mutant(
        f"{HERE}/memory.py",
        "            if not written:\n                self._refused(address, done, len(data))",
        "",
        "refused write is a success",
        (f"{FAILURES}::test_writes_of_python_tell_how_much_was_written[virtualbox-running]",),
    ),
    Mutant(
        f"{HERE}/memory.py",
        'with self._machine.ffi.from_buffer("uint8_t[]", piece) as source:\n                written = ',
        'source = self._machine.ffi.from_buffer("uint8_t[]", piece)\n            if True:\n                written = ',
        "a refused write whose error is kept crashes the host",
        (f"{KEPT}[virtualbox-running]", f"{KEPT}[virtualbox-paused]"),
    ),
    Mutant(
        f"{HERE}/memory.py",
        "requested=size, completed=done)",
        "requested=size, completed=0)",
        "a write refused in the middle says that nothing was written",
        (f"{MEMORY}::test_a_write_that_is_refused_after_a_part_says_how_much_was_written",),
    ),
    Mutant(
        f"{HERE}/memory.py",
        "if done == 0 and not self.read(",
        "if not self.read(",
        "a write refused behind a part that was written may be told as nothing written",
        (MEMORY,),
        "what is refused exists, as the write was checked before; only a range that vanishes meanwhile differs",
    ),
    Mutant(
        f"{HERE}/memory.py",
        "            if not done:\n                buffer[0] = before",
        "            pass",
        "a read that fails leaves a byte of libFDP's",
        (f"{MEMORY}::test_a_read_ends_at_a_hole_and_leaves_the_rest_alone",),
    ),
    Mutant(
        f"{HERE}/memory.py",
        "            else:\n                step //= 2",
        "            else:\n                break",
        "memory in front of a hole is missing",
        (f"{MEMORY}::test_a_read_ends_at_a_hole_and_leaves_the_rest_alone",),
    ),
    Mutant(
        f"{HERE}/memory.py",
        "size > _BELOW_HOLE and",
        "size > 2 * _BELOW_HOLE and",
        "memory above 4 GiB is missing",
        (f"{MEMORY}::test_memory_above_the_hole_below_4_gib_counts",),
    ),
    Mutant(
        f"{HERE}/vcpus.py",
        "machine.register(vcpu, limit) & 0xFFFF\n",
        "machine.register(vcpu, limit)\n",
        "limits with garbage",
        (f"{REGISTERS}::test_limits_and_selectors_have_the_width_that_the_processor_has",),
    ),
    Mutant(
        f"{HERE}/vcpus.py",
        "machine.register(vcpu, number) & 0xFFFF for name, number in abi.SELECTORS",
        "machine.register(vcpu, number) for name, number in abi.SELECTORS",
        "selectors with garbage",
        (f"{REGISTERS}::test_limits_and_selectors_have_the_width_that_the_processor_has",),
    ),
    Mutant(
        f"{ARCH}/descriptors.py",
        'offset + size - 1 > values[f"{table}_limit"]:',
        'offset + size > values[f"{table}_limit"]:',
        "the last descriptor of a table is not read",
        (TOLD,),
    ),
    Mutant(
        f"{ARCH}/descriptors.py",
        "limit << 12 | 0xFFF if",
        "limit << 12 if",
        "limits in pages lose their last 4095 bytes",
        (f"{REGISTERS}::test_segments_are_those_of_the_descriptors_in_memory",),
    ),
    Mutant(
        f"{HERE}/vcpus.py",
        'if "cr2" in values and "cr3" not in values else None',
        "if False else None",
        "CR3 takes the value of CR2",
        (f"{REGISTERS}::test_cr3_stays_when_cr2_is_written",),
    ),
    Mutant(
        "libmicrovmi_py/arch/state.py",
        "strict=True) if value != old[1]}",
        'strict=True) if value != old[1] and name != "efer"}',
        "a change of efer is lost",
        (f"{REGISTERS}::test_registers_that_are_written_are_read_again",),
    ),
    Mutant(
        f"{HERE}/driver.py",
        "        if not self._machine.state() & abi.PAUSED:\n            raise NotSupportedError(",
        "        if False:\n            raise NotSupportedError(",
        "registers of a running machine are written",
        (f"{REGISTERS}::test_other_vcpus_and_running_machines_are_not_written",),
    ),
    Mutant(
        f"{HERE}/stops.py",
        '.count(number) == 1:\n            self._machine.call("FDP_UnsetBreakpoint", number)\n',
        ".count(number) == 1:\n            pass\n",
        "breakpoints stay in the machine after the close",
        (f"{EVENTS}::test_closing_undoes_everything",),
    ),
    Mutant(
        f"{HERE}/stops.py",
        "        if number >= 0 and list(self._armed.values()).count(number) == 1:",
        "        if number >= 0:",
        "a breakpoint goes with the first of two addresses",
        (f"{EVENTS}::test_a_place_with_two_addresses_is_a_breakpoint_until_the_last_of_them_goes",),
    ),
    Mutant(
        f"{HERE}/stops.py",
        "self._step_over = stays and action is ReplyAction.CONTINUE",
        "self._step_over = False",
        "the guest stays at a breakpoint for ever",
        (f"{EVENTS}::test_a_breakpoint_stops_the_guest_each_time_it_comes_by",),
    ),
    Mutant(
        f"{HERE}/channel.py",
        "not stat.S_ISREG(status.st_mode) or status.st_size != size",
        "not stat.S_ISREG(status.st_mode) or status.st_size < size",
        "shared memory that is larger is taken for a machine's",
        (f"{TROUBLE}::test_shared_memory_of_another_size_is_not_touched",),
    ),
    Mutant(
        f"{HERE}/channel.py",
        "os.O_PATH | os.O_NOFOLLOW",
        "os.O_PATH",
        "links are followed",
        (f"{TROUBLE}::test_links_folders_and_pipes_are_not_followed",),
    ),
    Mutant(
        f"{HERE}/fdp.py",
        "        link, self._link = self._link, None\n        if link is not None:\n            link.leave()",
        "        if self._link is not None:\n            self._link.leave()",
        "a machine closed twice takes the link from another",
        (f"{TROUBLE}::test_a_driver_that_is_closed_twice_leaves_other_openings_alone",),
    ),
    Mutant(
        f"{HERE}/stops.py",
        "            if whoever and state & abi.PAUSED and (state & _HIT == _HIT or not self._held):\n",
        "            if False:\n",
        "a client that was killed leaves the guest standing at each of its breakpoints",
        (f"{KILLED}::test_after_a_client_that_was_killed_a_resume_lets_the_guest_run_on",),
    ),
    Mutant(
        f"{HERE}/stops.py",
        "            if whoever and state & abi.PAUSED and (",
        "            if state & abi.PAUSED and (",
        "a close puts clients aside",
        (f"{KILLED}::test_only_who_asks_for_it_puts_clients_aside",),
    ),
    Mutant(
        f"{HERE}/stops.py",
        "(state & _HIT == _HIT or not self._held)",
        "state & _HIT == _HIT",
        "a resume lets the guest run into a dead client's breakpoint",
        (f"{KILLED}::test_after_a_client_that_was_killed_a_resume_lets_the_guest_run_on",),
    ),
    Mutant(
        f"{HERE}/stops.py",
        "if not self._armed and (state := self._state()) & _HIT == _HIT and self._put_aside(state):",
        "if False:",
        "an intercept leaves a dead client's breakpoint",
        (f"{KILLED}::test_the_first_intercept_puts_a_client_aside_that_was_killed_at_a_stop",),
    ),
    Mutant(
        f"{HERE}/stops.py",
        "            if number not in ours:\n",
        "            if True:\n",
        "our own breakpoints go with those of a dead client",
        (f"{KILLED}::test_a_resume_leaves_our_own_breakpoints",),
    ),
    Mutant(
        f"{HERE}/library.py",
        "return users == 1 and self._channel.is_only_ours()",
        "return users == 1",
        "the breakpoints of a client that lives are removed",
        (f"{KILLED}::test_the_breakpoint_of_a_client_that_lives_stays",),
    ),
    Mutant(
        f"{HERE}/library.py",
        "return users == 1 and self._channel.is_only_ours()",
        "return self._channel.is_only_ours()",
        "the breakpoints of another opening of the program are removed",
        (f"{KILLED}::test_another_opening_of_the_same_program_keeps_its_breakpoint",),
    ),
    Mutant(
        f"{HERE}/owner.py",
        "        if _INIT not in others:\n",
        "        if False:\n",
        "a client that is hidden is taken for dead",
        (f"{KILLED}::test_a_machine_is_not_ours_alone_where_not_every_process_shows",),
    ),
    Mutant(
        f"{HERE}/owner.py",
        "not {status.st_uid, 0}.isdisjoint(users)",
        "not {status.st_uid}.isdisjoint(users)",
        "root's client, which may not be looked into, is taken for none",
        (f"{KILLED}::test_a_process_that_cannot_be_looked_into_counts_if_its_user_can_open_the_object",),
    ),
)
