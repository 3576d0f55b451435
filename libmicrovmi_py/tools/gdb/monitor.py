# SPDX-License-Identifier: Apache-2.0
"""What ``monitor ...`` understands: what a debugger's own commands do not show of a machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.model import Architecture
from libmicrovmi_py.paging import PageRights
from libmicrovmi_py.tools.gdb import current
from libmicrovmi_py.tools.gdb.vcpus import Vcpus

if TYPE_CHECKING:
    from libmicrovmi_py.linux.kernel import Kernel

_MOST_SHOWN = 0x10000
"""Bytes of memory that one command shows."""

_LINE = 16
_LONGEST_COMMAND = 64
"""Characters of a word that is not known which are shown."""


class Monitor:
    """Commands on one machine."""

    def __init__(self, machine: Microvmi, vcpus: Vcpus, kernel: Kernel | None = None) -> None:
        self._machine = machine
        self._vcpus = vcpus
        self._kernel = kernel
        self._commands: Mapping[str, tuple[str, str, Callable[[Sequence[str]], str]]] = {
            "help": ("", "this", self._help),
            "regs": ("[VCPU]", "every register that is known, 0 by default", self._registers),
            "cr3": ("", "the page tables of each vCPU", self._tables),
            "translate": ("ADDRESS [VCPU]", "what becomes of a virtual address", self._translate),
            "xp": ("ADDRESS [BYTES]", "physical memory, 64 bytes by default", self._physical),
            "memory": ("[virtual|physical]", "what addresses of x, print and set are", self._memory),
            "map": ("", "the ranges of physical memory", self._map),
        }

    def run(self, line: str) -> str:
        """What a line of the user's gives. Raises as the library does."""
        name, *arguments = line.split() or ["help"]
        known = [command for command in self._commands if command.startswith(name)]
        if len(known) != 1:
            return f"{name[:_LONGEST_COMMAND]!a}: no such command, try: monitor help\n"
        return self._commands[known[0]][2](arguments)

    def about(self, vcpu: int) -> str:
        """A vCPU in a line of a list of threads."""
        where = _mode(self._vcpus.architecture, self._vcpus.state(vcpu))
        task = current.task_of(self._kernel, vcpu) if self._kernel is not None else ""
        return ", ".join(filter(None, (f"vCPU {vcpu}", where, task)))

    def _help(self, _: Sequence[str]) -> str:
        return "".join(
            f"monitor {f'{name} {arguments}':32} {text}\n" for name, (arguments, text, _) in self._commands.items()
        )

    def _registers(self, arguments: Sequence[str]) -> str:
        state = self._vcpus.state(self._vcpu(arguments))
        if not state:
            return f"no registers are known: {state.why_unknown or self._vcpus.why_unknown}\n"
        more = f"not all are known: {state.why_unknown}\n" if state.why_unknown else ""
        return "".join(f"{name:20} {value:#018x}\n" for name, value in state.items()) + more

    def _vcpu(self, arguments: Sequence[str]) -> int:
        number = _number(arguments[0]) if arguments else 0
        if number >= self._vcpus.count:
            raise InvalidArgumentError(f"there is no vCPU {number}: {self._vcpus.count} are there, from 0 on")
        return number

    def _tables(self, _: Sequence[str]) -> str:
        return "".join(self._tables_of(vcpu) for vcpu in range(self._vcpus.count))

    def _tables_of(self, vcpu: int) -> str:
        tables = self._vcpus.space(vcpu, 0).tables
        upper = f", upper {tables.upper_base:#x}" if self._vcpus.architecture is Architecture.AARCH64 else ""
        return f"vCPU {vcpu}: {tables.base:#x}{upper}, {tables.paging.name}\n"

    def _translate(self, arguments: Sequence[str]) -> str:
        address = _number(_first(arguments, "an address"))
        found = self._vcpus.space(self._vcpu(arguments[1:]), address).translate(address)
        if found.physical_address is None:
            return f"{address:#x}: {found.failure.name} at level {found.level}\n"
        rights = ", ".join(right.name or "" for right in PageRights if right in found.rights)
        return f"{address:#x}: physical {found.physical_address:#x}, a page of {found.page_size:#x} bytes, {rights}\n"

    def _physical(self, arguments: Sequence[str]) -> str:
        address = _number(_first(arguments, "an address"))
        size = min(_number(arguments[1]) if arguments[1:] else 64, _MOST_SHOWN)
        buffer = bytearray(size)
        data = bytes(buffer[: self._machine.read_physical_into(address, buffer)])
        lines = (_hexadecimal(address + at, data[at : at + _LINE]) for at in range(0, len(data), _LINE))
        end = f"{address + len(data):#x}: no memory\n" if len(data) < size else ""
        return "".join(lines) + end

    def _memory(self, arguments: Sequence[str]) -> str:
        if arguments:
            if arguments[0] not in ("virtual", "physical"):
                raise InvalidArgumentError("memory is virtual or physical")
            self._vcpus.physical = arguments[0] == "physical"
        return f"addresses are {'physical' if self._vcpus.physical else 'virtual'}\n"

    def _map(self, _: Sequence[str]) -> str:
        ranges = self._machine.memory_map()
        return "".join(f"{item.start:#014x} to {item.start + item.size:#014x} {item.kind.name}\n" for item in ranges)


def _mode(architecture: Architecture, state: Mapping[str, int]) -> str:
    """Whether the kernel runs on a vCPU, or a program; "" if that is not known."""
    if architecture is Architecture.AARCH64:
        return f"EL{state['pstate'] >> 2 & 3}" if "pstate" in state else ""
    return ("kernel", "ring 1", "ring 2", "user")[state["cs_selector"] & 3] if "cs_selector" in state else ""


def _first(arguments: Sequence[str], what: str) -> str:
    if not arguments:
        raise InvalidArgumentError(f"name {what}")
    return arguments[0]


def _number(text: str) -> int:
    """A number as people write them, of 64 bits."""
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 64:
        raise InvalidArgumentError(f"{text[:_LONGEST_COMMAND]!a} is no number of 64 bits: write 0x1000, or 4096")
    return number


def _hexadecimal(address: int, data: bytes) -> str:
    text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)
    return f"{address:#014x}  {data.hex(' '):{3 * _LINE}} {text}\n"
