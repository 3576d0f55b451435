# SPDX-License-Identifier: Apache-2.0
"""One opening of a machine: the words of libFDP as functions with values and errors."""

from __future__ import annotations

from libmicrovmi_py.declare import Any
from libmicrovmi_py.drivers.virtualbox.library import Link
from libmicrovmi_py.errors import DriverUnavailableError, IoError, TimeoutExpiredError, was_closed

_FIRST = {"FDP_GetPhysicalMemorySize": "uint64_t *", "FDP_GetCpuCount": "uint32_t *"}


class Machine:
    """A link and a time limit. All may be called from any thread."""

    def __init__(self, name: str, library: str, limit: float) -> None:
        """Raises what ``Link.open`` does."""
        self.name = name
        self._limit = limit
        self._link: Link | None = Link.open(name, library, limit)
        self.ffi = self._link.ffi
        self.reads = self._link.reads(limit)
        try:
            self.ram_size, self.vcpus = (self._ask(function, kind) for function, kind in _FIRST.items())
        except TimeoutExpiredError as err:
            self.close()
            reason = f"the machine {name} does not answer within {limit:g} s"
            raise DriverUnavailableError(f"{reason}; is it running, or is its shared memory a leftover?") from err
        except BaseException:
            self.close()
            raise

    def call(self, function: str, *arguments: Any) -> Any:
        """Call into libFDP. Raises ``TimeoutExpiredError``, ``InvalidContextError`` once closed."""
        link = self._link
        if link is None:
            raise was_closed()
        return link.call(self._limit, function, *arguments)

    def is_alone(self) -> bool:
        """Whether no client but this one can have the machine open. Raises ``InvalidContextError`` once closed."""
        link = self._link
        if link is None:
            raise was_closed()
        return link.is_alone()

    def order(self, function: str, *arguments: Any) -> None:
        """Call what tells success. Raises ``IoError`` if VirtualBox refuses."""
        if not self.call(function, *arguments):
            raise IoError(f"VirtualBox refused {function} for the machine {self.name}")

    def _ask(self, function: str, kind: str, *arguments: int) -> int:
        place = self.ffi.new(kind)
        self.order(function, *arguments, place)
        return int(place[0])

    def state(self) -> int:
        """The bits of the run state."""
        return self._ask("FDP_GetState", "uint16_t *") & 0xFF

    def register(self, vcpu: int, number: int) -> int:
        """A register by libFDP's number."""
        return self._ask("FDP_ReadRegister", "uint64_t *", vcpu, number)

    def msr(self, vcpu: int, number: int) -> int:
        """A model-specific register; 0 for one that VirtualBox does not know."""
        return self._ask("FDP_ReadMsr", "uint64_t *", vcpu, number)

    def physical(self, address: int) -> int:
        """Where a virtual address of the first vCPU's is; 0 if nowhere."""
        return self._ask("FDP_VirtualToPhysical", "uint64_t *", 0, address)

    def virtual(self, vcpu: int, address: int, size: int) -> bytes:
        """Memory at a virtual address, empty if it does not exist; at most a few bytes."""
        content = self.ffi.new("uint8_t[]", size)
        found = self.call("FDP_ReadVirtualMemory", vcpu, content, size, address)
        return bytes(self.ffi.buffer(content)) if found else b""

    def close(self) -> None:
        """Give the link back; a call under way in another thread ends normally."""
        self.reads.close()
        link, self._link = self._link, None
        if link is not None:
            link.leave()
