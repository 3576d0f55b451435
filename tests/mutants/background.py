# SPDX-License-Identifier: Apache-2.0
"""Bugs of QEMU's snapshots in the background: what is left in QEMU, and pages that are not of the instant."""

from __future__ import annotations

from mutants.mutant import Mutant

QEMU = "libmicrovmi_py/drivers/qemu"
ORDERS, BLOCKS = f"{QEMU}/orders.py", f"{QEMU}/blocks.py"
C = "libmicrovmi_py/_native/migration.c"

ORDERED = "tests/drivers/test_qemu_background.py::test_"
STREAMS = "tests/drivers/qemu/test_migration.py::test_"

MUTANTS = (
    Mutant(
        ORDERS,
        "            if self._able:\n",
        "            if False:\n",
        "the capability stays on",
        (f"{ORDERED}the_orders_are_undone_in_the_other_order",),
    ),
    Mutant(
        ORDERS,
        """_is_marked(client.ask("query-chardev")) and not is_busy(process)""",
        "not is_busy(process)",
        "the capability that somebody else turned on is turned off",
        (f"{ORDERED}what_a_process_of_ours_left_is_undone_at_the_next_opening",),
    ),
    Mutant(
        ORDERS,
        """_is_marked(client.ask("query-chardev")) and not is_busy(process)""",
        """_is_marked(client.ask("query-chardev"))""",
        "the capability of a process that lives is turned off, whose migration is then a migration away",
        (f"{ORDERED}what_a_process_is_about_to_do_that_lives_is_left_alone",),
    ),
    Mutant(
        ORDERS,
        """            if told.get("status") == "failed" and not self.begun:\n""",
        "            if False:\n",
        "QEMU leaves the machine stopped when it could not begin",
        (f"{ORDERED}what_fails_is_undone_and_the_machine_paused_instead",),
    ),
    Mutant(
        ORDERS,
        "if on and name not in _HARMLESS",
        "if False",
        "a stream of another form, by capabilities of somebody else",
        (f"{ORDERED}another_capability_that_is_on_stays_on",),
    ),
    Mutant(
        BLOCKS,
        "return found[0] if len(found) == 1 else None",
        "return found[0] if found else None",
        "of two blocks of one name the first one is taken",
        (f"{STREAMS}ram_that_is_not_certain_is_no_snapshot",),
    ),
    Mutant(
        C,
        "migration->copied < migration->wanted",
        "false",
        "pages that did not come are zeros",
        (f"{STREAMS}wrong_pages_are_told", f"{ORDERED}what_fails_is_undone_and_the_machine_paused_instead"),
    ),
    Mutant(
        C,
        "        return mvi_fail(migration, MVI_MIGRATION_TWICE);\n",
        "        return true;\n",
        "a page that comes twice may be of a later instant",
        (f"{STREAMS}wrong_pages_are_told",),
    ),
)
