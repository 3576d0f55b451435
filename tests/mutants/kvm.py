# SPDX-License-Identifier: Apache-2.0
"""Bugs of the KVM driver."""

from mutants.mutant import Mutant

HERE = "libmicrovmi_py/drivers/kvm"
TESTS = "tests/drivers/kvm/test_kvm"
CONTROL, EVENTS, MEMORY, TROUBLE, SHARING = (
    f"{TESTS}_{name}.py" for name in ("control", "events", "memory", "trouble", "sharing")
)
BEHIND_A_HOLE = f"{MEMORY}::test_a_read_that_fails_behind_a_hole_is_no_hole_and_tells_how_far_it_came"
FAILURES = "tests/contract/test_contract_failures.py"

MUTANTS = (
    Mutant(
        f"{HERE}/messages.py",
        "write.number & 0xFFFF if kind is EventKind.CR else write.number",
        "write.number",
        "CR number with garbage of the padding",
        (f"{EVENTS}::test_a_write_of_a_control_register_is_told_and_done",),
    ),
    Mutant(
        f"{HERE}/messages.py",
        "stop.old_value if action is ReplyAction.DENY else stop.new_value",
        "stop.new_value",
        "a write that was denied is done",
        (f"{EVENTS}::test_a_denied_write_keeps_the_control_register",),
    ),
    Mutant(
        f"{HERE}/messages.py",
        '"old_value": write.old_value, "new_value": write.new_value',
        '"old_value": write.new_value, "new_value": write.old_value',
        "old and new value swapped",
        (f"{EVENTS}::test_a_write_of_a_control_register_is_told_and_done",),
    ),
    Mutant(
        f"{HERE}/messages.py",
        '"physical_address": fault.gpa, "virtual_address": fault.gva',
        '"physical_address": fault.gva, "virtual_address": fault.gpa',
        "addresses of an access swapped",
        (f"{EVENTS}::test_an_access_that_was_taken_is_told_and_done_all_the_same",),
    ),
    Mutant(
        f"{HERE}/messages.py",
        "(event.sregs.cs.base + event.regs.rip)",
        "(event.regs.rip)",
        "in real mode the address of a breakpoint lacks its segment",
        (f"{EVENTS}::test_the_address_of_a_breakpoint_in_real_mode_counts_its_segment",),
    ),
    Mutant(
        f"{HERE}/messages.py",
        "bytes(abi.PF_REPLY_SIZE if stop.kind is EventKind.PAGE_ACCESS else 0)",
        "bytes(0)",
        "the answer to an access is too short",
        (f"{EVENTS}::test_an_access_that_was_taken_is_told_and_done_all_the_same",),
    ),
    Mutant(
        f"{HERE}/vcpus.py",
        '_PARTS = ("base", "limit", "selector")',
        '_PARTS = ("base", "selector", "limit")',
        "limit and selector of segments swapped",
        (f"{CONTROL}::test_registers_are_all_told",),
    ),
    Mutant(
        "libmicrovmi_py/arch/x86/msrs.py",
        '    "star": 0xC0000081,\n    "lstar": 0xC0000082,',
        '    "star": 0xC0000082,\n    "lstar": 0xC0000081,',
        "STAR and LSTAR swapped",
        (f"{CONTROL}::test_registers_are_all_told",),
    ),
    Mutant(
        f"{HERE}/vcpus.py",
        "values = {name: int(getattr(regs, name)) for name in GENERAL}",
        'values = {name: int(getattr(regs, name)) for name in GENERAL if name != "rbp"}',
        "rbp is not told",
        (f"{CONTROL}::test_registers_are_all_told",),
    ),
    Mutant(
        f"{HERE}/driver.py",
        'raise self._failure(error, "kvmi_read_physical", frame, offset, done)',
        'raise self._failure(error, "kvmi_read_physical", frame, offset)',
        "a read that fails in the middle says that nothing was read",
        (BEHIND_A_HOLE,),
    ),
    Mutant(
        f"{HERE}/driver.py",
        "            if error == errno.ENOENT:\n                break\n            if error:",
        "            if error:\n                break\n            if error:",
        "a frame that cannot be read is told as not mapped",
        (f"{FAILURES}::test_errors_of_python_tell_the_same[kvm-running]",),
    ),
    Mutant(
        f"{HERE}/driver.py",
        "            if error == errno.ENOENT:\n",
        "            if error:\n",
        "a frame that cannot be read is told as not mapped",
        (BEHIND_A_HOLE,),
    ),
    Mutant(
        f"{HERE}/driver.py",
        "        with self._domain.ffi.from_buffer(buffer) as target:\n            return ",
        "        if target := self._domain.ffi.from_buffer(buffer):\n            return ",
        "an error of a closed machine that is kept crashes the host",
        (
            f"{FAILURES}::test_an_error_that_is_kept_in_a_cycle_harms_nothing_when_it_is_collected[kvm-running]",
            f"{FAILURES}::test_an_error_that_is_kept_in_a_cycle_harms_nothing_when_it_is_collected[kvm-paused]",
        ),
    ),
    Mutant(
        f"{HERE}/driver.py",
        "if frame >= self._machine.frames:",
        "if frame > self._machine.frames:",
        "a frame is asked for that cannot be",
        (MEMORY,),
        "the hypervisor says of it what we would: that it does not exist",
    ),
    Mutant(
        f"{HERE}/machine.py",
        "return int(highest[0]) + 1",
        "return int(highest[0])",
        "the last frame is missing",
        (f"{MEMORY}",),
    ),
    Mutant(
        f"{HERE}/machine.py",
        "            machine.users += 1\n",
        "            pass\n",
        "the first close of two hangs up for both",
        (SHARING,),
    ),
    Mutant(
        f"{HERE}/stops.py",
        "            if self._paused:\n                return\n",
        "",
        "a second pause stops every vCPU twice",
        (f"{CONTROL}::test_a_driver_that_is_told_twice_to_stop_stops_nothing_twice",),
    ),
    Mutant(
        f"{HERE}/stops.py",
        "            self._owed[message.vcpu] -= 1\n",
        "            self._owed[message.vcpu] -= 0\n",
        "a resume waits for vCPUs that go on already",
        (f"{CONTROL}::test_a_pause_stops_every_vcpu_until_the_resume",),
    ),
    Mutant(
        "libmicrovmi_py/machine/events.py",
        "            self._driver.resume(stop, reply.action, values)\n            del self._open[number]",
        "            del self._open[number]\n            self._driver.resume(stop, reply.action, values)",
        "an event whose answer failed can be answered no more",
        (f"{EVENTS}::test_an_event_whose_answer_fails_stays_open",),
    ),
    Mutant(
        f"{HERE}/stops.py",
        "                finally:\n                    self._domain.free(box[0])",
        "                finally:\n                    pass",
        "8 KiB lost for each event",
        (f"{CONTROL}::test_a_thousand_pauses_and_resumes",),
    ),
    Mutant(
        "libmicrovmi_py/machine/events.py",
        "            self._take_back(intercept, before)\n",
        "",
        "an intercept that failed for one vCPU stays on for others",
        (f"{EVENTS}::test_an_intercept_that_one_vcpu_refuses_is_on_for_none",),
    ),
    Mutant(
        f"{HERE}/arming.py",
        "others = any(other is kind for other, _ in self._on.get(vcpu, set()) - {switch})",
        "others = False",
        "with one of two control registers the events of the other end",
        (f"{EVENTS}::test_of_two_control_registers_one_is_left_when_the_other_goes",),
    ),
    Mutant(
        f"{HERE}/library.py",
        'self.lost(f"no answer from the hypervisor within {_LIBRARY_LIMIT:g} s")',
        'self._lost = ""',
        "an answer that comes late is taken for the next one's",
        (TROUBLE,),
    ),
    Mutant(
        f"{HERE}/library.py",
        "self._lib.kvmi_domain_close(self._handle, os.getpid() == self._pid)",
        "self._lib.kvmi_domain_close(self._handle, True)",
        "a child that closes the machine hangs up for its parent",
        (f"{TROUBLE}::test_a_child_that_closes_the_machine_leaves_it_to_its_parent",),
    ),
    Mutant(
        f"{HERE}/listener.py",
        "if len(os.fsencode(path)) > abi.PATH_LIMIT:",
        "if len(os.fsencode(path)) > abi.PATH_LIMIT + 1:",
        "a socket at a path that is cut off",
        ("tests/drivers/kvm/test_kvm_open.py",),
    ),
    Mutant(
        f"{HERE}/listener.py",
        "    if not stat.S_ISSOCK(kind):",
        "    if stat.S_ISDIR(kind):",
        "a file at the socket's path is removed",
        ("tests/drivers/kvm/test_kvm_open.py",),
    ),
)
