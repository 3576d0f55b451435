# SPDX-License-Identifier: Apache-2.0
"""The vCPUs by the monitor: how many there are, and their registers, by its text and by the devices' state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from libmicrovmi_py.arch.state import VcpuState
from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.control import Phase, RunState
from libmicrovmi_py.drivers.qemu import stops
from libmicrovmi_py.drivers.qemu.devicestate import StateFile
from libmicrovmi_py.drivers.qemu.infotext import (
    by_vcpu,
    is_narrow,
    is_usual_x86,
    parse_aarch64,
    parse_x86,
    parse_x86_core,
)
from libmicrovmi_py.drivers.saved import armstate, x86state
from libmicrovmi_py.drivers.saved.sections import Section, sections
from libmicrovmi_py.errors import DriverUnavailableError, IoError, NotSupportedError, listed, logger
from libmicrovmi_py.model import Architecture, asked_vcpus
from libmicrovmi_py.transport.messages import QmpProtocolError
from libmicrovmi_py.transport.qmp import QmpClient, QmpCommandError, QmpHangupError, Question
from libmicrovmi_py.transport.shape import integer, text

_log = logger(__name__)

_MOST_VCPUS = 0xFFFF
"""What the C API can tell; QEMU has 4096 at the most."""

_HIGHEST_INDEX = (1 << 31) - 1

_ARCHITECTURES = {"x86_64": Architecture.X86, "i386": Architecture.X86, "aarch64": Architecture.AARCH64}

_SETTLED = ("efer", "cr4", "gdt_base", "gdt_limit", "idt_base", "idt_limit")
"""Registers that a guest hardly ever changes once it has started: what two looks at a vCPU that runs must agree on."""

_LOW, _ALL = (1 << 32) - 1, (1 << 64) - 1


_NOT_NOW = "QEMU's devices are not asked while the machine sleeps, is migrated, or others save or load it"
_NOT_BELIEVED = "what QEMU saves of this vCPU has a form that is not known here, or is not what its monitor tells"


class _Saved(NamedTuple):
    """What the devices' state has, by QEMU's numbers of the vCPUs; why nothing, or not all, is taken from it."""

    vcpus: dict[int, dict[str, int]]
    why_not: str


class Vcpus:
    """QEMU's numbers of the vCPUs, in ascending order, and what they execute."""

    def __init__(self, answer: Sequence[Mapping[str, object]]) -> None:
        """``answer`` is that of ``query-cpus-fast``. Raises ``IoError`` for no vCPUs, or more than can be told."""
        integer(len(answer), "the number of vCPUs", 1, _MOST_VCPUS)
        number = "the number of a vCPU"
        self.indexes = sorted(integer(item.get("cpu-index"), number, 0, _HIGHEST_INDEX) for item in answer)
        self.target = text(answer[0].get("target", "x86_64"), "the target of a vCPU")

    @classmethod
    def of(cls, client: QmpClient) -> Vcpus:
        """Those that the machine has now."""
        return cls(client.records("query-cpus-fast"))

    def __len__(self) -> int:
        return len(self.indexes)

    @property
    def architecture(self) -> Architecture | None:
        """``None`` for one whose registers are not known here."""
        return _ARCHITECTURES.get(self.target)


def printed_of(client: QmpClient, vcpus: Vcpus, vcpu: int) -> dict[str, int]:
    """The registers of one vCPU that ``info registers`` shows. Raises ``NotSupportedError`` if it shows none."""
    part = client.human("info registers", cpu_index=vcpus.indexes[vcpu])
    values = parse_x86(part) if known_architecture(vcpus) is Architecture.X86 else parse_aarch64(part)
    if not values:
        raise NotSupportedError("registers: this vCPU executes what is not known here")
    return values


def known_architecture(vcpus: Vcpus) -> Architecture:
    """Raises ``NotSupportedError`` for one that is not known here."""
    if vcpus.architecture is None:
        raise NotSupportedError(f"registers: nothing is known here of vCPUs of architecture {vcpus.target}")
    return vcpus.architecture


def states(
    client: QmpClient,
    state_of: Callable[[str], RunState],
    file: Callable[[], StateFile],
    asked: Sequence[int] | None,
    *,
    unstopped: bool = False,
) -> list[VcpuState]:
    """What is known of these vCPUs, or of all. ``unstopped``: an x86 one that runs is not stopped for it.

    The devices' state tells every register, of all vCPUs at one moment. It is taken where it is understood and agrees
    with the text; where not the text is, and what that does not have is not known, with the reason. Raises
    ``InvalidArgumentError`` for a vCPU that there is not, ``NotSupportedError`` for an architecture that is not known
    here.
    """
    status, migrating, cpus = (client.ask(name) for name in ("query-status", "query-migrate", "query-cpus-fast"))
    everything = client.ask_human("info registers -a") if asked is None else None
    run, vcpus = state_of(stops.word(status)), Vcpus(cpus.records())
    wanted, architecture = asked_vcpus(asked, len(vcpus)), known_architecture(vcpus)
    printed = [] if everything else [_ask_text(client, vcpus, vcpu) for vcpu in wanted]
    stands, saved = run.phase is not Phase.RUNS, _Saved({}, _NOT_NOW)
    unstopped = unstopped and architecture is Architecture.X86  # of others the text does not even have paging
    told = migrating.record()
    if stops.may_save(run, stops.migration_in(told)) and (stands or not unstopped):
        saved = _saved(client, lambda: file().save(client, told, stands=stands), vcpus)
    parts = by_vcpu(everything.human()) if everything else {}
    found = []
    for place, vcpu in enumerate(wanted):
        index = vcpus.indexes[vcpu]
        part = parts.get(index, "") if everything else printed[place].human()
        values = chosen(architecture, part, saved.vcpus.get(index), stands=stands)
        found.append(VcpuState(architecture, values, "" if values is saved.vcpus.get(index) else saved.why_not))
    return found


