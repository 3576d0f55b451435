# SPDX-License-Identifier: Apache-2.0
"""A virtual machine made of bytes, for tests of programs that use this library: no hypervisor, every ability.

``vmi://fake/?size=0x200000&holes=0x4000-0x6000,0x9000-0xa000&rom=0xf0000-0x100000&vcpus=2`` in C, or
``FakeDriver({0: bytearray(...), 0x10000: bytearray(...)})`` in Python.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import pairwise

from libmicrovmi_py.arch.state import NAMES, VcpuState
from libmicrovmi_py.arch.x86.registers import CODE_AND_DATA, SEGMENTS, TABLES
from libmicrovmi_py.declare import TYPE_CHECKING, ClassVar, replace
from libmicrovmi_py.drivers.base import Driver, able_by_class
from libmicrovmi_py.drivers.control import RUNS, STOPPED, RunState
from libmicrovmi_py.drivers.fake.guest import ABILITIES, FakeVcpus
from libmicrovmi_py.errors import InvalidArgumentError, IoError, NotSupportedError, ReadOnlyError, not_mapped
from libmicrovmi_py.events import NO_EVENTS, EventAbilities, Intercept, PageAccess, ReplyAction, Stop
from libmicrovmi_py.model import (
    PAGE_SHIFT,
    PAGE_SIZE,
    Architecture,
    MemoryKind,
    MemoryRange,
    asked_vcpus,
    check_vcpu,
    end_of_ram,
)
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.fds import StandardStreamsHeld

if TYPE_CHECKING:
    from libmicrovmi_py.listed import ListedMachine

MAX_SIZE = 1 << 32
_SIZE, _VCPUS = 1 << 20, 1
"""Of a machine that nothing is said of."""

_DATA, _BUSY_TASK, _LOCAL_TABLE = 0x93, 0x8B, 0x82
"""Attributes of segments: present; read and written, accessed; a busy task; a local table of descriptors."""

_EL1H, _CORTEX_A57 = 0x3C5, 0x411FD070
"""The kernel's level with a stack of its own and all interrupts masked; which processor it is."""


