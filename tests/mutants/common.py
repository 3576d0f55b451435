# SPDX-License-Identifier: Apache-2.0
"""Bugs of the Xen, memflow and fake drivers, and of what all drivers use."""

from mutants.mutant import Mutant

XEN = "libmicrovmi_py/drivers/xen"
XEN_STATE = "libmicrovmi_py/drivers/saved/xenstate.py"
FAKE = "libmicrovmi_py/drivers/fake"
MEMFLOW = "libmicrovmi_py/drivers/memflow.py"
TESTS = "tests/drivers/xen/test_xen"
CONTEXT, EVENTS, END, MEMORY, RING, VMEVENT, LAYOUT = (
    f"{TESTS}_{name}.py" for name in ("context", "events", "end", "memory", "ring", "vmevent", "layout")
)
FAKE_TESTS = "tests/drivers/test_fake.py"
MEMFLOW_TESTS = "tests/drivers/memflow_package/test_memflow_driver.py"
FAILURES = "tests/contract/test_contract_failures.py"

MUTANTS = (
    Mutant(
        XEN_STATE,
        '"rbp", "rsi", "rdi", "rsp",',
        '"rbp", "rdi", "rsi", "rsp",',
        "rsi and rdi swapped",
        (CONTEXT,),
    ),
    Mutant(
        XEN_STATE,
        '"lstar", "star",',
        '"star", "lstar",',
        "STAR and LSTAR swapped",
        (CONTEXT,),
    ),
    Mutant(XEN_STATE, "(*SEGMENTS, *TABLES)", "(*SEGMENTS, *reversed(TABLES))", "tables swapped", (CONTEXT,)),
    Mutant(
        XEN_STATE,
        "[0] & (1 << WIDTHS.get(name, 64)) - 1",
        "[0]",
        "selectors with garbage",
        (CONTEXT,),
    ),
    Mutant(
        XEN_STATE,
        "item.code == CPU and item.instance == vcpu",
        "item.code == CPU",
        "the registers of the first vCPU for all",
        (CONTEXT,),
    ),
    Mutant(
        XEN_STATE,
        "        if offset + length > len(state):\n            break\n",
        "",
        "a record that is cut off is taken",
        (CONTEXT,),
        "the loop ends behind it, with the same error",
    ),
    Mutant(
        XEN_STATE,
        "changed(record, changes(wanted, values(record)))",
        "changed(record, wanted)",
        "what a record keeps above 16 bits is lost by a write",
        (CONTEXT,),
    ),
    Mutant(
        f"{XEN}/ring.py",
        "        if waiting > self._count:",
        "        if waiting > self._count + 1:",
        "a broken ring is read",
        (RING,),
    ),
    Mutant(
        f"{XEN}/vmevent.py",
        'index, _, new, old = request.body("<IIQQ")',
        'index, _, old, new = request.body("<IIQQ")',
        "old and new value of a control register swapped",
        (VMEVENT,),
    ),
    Mutant(
        f"{XEN}/vmevent.py",
        "CR_INDEXES = {0: 0, 3: 1, 4: 2}",
        "CR_INDEXES = {0: 0, 3: 2, 4: 1}",
        "CR3 and CR4 swapped",
        (VMEVENT,),
    ),
    Mutant(
        "libmicrovmi_py/arch/x86/registers.py",
        '"rbp", "rsi", "rdi", *NUMBERED',
        '"rbp", "rdi", "rsi", *NUMBERED',
        "an answer sets rsi for rdi",
        (VMEVENT,),
    ),
    Mutant(
        f"{XEN}/vmevent.py",
        "address if flags & _ADDRESS_TOLD else UNKNOWN_ADDRESS",
        "address",
        "an address that Xen does not know is told",
        (VMEVENT,),
    ),
    Mutant(
        f"{XEN}/vmevent.py",
        "head[1] = head[1] & PAUSED | flags",
        "head[1] = PAUSED | flags",
        "an answer lets a vCPU go on that does not wait",
        (VMEVENT,),
    ),
    Mutant(
        f"{XEN}/stops.py",
        "        if lost:\n            free_stopped(self._libraries, self._domain)\n",
        "",
        "a vCPU whose stop got lost stands for ever after the close",
        (f"{END}::test_what_was_taken_from_the_ring_and_never_answered_stops_nobody_at_the_end",),
    ),
    Mutant(
        f"{XEN}/stops.py",
        "        if not session.disable():\n            return False\n",
        "        session.disable()\n",
        "a vCPU that waits for room in the ring waits for ever",
        (f"{END}::test_a_vcpu_that_waits_for_room_in_the_ring_gets_it_at_the_end",),
    ),
    Mutant(
        f"{XEN}/pending.py",
        "        if stop is None or not stop.waits:\n            session",
        "        if stop is None:\n            session",
        "a ring that fills up with what nobody waits for",
        (f"{END}::test_who_does_not_wait_leaves_its_place_in_the_ring",),
    ),
    Mutant(
        f"{XEN}/stops.py",
        "                held.enter_context(self._domain.held())",
        "                pass",
        "what is on its way when the end comes stays stopped",
        (f"{END}::test_the_domain_is_held_while_it_has_to_be_quiet",),
    ),
    Mutant(
        f"{XEN}/stops.py",
        "arming.allow, self._domain, frame, PageAccess.ALL)",
        "arming.allow, self._domain, frame, self._accesses[frame])",
        "pages stay taken from a guest to whose accesses nobody listens",
        (f"{EVENTS}::test_page_accesses_are_taken_while_they_are_intercepted",),
    ),
    Mutant(
        f"{XEN}/driver.py",
        "        if self._stops.access(frame) == PageAccess.ALL:\n            self._check_there(frame)\n",
        "        self._check_there(frame)\n",
        "a page that a balloon took is never given back",
        (f"{EVENTS}::test_a_page_that_the_guest_has_given_away_is_given_back",),
    ),
    Mutant(
        f"{XEN}/memory.py",
        "            self._kept = OrderedDict() if wanted else None",
        "            self._kept = OrderedDict()",
        "mappings are kept although the domain runs",
        (f"{MEMORY}::test_mappings_are_kept_while_the_domain_is_paused_and_no_longer",),
    ),
    Mutant(
        f"{XEN}/memory.py",
        "                while len(kept) > KEPT:",
        "                while len(kept) > 100 * KEPT:",
        "mappings without a bound",
        (f"{MEMORY}::test_the_mappings_that_are_kept_are_bounded",),
    ),
    Mutant(
        f"{XEN}/memory.py",
        "            size = min(len(buffer) - done, (there << PAGE_SHIFT) - offset)",
        "            size = min(len(buffer) - done, there << PAGE_SHIFT)",
        "a read that begins within a frame takes bytes from behind a mapping",
        (MEMORY,),
    ),
    Mutant(
        f"{XEN}/memory.py",
        "            start = (index << PAGE_SHIFT) + offset\n            size",
        "            start = index << PAGE_SHIFT\n            size",
        "bytes of the frame's start",
        (MEMORY,),
    ),
    Mutant(
        f"{XEN}/memory.py",
        "            found.append(not errors[index])",
        "            found.append(True)",
        "batch: a frame that does not exist is there",
        ("tests/contract/test_contract_reads.py::test_each_request_of_a_batch_has_its_own_result[xen]",),
    ),
    Mutant(
        f"{XEN}/mappings.py",
        "        if mapping.empty:\n            self._check_alive(errors[0])",
        "        if False:\n            self._check_alive(errors[0])",
        "a domain that ended has holes",
        (f"{MEMORY}::test_of_a_domain_that_ended_nothing_stays_mapped",),
    ),
    Mutant(
        f"{XEN}/mappings.py",
        "        if address == ffi.NULL:\n            raise self._domain",
        "        if address == ffi.NULL:\n            raise self._domain.ended() or self._domain",
        "memory that cannot be mapped is told as the domain's end",
        (f"{FAILURES}::test_errors_of_python_tell_the_same[xen-running]",),
    ),
    Mutant(
        XEN_STATE,
        '_APIC_BASE = (LAPIC, 0, "<Q")',
        '_APIC_BASE = (LAPIC, 0, "<I")',
        "an APIC base above 4 GiB",
        (EVENTS, CONTEXT),
        "no processor has it there at reset, and Xen's APIC cannot be moved",
    ),
    Mutant(
        f"{XEN}/driver.py",
        "        self._memory.keep(False)\n        if not whoever:",
        "        if not whoever:",
        "mappings from before a resume are read after it",
        (f"{MEMORY}::test_mappings_are_kept_while_the_domain_is_paused_and_no_longer",),
    ),
    # -------------------------------------------------------------------------------------------------- memflow, fake
    Mutant(
        MEMFLOW,
        "raise IoError(str(err), address=address + done, requested=len(buffer), completed=done) from err",
        "raise",
        "a read of several MiB that fails says that nothing was read",
        (f"{MEMFLOW_TESTS}::test_a_large_read_that_fails_tells_what_it_has",),
    ),
    Mutant(
        MEMFLOW,
        "        if self._read_only:\n            raise ReadOnlyError",
        "        if False:\n            raise ReadOnlyError",
        "a write that a connector cannot do is a success",
        (MEMFLOW_TESTS,),
    ),
    Mutant(
        MEMFLOW,
        "buffer[:] = content[skip : skip + len(buffer)]",
        "buffer[:] = content[: len(buffer)]",
        "bytes of the word's start",
        (MEMFLOW_TESTS,),
    ),
    Mutant(
        MEMFLOW,
        "            del sys.modules[_PACKAGE]\n            raise",
        "            raise",
        "a package that failed once is taken as it is",
        (MEMFLOW_TESTS,),
    ),
    Mutant(
        f"{FAKE}/__init__.py",
        '        _fail_in(self._unwritable, frame, offset, "written")\n',
        "",
        "a frame that was to fail is written",
        (f"{FAKE_TESTS}::test_frames_that_are_to_fail_do",),
    ),
    Mutant(
        f"{FAKE}/__init__.py",
        "yield from range(start >> PAGE_SHIFT, end >> PAGE_SHIFT)",
        "yield from range(start >> PAGE_SHIFT, (end >> PAGE_SHIFT) + 1)",
        "a frame too many fails",
        (f"{FAKE_TESTS}::test_frames_that_are_to_fail_do",),
    ),
    Mutant(
        f"{FAKE}/guest.py",
        "            return dict(self._vcpus[vcpu].values)",
        "            return self._vcpus[vcpu].values",
        "who changes registers that he read changes the machine's",
        (f"{FAKE_TESTS}::test_a_state_that_was_read_is_a_copy",),
    ),
    Mutant(
        "libmicrovmi_py/machine/events.py",
        "            self._taken[frame] = known\n            try:",
        "            try:",
        "page accesses stay taken",
        (f"{FAKE_TESTS}::test_closing_gives_page_accesses_back",),
    ),
    # ------------------------------------------------------------------------------------------------------ vocabulary
    Mutant(
        "libmicrovmi_py/model.py",
        "    if not 0 <= vcpu < count:",
        "    if not 0 <= vcpu <= count:",
        "one vCPU too many",
        ("tests/test_microvmi.py::test_vcpus_are_counted_from_0",),
    ),
    Mutant(
        "libmicrovmi_py/model.py",
        "item.end for item in ranges if item.kind is MemoryKind.RAM",
        "item.end for item in ranges",
        "firmware counts for the maximum address",
        (f"{FAKE_TESTS}::test_the_maximum_address_is_the_end_of_ram",),
    ),
    Mutant(
        "libmicrovmi_py/params.py",
        "    if len(values) != len(once):",
        "    if len(values) > len(once):",
        "of a key given twice one value is taken",
        ("tests/test_params.py",),
    ),
    Mutant(
        "libmicrovmi_py/params.py",
        'if not 0 < value < float("inf"):',
        "if not 0 < value:",
        "timeout=inf",
        ("tests/test_params.py",),
    ),
)