def _ask_text(client: QmpClient, vcpus: Vcpus, vcpu: int) -> Question:
    return client.ask_human("info registers", cpu_index=vcpus.indexes[vcpu])


def chosen(architecture: Architecture, part: str, saved: dict[str, int] | None, *, stands: bool) -> dict[str, int]:
    """What is saved of a vCPU if that agrees with its text, else what the text has."""
    if architecture is Architecture.AARCH64:
        printed = parse_aarch64(part)
        return saved if saved and _agree(printed, saved, stands=stands) else printed
    if saved and is_usual_x86(part, saved):
        return saved
    if saved and _agree(parse_x86_core(part), saved, narrow=is_narrow(part), stands=stands):
        return saved
    return parse_x86(part)


def _saved(client: QmpClient, save: Callable[[], bytes], vcpus: Vcpus) -> _Saved:
    """The registers in the devices' state; what cannot be had is logged."""
    try:
        data = save()
        found = x86_of(data, vcpus) if vcpus.architecture is Architecture.X86 else aarch64_of(data, vcpus)
    except (QmpHangupError, QmpProtocolError):
        raise
    except QmpCommandError as err:
        why = f"{err}{_blockers(client)}"
    except (IoError, DriverUnavailableError) as err:
        why = str(err)
    else:
        return _Saved(found, _NOT_BELIEVED)
    _log.warning("registers that only the devices' state has are not known: %s", why)
    return _Saved({}, why)


def _blockers(client: QmpClient) -> str:
    """What stands in the way of saving this machine, in QEMU's words (QEMU 6 and later), to be added to its refusal."""
    try:
        told = client.record("query-migrate").get("blocked-reasons", [])
        reasons = [text(reason, "what blocks migrations") for reason in told] if isinstance(told, list) else []
    except (QmpHangupError, QmpProtocolError):
        raise
    except IoError:
        return ""
    return f" (migrations are blocked: {listed(reasons, separator='; ')})" if reasons else ""


def x86_of(data: bytes, vcpus: Vcpus) -> dict[int, dict[str, int]]:
    """The x86 vCPUs in a device state. Raises ``IoError`` if it is none."""
    layout = x86state.Layout(wide=vcpus.target != "i386")
    found = _sections(data, vcpus)
    parsed = [x86state.parse_cpu(data, section, layout) for section in found]
    apics = x86state.parse_apics(data, sections(data, "apic")) or []
    if len(apics) == len(found):  # both are in the order in which the vCPUs were made
        for values, apic in zip(parsed, apics, strict=True):
            if values:
                values.update(apic)
    return _by_index(found, parsed)


def aarch64_of(data: bytes, vcpus: Vcpus) -> dict[int, dict[str, int]]:
    """The AArch64 vCPUs in a device state. Raises ``IoError`` if it is none."""
    found = _sections(data, vcpus)
    return _by_index(found, [armstate.parse_cpu(data, section) for section in found])


def _sections(data: bytes, vcpus: Vcpus) -> list[Section]:
    """That of each vCPU. Raises ``IoError`` unless each has one: what a guest left in a device may look like one."""
    found = sections(data, "cpu")
    if sorted(section.instance for section in found) != vcpus.indexes:
        raise IoError(f"the devices' state has {len(found)} vCPUs, the machine {len(vcpus)}")
    return found


def _by_index(found: Sequence[Section], parsed: Sequence[dict[str, int] | None]) -> dict[int, dict[str, int]]:
    if not all(parsed):
        versions = listed(sorted({str(section.version) for section in found}))
        _log.warning("the devices' state has vCPUs in a form that is not known here (version %s)", versions)
    return {section.instance: values for section, values in zip(found, parsed, strict=True) if values}


def _agree(printed: Mapping[str, int], saved: Mapping[str, int], *, narrow: bool = False, stands: bool) -> bool:
    """Whether both looks at a vCPU may be at the same one.

    All registers of a machine that stands are alike, of one that runs those that hardly ever change; but for flags,
    which QEMU makes up for its text out of the results of the last instructions.
    """
    mask = _LOW if narrow else _ALL
    unlike = [name for name, value in printed.items() if (value ^ saved.get(name, value)) & mask]
    unlike = [name for name in unlike if name in _SETTLED or (stands and name != "rflags")]
    if unlike:
        _log.warning("the devices' state does not agree with the monitor: %s", listed(unlike))
    return bool(printed) and not unlike