class FakeDriver(Driver):
    """Memory is a mapping from guest-physical addresses to bytes, each a whole number of frames at a frame's start.

    ``rom`` holds addresses of that mapping whose bytes cannot be written. ``unreadable`` and ``unwritable`` hold frame
    numbers: every read, or write, of these fails with ``IoError``, as those of a hypervisor may in the middle of an
    access. ``states`` has one item a vCPU, all of one architecture; what is not in it is not known.
    ``running`` tells and sets the run state. The vCPUs do something only while they are listened to.
    """

    name = "fake"
    automatic = False
    parameters: ClassVar[dict[str, str]] = {
        "size": "bytes of memory, a multiple of 4096 (default 0x100000, at most 4 GiB)",
        "holes": "START-END,... ranges that do not exist, END is one past the last byte, multiples of 4096",
        "rom": "START-END,... ranges that cannot be written",
        "unreadable": "START-END,... ranges that exist but fail with an I/O error when they are read or written",
        "unwritable": "START-END,... ranges that fail with an I/O error when they are written",
        "pattern": "number (default: each 8 bytes hold their frame's number, little-endian) or zero",
        "vcpus": "number of vCPUs (default 1)",
        "architecture": "x86 (default) or aarch64, which has no events",
    }

    def __init__(
        self,
        memory: Mapping[int, bytearray],
        *,
        rom: Iterable[int] = (),
        unreadable: Iterable[int] = (),
        unwritable: Iterable[int] = (),
        states: Sequence[VcpuState] | None = None,
    ) -> None:
        rom = frozenset(rom)
        self._starts: list[int] = []  # the first frame of each piece, ascending: few objects, as a real machine has
        self._pieces: list[memoryview] = []
        self._rom: set[int] = set()
        self._unreadable = frozenset(unreadable)
        self._unwritable = self._unreadable.union(unwritable)
        for start, content in sorted(memory.items()):
            if start % PAGE_SIZE or len(content) % PAGE_SIZE:
                raise InvalidArgumentError(f"memory at {start:#x} is not made of whole frames of {PAGE_SIZE} bytes")
            self._add(start >> PAGE_SHIFT, memoryview(content), start in rom)
        self._ranges = tuple(
            MemoryRange(start, len(memory[start]), MemoryKind.ROM if start in rom else MemoryKind.RAM)
            for start in sorted(memory)
            if len(memory[start])
        )
        self._max_addr = end_of_ram(self._ranges)
        states = states or [reset_state(Architecture.X86)]
        self.architecture = states[0].architecture
        self._vcpus = len(states)
        self._guest = FakeVcpus(states, partial(_is_there, self._starts, self._pieces))

    def _add(self, first: int, content: memoryview, rom: bool) -> None:
        if not content:
            return
        if _is_there(self._starts, self._pieces, first):
            raise InvalidArgumentError(f"memory at {first << PAGE_SHIFT:#x} is given twice")
        self._starts.append(first)
        self._pieces.append(content)
        if rom:
            self._rom.update(range(first, first + (len(content) >> PAGE_SHIFT)))

    @classmethod
    def open(cls, params: Parameters) -> FakeDriver:
        size = params.integer("size", _SIZE)
        if not 0 < size <= MAX_SIZE or size % PAGE_SIZE:
            raise InvalidArgumentError(f"size={size:#x}: not a multiple of {PAGE_SIZE} up to {MAX_SIZE:#x}")
        vcpus = params.integer("vcpus", _VCPUS)
        if not 1 <= vcpus <= 0xFFFF:
            raise InvalidArgumentError(f"vcpus={vcpus}: not between 1 and 65535")
        if params.get("pattern", "number") not in ("number", "zero"):
            raise InvalidArgumentError(f"pattern={params['pattern']}: use number or zero")
        if (architecture := params.get("architecture", "x86")) not in ("x86", "aarch64"):
            raise InvalidArgumentError(f"architecture={architecture}: use x86 or aarch64")
        content = bytearray(size) if params.get("pattern") == "zero" else _numbered(size)
        memory, rom = _cut(content, _ranges(params, "holes"), _ranges(params, "rom"))
        return cls(
            memory,
            rom=rom,
            unreadable=_frames(params, "unreadable"),
            unwritable=_frames(params, "unwritable"),
            states=[reset_state(Architecture[architecture.upper()])] * vcpus,
        )

    @classmethod
    def machines(cls) -> Iterator[ListedMachine]:
        """The machine that there is without parameters; each opening makes another one."""
        with StandardStreamsHeld():
            from libmicrovmi_py.listed import ListedMachine, MachineState, uri_of
        one = ListedMachine(cls.name, cls.type, uri=uri_of(cls.name), state=MachineState.RUNNING)
        return iter([replace(one, memory=_SIZE, vcpus=_VCPUS, abilities=able_by_class(cls))])

    @property
    def max_addr(self) -> int:
        return self._max_addr

    def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None:
        """Copy from a frame's bytes."""
        content, start = self._place(frame)
        _fail_in(self._unreadable, frame, offset, "read")
        start += offset
        buffer[:] = content[start : start + len(buffer)]

    def write_frame(self, frame: int, offset: int, data: memoryview) -> None:
        """Copy into a frame's bytes, unless it is ROM."""
        content, start = self._place(frame)
        if frame in self._rom:
            address = (frame << PAGE_SHIFT) + offset
            raise ReadOnlyError(f"physical address {address:#x} is read-only memory", address=address)
        _fail_in(self._unwritable, frame, offset, "written")
        start += offset
        content[start : start + len(data)] = data

    def _place(self, frame: int) -> tuple[memoryview, int]:
        """The piece that holds a frame, and where in it."""
        index = bisect_right(self._starts, frame) - 1
        if index >= 0:
            piece, start = self._pieces[index], (frame - self._starts[index]) << PAGE_SHIFT
            if start < len(piece):
                return piece, start
        raise not_mapped(frame << PAGE_SHIFT)

    def memory_map(self) -> Sequence[MemoryRange]:
        """The ranges it was made with."""
        return self._ranges

    @property
    def running(self) -> bool:
        """The run state."""
        return self._guest.running

    @running.setter
    def running(self, running: bool) -> None:
        self._guest.running = running

    def run_state(self) -> RunState:
        """RUNS or STOPPED."""
        return RUNS if self.running else STOPPED

    def stop(self) -> None:
        """Stop."""
        self.running = False

    def run(self, *, whoever: bool) -> None:
        """Run."""
        self.running = True

    def vcpu_count(self) -> int:
        """One for every item of ``states``."""
        return self._vcpus

    def read_states(self, vcpus: Sequence[int] | None) -> list[VcpuState]:
        """The items of ``states``, with what the vCPUs and others wrote since."""
        asked = asked_vcpus(vcpus, self._vcpus)
        return [VcpuState(self.architecture, self._guest.values(vcpu)) for vcpu in asked]

    @property
    def writable_registers(self) -> Sequence[str]:
        """All of them."""
        return NAMES[self.architecture]

    def write_state(self, vcpu: int, values: Mapping[str, int]) -> None:
        """All of them; those that were not known are known then."""
        check_vcpu(vcpu, self._vcpus)
        self._guest.write(vcpu, values)

    def get_page_access(self, frame: int) -> PageAccess:
        """Everything, unless it was taken."""
        self._check_events("tell page accesses")
        self._place(frame)
        return self._guest.access(frame)

    def set_page_access(self, frame: int, access: PageAccess) -> None:
        """Any combination."""
        self._check_events("change page accesses")
        self._place(frame)
        self._guest.set_access(frame, access)

    def _check_events(self, action: str) -> None:
        if not self.event_abilities.kinds:
            raise NotSupportedError(f"the fake driver cannot {action} of an AArch64 machine")

    @property
    def event_abilities(self) -> EventAbilities:
        """Everything of x86; of MSRs the program of the vCPUs writes the SYSENTER ones only."""
        return ABILITIES if self.architecture is Architecture.X86 else NO_EVENTS

    def arm(self, intercept: Intercept, vcpus: frozenset[int]) -> None:
        """Any kind."""
        self._guest.arm(intercept, vcpus)

    def poll(self, timeout: float) -> Stop | None:
        """Let the vCPUs run until one stands; see :class:`~libmicrovmi_py.drivers.fake.guest.FakeVcpus`."""
        return self._guest.poll(timeout)

    def resume(self, stop: Stop, action: ReplyAction, registers: Mapping[str, int] | None) -> None:
        """DENY is for registers."""
        self._guest.resume(stop, action, registers)

    def quiet(self) -> AbstractContextManager[None]:
        """The vCPUs do nothing."""
        return self._guest.quiet()

    def end_events(self) -> bool:
        """There is nothing to end."""
        return True

    @property
    def left_behind(self) -> int:
        """How much a program has left behind at present: intercepts, pages of which something is taken, open events."""
        return self._guest.left()

    def close(self) -> None:
        """Nothing to release."""


