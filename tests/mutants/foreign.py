# SPDX-License-Identifier: Apache-2.0
"""Bugs in reads that C does by the function of a hypervisor's library."""

from __future__ import annotations

from mutants.mutant import Mutant

C = "libmicrovmi_py/_native/foreign.c"
KVM = "tests/drivers/kvm/test_kvm_foreign_reads.py"
VIRTUALBOX = "tests/drivers/virtualbox/test_virtualbox_foreign_reads.py"

MUTANTS = (
    Mutant(
        C,
        "    if (!read)\n        *buffer = before;\n",
        "",
        "a read that fails leaves a byte in the caller's buffer",
        (f"{VIRTUALBOX}::test_reads_are_those_of_python",),
    ),
    Mutant(
        C,
        "        read = mvi_line_end(line) && read;\n",
        "        (void)mvi_line_end(line);\n",
        "the answer that ends a wait is taken for the machine's: C's own word is not asked",
        (),
        why="the made-up answer says no by itself; it only differs for a read that was answered at that very moment",
    ),
    Mutant(
        C,
        "        mvi_line_begin(line, mvi_line_now() + limit);\n",
        "        (void)limit;\n",
        "a read that is not answered waits for ever",
        (f"{VIRTUALBOX}::test_a_read_that_is_not_answered_ends_in_time_and_so_do_later_ones",),
    ),
    Mutant(
        C,
        "line->held == NULL || __atomic_load_n(line->held, __ATOMIC_RELAXED) == 0",
        "true",
        "a read waits for another program's request inside the library, and costs the connection",
        (f"{VIRTUALBOX}::test_another_program_s_request_is_awaited",),
    ),
    Mutant(
        C,
        "        part = mvi_smaller(part, PAGE_SIZE - (address & (PAGE_SIZE - 1)));\n",
        "        part = mvi_smaller(part, PAGE_SIZE);\n",
        "a request crosses a frame, which KVM refuses",
        (f"{KVM}::test_reads_are_those_of_python",),
    ),
    Mutant(
        C,
        "    if (mvi_is_lasting(reads, errno))\n        mvi_line_break(foreign->line, errno);\n",
        "",
        "an answer that does not come is awaited twice, and one that comes late is taken for the next one's",
        (f"{KVM}::test_an_answer_that_does_not_come_is_awaited_once_and_ends_the_connection",),
    ),
    Mutant(
        C,
        "    if (__atomic_load_n(&foreign->closed, __ATOMIC_ACQUIRE) || ",
        "    if (",
        "what is closed is read on while others have the machine open",
        (f"{VIRTUALBOX}::test_what_is_closed_is_not_read_though_others_have_the_machine_open",),
    ),
    Mutant(
        C,
        "    mvi_cache_keep(table->cache, epoch, bytes, address, buffer, size);\n",
        "    memcpy(buffer, bytes + (address & (PAGE_SIZE - 1)), size);\n",
        "pages of a paused machine are asked for again and again",
        (f"{KVM}::test_pages_of_a_paused_machine_are_kept_by_c",),
    ),
    Mutant(
        "libmicrovmi_py/_native/entry_memory.c",
        "    dropped = mvi_drop_gil();\n    code =",
        "    dropped = NULL;\n    code =",
        "a host that holds Python's lock keeps it while a library waits for who needs it",
        (f"{KVM}::test_a_host_that_holds_python_s_lock_lets_go_of_it",),
    ),
    Mutant(
        "libmicrovmi_py/drivers/kvm/library.py",
        "        self._line.shut()\n",
        "",
        "calls begin while the connection is being closed",
        ("tests/drivers/kvm/test_kvm_trouble.py::test_no_call_begins_while_the_connection_is_being_closed",),
    ),
    Mutant(
        "libmicrovmi_py/drivers/virtualbox/library.py",
        "not left.wait(_LOOK) or (self._line.busy and self._left is left):",
        "not left.wait(_LOOK):",
        "a read that is under way when the machine is closed waits for ever",
        (f"{VIRTUALBOX}::test_closing_leaves_no_read_without_an_end",),
    ),
    Mutant(
        "libmicrovmi_py/_capi/entry.py",
        "machine.physical.read_into(address + ready, view[ready:])\n    if ready + done < len(view):\n",
        "machine.physical.read_into(address + ready, view[ready:])\n    if False:\n",
        "a read that ends at a hole is a whole one",
        (f"{KVM}::test_reads_are_those_of_python",),
    ),
)
