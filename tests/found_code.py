# SPDX-License-Identifier: Apache-2.0
"""A guest whose page tables and code a test makes, and a machine of it that stands, as mechanisms see it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from pagetables import MIB, Tables

from libmicrovmi_py import Microvmi
from libmicrovmi_py.arch.x86.registers import CR0_PG, CR4_PAE, EFER_LMA, EFER_NXE
from libmicrovmi_py.drivers.base import Driver, Region
from libmicrovmi_py.drivers.guestmemory import GuestMemory
from libmicrovmi_py.drivers.qemu.events.code import Code, Sites
from libmicrovmi_py.drivers.qemu.events.codewatch import CodeWatch
from libmicrovmi_py.drivers.qemu.events.instructions import GENERAL, Target
from libmicrovmi_py.drivers.qemu.events.stopped import Packet, Stopped
from libmicrovmi_py.errors import TimeoutExpiredError
from libmicrovmi_py.events import EventKind
from libmicrovmi_py.model import MemoryKind
from libmicrovmi_py.paging import PageTables, Paging
from libmicrovmi_py.params import Parameters
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.reach import Reach

CR0, CR3, CR4 = (Target(EventKind.CR, number) for number in (0, 3, 4))
WRMSR, MOV_CR3, MOV_CR4 = b"\x0f\x30", b"\x0f\x22\xd8", b"\x0f\x22\xe0"
TEXT, MODULE = 0xFFFF_FFFF_8100_0000, 0xFFFF_FFFF_C000_0000
FRAME = 4 * MIB
"""Where in memory code lies; tables are below."""


class GuestDriver(Driver):
    """Memory in one region; it keeps what it is handed, as a driver that looks into its guest does."""

    name = "guest"
    guest: GuestMemory

    def __init__(self, content: bytearray) -> None:
        self.content = content
        self._regions = (Region(0, len(content), MemoryKind.RAM, self, 0),)

    @classmethod
    def open(cls, params: Parameters) -> GuestDriver:
        return cls(bytearray(8 * MIB))

    def reach(self) -> Reach:
        return Reach(view=memoryview(self.content))

    def open_for_writing(self) -> None:
        pass

    @property
    def max_addr(self) -> int:
        return len(self.content)

    def regions(self) -> Sequence[Region]:
        return self._regions

    def take_memory(self, memory: GuestMemory) -> None:
        self.guest = memory

    def close(self) -> None:
        pass


class Guest:
    """A guest whose memory a test makes; ``tables`` are those of its vCPU."""

    def __init__(self) -> None:
        self.driver = GuestDriver(bytearray(8 * MIB))
        self.memory = self.driver.content
        self.machine = Microvmi.from_driver(self.driver)
        self.tables = Tables(self.memory, "x86-4", MIB)
        self.code = Code(self.driver.guest)

    def put(self, physical: int, data: bytes) -> None:
        self.memory[physical : physical + len(data)] = data

    def look(self, *more: Tables, anew: bool = False) -> bool:
        spaces = [PageTables(Paging(tables.space.paging), tables.base) for tables in (self.tables, *more)]
        return self.code.look(spaces, anew=anew)

    @property
    def sites(self) -> Sites:
        return self.code.sites


class Standing:
    """In place of ``Run``: vCPUs whose registers the test sets, and a monitor that tells the same."""

    def __init__(self, guest: Guest, vcpus: int = 1, *, kvm: bool = False) -> None:
        self.memory = guest.driver.guest
        self.vcpus = range(vcpus)
        self.runs = False
        self.kvm = kvm
        self.values = [self._beginning(guest) for _ in self.vcpus]
        self.code = CodeWatch(self)  # type: ignore[arg-type]
        self.patience: list[float] = []
        """How long the monitor was waited for each time."""
        self.busy = False

    @staticmethod
    def _beginning(guest: Guest) -> dict[str, int]:
        values = dict.fromkeys((*GENERAL, "rip", "fs_base", "gs_base", "kernel_gs_base", "idt_base"), 0)
        control = {"cr0": CR0_PG | 0x3B, "cr3": guest.tables.base, "cr4": CR4_PAE, "efer": EFER_LMA | EFER_NXE}
        return {**values, **control, "cs_selector": 0x10, "idt_limit": 0xFFF}

    def registers(self, vcpu: int) -> Mapping[str, int]:
        return self.values[vcpu]

    def stopped(self, vcpu: int = 0, reason: str = "") -> Stopped:
        """A stop of the machine that QEMU tells of that vCPU."""
        return Stopped(Packet(True, vcpu + 1, reason), vcpu, frozenset(), self.registers)

    @contextmanager
    def client(self) -> Iterator[Standing]:
        self.patience.append(Deadline(10).seconds)
        if self.busy:
            raise TimeoutExpiredError("another thread used the monitor")
        yield self

    def record(self, command: str) -> Mapping[str, object]:
        assert command == "query-kvm"
        return {"enabled": self.kvm}

    def human(self, command: str) -> str:
        """As QEMU prints registers, those that are asked for."""
        assert command == "info registers -a"
        return "".join(f"\nCPU#{vcpu}\n{_printed(values)}" for vcpu, values in enumerate(self.values))


def _printed(values: Mapping[str, int]) -> str:
    return (
        "RIP={rip:016x} RFL=00000002\nIDT=     {idt_base:016x} {idt_limit:08x}\n"
        "CR0={cr0:08x} CR2=0000000000000000 CR3={cr3:016x} CR4={cr4:08x}\nEFER={efer:016x}\n"
    ).format_map(values)
