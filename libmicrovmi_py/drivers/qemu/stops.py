# SPDX-License-Identifier: Apache-2.0
"""Whether the machine runs, by what its monitor says, and stopping it and letting it run."""

from __future__ import annotations

from libmicrovmi_py.drivers.base import RUNS, STOPPED, Phase, RunState
from libmicrovmi_py.errors import DriverUnavailableError, IoError, VmGoneError
from libmicrovmi_py.transport.qmp import QmpClient
from libmicrovmi_py.transport.shape import text


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


def run_state(client: QmpClient) -> RunState:
    """The run state. Raises ``VmGoneError`` for a machine that was migrated away."""
    word = text(client.record("query-status").get("status"), "the machine's state")
    if word == "postmigrate":
        raise VmGoneError("the machine was migrated away (postmigrate): it goes on where it was migrated to")
    unknown = f"QEMU tells a state that is not known here ({word})"
    return _STATES.get(word) or RunState(Phase.HALTED, unknown, unknown)


def stop(client: QmpClient) -> None:
    """Stop the machine, and look whether it stopped. Raises ``IoError`` if not.

    QEMU takes the command for a guest that sleeps (S3), too, and says nothing though it has no effect.
    """
    client.execute("stop")
    state = run_state(client)
    if state.phase is Phase.RUNS or state.no_pause:
        reason = state.no_pause or state.no_resume or "somebody else let it run"
        raise IoError(f"QEMU did not stop the machine: {reason}")


def migrates(client: QmpClient) -> bool:
    """Whether a migration is under way."""
    return text(client.record("query-migrate").get("status", "none"), "the status of a migration") not in _NO_MIGRATION


def run(client: QmpClient, *, whoever: bool) -> None:
    """Let the machine run; with ``whoever`` also if somebody else stopped it.

    Raises ``DriverUnavailableError`` if it must not run now.
    """
    state = run_state(client)
    if state.no_resume and whoever:
        raise DriverUnavailableError(state.no_resume)
    if state.phase is Phase.STOPPED or (whoever and state.phase is Phase.HALTED):
        client.execute("cont")
