# SPDX-License-Identifier: Apache-2.0
"""Whether the machine runs, by what its monitor says, and stopping it and letting it run."""

from __future__ import annotations

from collections.abc import Mapping

from libmicrovmi_py.drivers.control import RUNS, STOPPED, Phase, RunState
from libmicrovmi_py.errors import DriverUnavailableError, IoError, VmGoneError
from libmicrovmi_py.model import Architecture
from libmicrovmi_py.transport.qmp import QmpClient, Question
from libmicrovmi_py.transport.shape import flag, text


def _passing(what: str) -> RunState:
    return RunState(Phase.PASSING, f"{what}: wait until that is over", f"{what}: wait until that is over")


def _halted(no_resume: str = "") -> RunState:
    return RunState(Phase.HALTED, no_resume=no_resume)


_STATES = {
    "running": RUNS,
    "paused": STOPPED,
    "prelaunch": _halted(),
    "io-error": _halted(),
    "watchdog": _halted(),
    "guest-panicked": _halted(),
    "debug": _halted("a debugger stopped the machine (debug): let it go on there"),
    "shutdown": _halted("the guest shut down (shutdown): reset it or end QEMU"),
    "internal-error": _halted("QEMU cannot run the machine on (internal-error): reset it"),
    "suspended": RunState(
        Phase.RUNS, no_resume="the machine sleeps (suspended): it runs when it is woken up (system_wakeup)"
    ),
    "inmigrate": RunState(
        Phase.HALTED,
        "the machine waits for an incoming migration (inmigrate) and cannot be paused before it",
        "the machine waits for an incoming migration (inmigrate) and runs when it has come",
    ),
    "preconfig": RunState(
        Phase.HALTED,
        "QEMU has not made the machine yet (preconfig): x-exit-preconfig goes on",
        "QEMU has not made the machine yet (preconfig): x-exit-preconfig goes on",
    ),
    "finish-migrate": _passing("the machine is being migrated away (finish-migrate)"),
    "save-vm": _passing("the machine is being saved (save-vm)"),
    "restore-vm": _passing("a snapshot is being loaded (restore-vm)"),
    "colo": _passing("replication has stopped the machine (colo)"),
}
"""By the words of ``query-status``. ``postmigrate`` is not among them: that machine is somewhere else."""


_NO_MIGRATION = ("none", "cancelled", "failed", "completed")


def word(status: Question) -> str:
    """What ``query-status`` tells."""
    return text(status.record().get("status"), "the machine's state")


def architecture(target: Question) -> Architecture:
    """What ``query-target`` tells."""
    name = text(target.record().get("arch"), "the target of QEMU")
    return Architecture.AARCH64 if name == "aarch64" else Architecture.X86


def run_state(told: str) -> RunState:
    """The run state of that word. Raises ``VmGoneError`` for a machine that was migrated away."""
    if told == "postmigrate":
        raise VmGoneError("the machine was migrated away (postmigrate): it goes on where it was migrated to")
    unknown = f"QEMU tells a state that is not known here ({told})"
    return _STATES.get(told) or RunState(Phase.HALTED, unknown, unknown)


def stopped(client: QmpClient, order: Question) -> str:
    """Look whether a machine stopped that was told to, and return the word for what it does. Raises ``IoError`` if not.

    QEMU takes the command for a guest that sleeps (S3), too, and says nothing though it has no effect; of one that ran
    an event tells that it stands.
    """
    client.run_event = ""
    order.result()
    if client.run_event == "STOP":
        return "paused"
    told = word(client.ask("query-status"))
    state = run_state(told)
    if state.phase is Phase.RUNS or state.no_pause:
        reason = state.no_pause or state.no_resume or "somebody else let it run"
        raise IoError(f"QEMU did not stop the machine: {reason}")
    return told


def migration(status: Question) -> str:
    """What ``query-migrate`` tells; ``none`` if there never was one."""
    return migration_in(status.record())


def migration_in(told: Mapping[str, object]) -> str:
    """As :func:`migration`, of an answer that was taken."""
    return text(told.get("status", "none"), "the status of a migration")


def capabilities(told: Question) -> dict[str, bool]:
    """What ``query-migrate-capabilities`` tells: those that there are, and whether they are on."""
    what = "a capability of migrations"
    return {text(item.get("capability"), what): flag(item.get("state"), what) for item in told.records()}


def migrates(told: str) -> bool:
    """Whether a migration of that word is under way."""
    return told not in _NO_MIGRATION


def is_filled(status: str, migration: str) -> bool:
    """Whether all of the guest's memory has arrived: during a post-copy migration parts of it follow when touched.

    A machine that waits for a migration may be in such a one at any time.
    """
    return status != "inmigrate" and "postcopy" not in migration


def is_awaited(status: str, migration: str) -> bool:
    """Whether nothing in the process is the guest's yet: the machine waits for a migration, of which all is to come."""
    return status == "inmigrate" and "postcopy" not in migration


def may_save(state: RunState, migration: str) -> bool:
    """Whether the devices' state may be saved now: QEMU stops the machine for it, and lets it run as it did before.

    Not while it sleeps, as QEMU 9 and later would not let it sleep on, nor while others save or migrate it.
    """
    sleeps = state.phase is Phase.RUNS and bool(state.no_resume)
    return not sleeps and not state.no_pause and state.phase is not Phase.PASSING and not migrates(migration)


def run(client: QmpClient, state: RunState, *, whoever: bool) -> None:
    """Let a machine run that is in that state; with ``whoever`` also if somebody else stopped it.

    Raises ``DriverUnavailableError`` if it must not run now.
    """
    if state.no_resume and whoever:
        raise DriverUnavailableError(state.no_resume)
    if state.phase is Phase.STOPPED or (whoever and state.phase is Phase.HALTED):
        client.execute("cont")
