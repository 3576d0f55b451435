# SPDX-License-Identifier: Apache-2.0
"""Show the registers of vCPUs.

All that are known of each are shown. They belong together only while the machine is paused (--pause), or in a
snapshot.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence

from libmicrovmi_py.arch.state import VcpuState
from libmicrovmi_py.command import kit
from libmicrovmi_py.export.view import View
from libmicrovmi_py.machine.microvmi import Microvmi

_COLUMNS = 3


def arguments(parser: argparse.ArgumentParser) -> None:
    """The machine, vCPUs and registers."""
    kit.machine_argument(parser, view=True, default=View.LIVE)
    parser.add_argument("names", metavar="REGISTER", nargs="*", help="only these, as rip or cr3")
    parser.add_argument("--vcpu", metavar="N", type=kit.size, help="of this vCPU alone, counted from 0")
    kit.json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Read them."""
    with kit.viewed(options) as machine:
        states = _states(machine, options.vcpu)
    chosen = {vcpu: _chosen(state, options.names) for vcpu, state in states.items()}
    document = [
        {"vcpu": vcpu, "registers": {name: f"{value:#x}" for name, value in values.items()}}
        for vcpu, values in chosen.items()
    ]
    kit.show(options, document, lambda: _lines(chosen))
    return 0


def _states(machine: Microvmi, vcpu: int | None) -> dict[int, VcpuState]:
    return dict(enumerate(machine.read_states())) if vcpu is None else {vcpu: machine.read_state(vcpu)}


def _chosen(state: VcpuState, names: Sequence[str]) -> dict[str, int]:
    """Those that were asked for. Raises :class:`kit.Failure` for one that is not known."""
    try:
        return {name: state[name] for name in names or state}
    except KeyError as err:
        raise kit.Failure(f"the register is not known: {err.args[0]}") from err


def _lines(states: Mapping[int, Mapping[str, int]]) -> Iterator[str]:
    for vcpu, values in states.items():
        yield f"vCPU {vcpu}" + ("" if values else ": nothing is known")
        cells = [f"{name:<14} {value:#018x}" for name, value in values.items()]
        for start in range(0, len(cells), _COLUMNS):
            yield "  " + "  ".join(cells[start : start + _COLUMNS])