def _is_there(starts: Sequence[int], pieces: Sequence[memoryview], frame: int) -> bool:
    index = bisect_right(starts, frame) - 1
    return index >= 0 and (frame - starts[index]) << PAGE_SHIFT < len(pieces[index])


def reset_state(architecture: Architecture) -> VcpuState:
    """A vCPU right after reset, of which everything is known: x86 as the Intel SDM (volume 3, table 10-1) has it."""
    values = dict.fromkeys(NAMES[architecture], 0)
    if architecture is not Architecture.X86:
        return VcpuState(architecture, {**values, "pstate": _EL1H, "midr_el1": _CORTEX_A57})
    values |= {f"{name}_limit": 0xFFFF for name in (*SEGMENTS, *TABLES)}
    values |= {f"{name}_attributes": _DATA for name in CODE_AND_DATA}
    values |= {"tr_attributes": _BUSY_TASK, "ldt_attributes": _LOCAL_TABLE}
    values |= {"cs_base": 0xFFFF0000, "cs_selector": 0xF000, "rip": 0xFFF0, "rflags": 2, "rdx": 0x600}
    values |= {"cr0": 0x60000010, "dr6": 0xFFFF0FF0, "dr7": 0x400, "xcr0": 1, "apic_base": 0xFEE00900}
    return VcpuState(architecture, values)


def _numbered(size: int) -> bytearray:
    return bytearray(
        b"".join(frame.to_bytes(8, "little") * (PAGE_SIZE // 8) for frame in range(size >> PAGE_SHIFT)),
    )


def _ranges(params: Parameters, key: str) -> list[tuple[int, int]]:
    found = []
    for item in params.get(key, "").split(","):
        start, _, end = item.partition("-")
        if not item:
            continue
        try:
            first, last = int(start, 0), int(end, 0)
        except ValueError:
            first, last = 0, -1
        if first >= last or first % PAGE_SIZE or last % PAGE_SIZE:
            raise InvalidArgumentError(f"{key}={params[key]}: {item} is not START-END in multiples of {PAGE_SIZE}")
        found.append((first, last))
    return found


def _frames(params: Parameters, key: str) -> Iterator[int]:
    for start, end in _ranges(params, key):
        yield from range(start >> PAGE_SHIFT, end >> PAGE_SHIFT)


def _fail_in(frames: Container[int], frame: int, offset: int, done: str) -> None:
    if frame in frames:
        address = (frame << PAGE_SHIFT) + offset
        raise IoError(f"physical address {address:#x} cannot be {done}, as was asked for", address=address)


def _cut(
    content: bytearray, holes: list[tuple[int, int]], rom: list[tuple[int, int]]
) -> tuple[dict[int, bytearray], set[int]]:
    """Cut memory at the edges of holes and ROM; the pieces, and the starts of those that are ROM."""
    size = len(content)
    edges = sorted({0, size, *(min(edge, size) for pair in [*holes, *rom] for edge in pair)})
    pieces = {start: content[start:end] for start, end in pairwise(edges)}
    kept = {start: piece for start, piece in pieces.items() if not _within(start, holes)}
    return kept, {start for start in kept if _within(start, rom)}


def _within(address: int, ranges: list[tuple[int, int]]) -> bool:
    return any(start <= address < end for start, end in ranges)


DRIVER = FakeDriver
