# SPDX-License-Identifier: Apache-2.0
"""One client of gdb's remote protocol on one machine, from the attach to the detach, however that comes about.

All vCPUs stand or run together (all-stop): vCPU N is thread N + 1. The machine is stopped when the session begins; who
calls :meth:`Session.serve` leaves it as it was found afterwards, by ``release_all``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.drivers.control import SupportsPause
from libmicrovmi_py.errors import MicrovmiError, NotSupportedError, VmGoneError
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.tools.gdb.contents import Contents
from libmicrovmi_py.tools.gdb.monitor import Monitor
from libmicrovmi_py.tools.gdb.packets import (
    INTERRUPT,
    LARGEST_READ,
    MALFORMED,
    PACKET_SIZE,
    ConnectionEnded,
    Wire,
    escaped,
    natural,
)
from libmicrovmi_py.tools.gdb.places import HARDWARE, LAST_TYPE, SOFTWARE, Place
from libmicrovmi_py.tools.gdb.run import Run, Stopped
from libmicrovmi_py.tools.gdb.vcpus import Vcpus
from libmicrovmi_py.version import __version__

if TYPE_CHECKING:
    from libmicrovmi_py.linux.kernel import Kernel

_LISTENING, _WAITING = 0.02, 1.0
"""Seconds that events are waited for between two looks at the client, and the client between two at the machine."""

_SIGINT, _SIGTRAP = 2, 5

_FEATURES = (
    f"PacketSize={PACKET_SIZE:x};QStartNoAckMode+;qXfer:features:read+;vContSupported+;swbreak+;hwbreak+;binary-upload+"
)
_TRIPLES = {"i386:x86-64": "x86_64-unknown-linux-gnu", "i386": "i386-unknown-linux-gnu"}


class Ended(Exception):
    """The client has detached."""


class Session:
    """What a client says, and what it is answered."""

    def __init__(self, machine: Microvmi, wire: Wire, kernel: Kernel | None = None) -> None:
        self._machine = machine
        self._wire = wire
        self._run = Run(machine)
        self._run.halt()
        self._vcpus = Vcpus(machine, kernel.space if kernel is not None else None)
        self._monitor = Monitor(machine, self._vcpus, kernel)
        self._contents = Contents(self._vcpus, self._run.places)
        self._goes = 0  # the vCPU that an old step is for
        self._running = False
        self._stop_reply = self._stop(0, _SIGTRAP)

    # ----------------------------------------------------------------------------------------------------- the loop

    def serve(self) -> None:
        """Answer until the client detaches or vanishes. No breakpoint is left, whatever ends it.

        Raises ``VmGoneError`` when the machine has ended; the client was told.
        """
        try:
            while True:
                self._turn()
        except (ConnectionEnded, Ended):
            pass
        except VmGoneError:
            with suppress(ConnectionEnded):
                self._wire.send(b"W00")
            raise
        finally:
            self._run.end()

    def _turn(self) -> None:
        if not self._running:
            packet = self._wire.receive(_WAITING)
            if packet is not None and packet != INTERRUPT:
                self._answer(packet)
            return
        packet = self._wire.receive(0 if self._run.listens else _WAITING)
        try:
            if packet == INTERRUPT:
                self._run.halt()
                self._stopped(0, _SIGINT)
            elif packet is not None:
                self._answer(packet)
            elif self._run.listens:
                self._listen()
            else:
                self._check_there()
        except VmGoneError:
            raise
        except MicrovmiError as err:
            self._failed(err)

    def _listen(self) -> None:
        stopped = self._run.wait(_LISTENING)
        if stopped is not None:
            self._stopped(stopped.vcpu, _SIGTRAP, stopped)

    def _check_there(self) -> None:
        """Whether a machine that runs is still there; nobody else would say so. Raises ``VmGoneError``."""
        driver = self._machine.driver
        if isinstance(driver, SupportsPause):
            driver.run_state()

    def _failed(self, err: MicrovmiError) -> None:
        """The run came to an end that is none of the guest's."""
        self._running = False
        self._say(f"{err}\n")
        self._stopped(0, _SIGINT)

    def _say(self, text: str) -> None:
        """Have a client print something while it waits for the machine."""
        self._wire.send(b"O" + text.encode().hex().encode())

    # ------------------------------------------------------------------------------------------------------- stops

    def _stopped(self, vcpu: int, signal: int, why: Stopped | None = None) -> None:
        self._running = False
        self._vcpus.forget()
        self._contents.thread = self._goes = vcpu
        self._stop_reply = self._stop(vcpu, signal, why)
        self._wire.send(self._stop_reply)

    def _stop(self, vcpu: int, signal: int, why: Stopped | None = None) -> bytes:
        reason = "" if why is None else why.reason
        return f"T{signal:02x}{reason}thread:{vcpu + 1:x};".encode()

    # ----------------------------------------------------------------------------------------------------- packets

    def _answer(self, packet: bytes) -> None:
        try:
            reply = self._reply(packet)
        except VmGoneError:
            raise
        except MicrovmiError as err:
            reply = b"E." + escaped(str(err).encode())
        except (ValueError, IndexError, OverflowError):
            reply = MALFORMED
        if reply is not None:
            self._wire.send(reply)

    def _reply(self, packet: bytes) -> bytes | None:
        """The answer to a packet; empty for one that is not known, ``None`` if it comes later or never."""
        name, rest = packet[:1].decode("latin1"), packet[1:]
        if name in "qQv":
            return self._long(packet)
        handlers: Mapping[str, Callable[[bytes], bytes | None]] = {
            "?": lambda _: self._stop_reply,
            "g": self._contents.all_registers,
            "G": self._contents.write_all_registers,
            "p": self._contents.register,
            "P": self._contents.write_register,
            "m": self._contents.memory,
            "x": self._contents.binary_memory,
            "M": self._contents.write_memory,
            "X": self._contents.write_binary_memory,
            "H": self._choose,
            "T": self._is_alive,
            "Z": self._insert,
            "z": self._remove,
            "c": lambda rest: self._go(None, rest),
            "C": lambda rest: self._go(None, b""),
            "s": lambda rest: self._go(self._goes, rest),
            "S": lambda rest: self._go(self._goes, b""),
            "D": lambda _: self._detach(),
            "k": lambda _: self._kill(),
        }
        handler = handlers.get(name)
        return handler(rest) if handler else b""

    def _long(self, packet: bytes) -> bytes | None:
        """Packets with a name."""
        text = packet.decode("latin1")
        for start, handler in self._named().items():
            if text == start or (text.startswith(start) and not start[-1].isalpha()):
                return handler(text[len(start) :])
        return b""

    def _named(self) -> Mapping[str, Callable[[str], bytes | None]]:
        """By how they begin; one that ends in a letter is the whole packet."""
        return {
            "qSupported": lambda _: _FEATURES.encode(),
            "qSupported:": lambda _: _FEATURES.encode(),
            "QStartNoAckMode": lambda _: self._no_acknowledgements(),
            "qXfer:features:read:target.xml:": self._description,
            "qfThreadInfo": lambda _: self._threads(),
            "qsThreadInfo": lambda _: b"l",
            "qThreadExtraInfo,": self._about_thread,
            "qC": lambda _: f"QC{self._contents.thread + 1:x}".encode(),
            "qAttached": lambda _: b"1",
            "qSymbol::": lambda _: b"OK",
            "qRcmd,": self._command,
            "qHostInfo": lambda _: self._host(),
            "qGDBServerVersion": lambda _: f"name:microvmi;version:{__version__};".encode(),
            "qqemu.PhyMemMode": lambda _: b"1" if self._vcpus.physical else b"0",
            "Qqemu.PhyMemMode:": self._physical,
            "vCont?": lambda _: b"vCont;c;C;s;S",
            "vCont;": self._continue,
            "vKill;": lambda _: self._kill(),
        }

    # --------------------------------------------------------------------------------------------- about the target

    def _no_acknowledgements(self) -> None:
        self._wire.send(b"OK")
        self._wire.acknowledged = False

    def _description(self, rest: str) -> bytes:
        offset, size = (natural(item.encode()) for item in rest.split(","))
        content = self._vcpus.layout.xml()
        piece = content[offset : offset + min(size, LARGEST_READ)]
        return (b"m" if offset + len(piece) < len(content) else b"l") + escaped(piece)

    def _host(self) -> bytes:
        """What lldb asks for; where a kernel or a program is from is not known, and these rules fit most."""
        triple = _TRIPLES.get(self._vcpus.layout.architecture, "aarch64-unknown-linux-gnu")
        size = 4 if self._vcpus.layout.architecture == "i386" else 8
        return f"triple:{triple.encode().hex()};endian:little;ptrsize:{size};".encode()

    def _threads(self) -> bytes:
        """All of them; 4096 fit."""
        return b"m" + b",".join(b"%x" % (vcpu + 1) for vcpu in range(self._vcpus.count))

    def _about_thread(self, rest: str) -> bytes:
        return self._monitor.about(self._vcpu(rest)).encode().hex().encode()

    def _vcpu(self, thread: str) -> int:
        """The vCPU that a thread is. Raises ``ValueError``."""
        number = int(thread, 16) - 1
        if not 0 <= number < self._vcpus.count:
            raise ValueError(f"there is no thread {thread}")
        return number

    def _choose(self, rest: bytes) -> bytes:
        """The thread that what follows is about; 0 and -1 are any, and all."""
        text = rest[1:].decode("latin1")
        any_ = int(text, 16) in (0, -1)
        if rest[:1] == b"g":
            self._contents.thread = self._contents.thread if any_ else self._vcpu(text)
        elif rest[:1] == b"c":
            self._goes = self._contents.thread if any_ else self._vcpu(text)
        else:
            return b""
        return b"OK"

    def _is_alive(self, rest: bytes) -> bytes:
        self._vcpu(rest.decode("latin1"))
        return b"OK"

    def _physical(self, rest: str) -> bytes:
        self._vcpus.physical = bool(int(rest, 16))
        return b"OK"

    # ------------------------------------------------------------------------------------------------- run and stop

    def _insert(self, rest: bytes) -> bytes:
        """To an empty answer gdb helps itself: it writes breakpoints into the guest's memory, and steps to watch."""
        if (place := self._place(rest)) is None:
            return b""
        self._run.places.insert(place, lambda: self._vcpus.space(self._contents.thread, place.address))
        return b"OK"

    def _remove(self, rest: bytes) -> bytes:
        if (place := self._place(rest)) is None:
            return b""
        self._run.places.remove(place)
        return b"OK"

    def _place(self, rest: bytes) -> Place | None:
        """What a packet names; ``None`` if there is nothing of that type."""
        kind, address, size, *_ = map(natural, rest.split(b";")[0].split(b","))
        if kind in (SOFTWARE, HARDWARE):
            return Place(kind, address)
        return Place(kind, address, size) if kind <= LAST_TYPE and self._run.places.can_watch else None

    def _continue(self, rest: str) -> bytes | None:
        """``vCont``: the first action that steps counts; vCPUs that no action names go on as well."""
        for action in rest.split(";"):
            what, _, thread = action.partition(":")
            if what[:1] in ("s", "S"):
                named = thread and int(thread, 16) > 0
                return self._go(self._vcpu(thread) if named else self._contents.thread, b"")
            if what[:1] not in ("c", "C"):
                return b""
        return self._go(None, b"")

    def _go(self, step: int | None, address: bytes) -> bytes | None:
        if address:
            raise NotSupportedError("write the instruction pointer to go on elsewhere")
        self._run.go(step)
        self._vcpus.forget()
        self._running = True
        return None

    def _detach(self) -> None:
        self._wire.send(b"OK")
        raise Ended

    def _kill(self) -> None:
        """A debugger's "kill" ends what it looks at; a machine is left running instead."""
        raise Ended

    # ----------------------------------------------------------------------------------------------------- monitor

    def _command(self, rest: str) -> bytes:
        line = bytes.fromhex(rest).decode("utf-8", "replace")
        try:
            text = self._monitor.run(line)
        except VmGoneError:
            raise
        except MicrovmiError as err:
            text = f"{err}\n"
        data = text.encode("utf-8", "backslashreplace")
        for start in range(0, len(data), LARGEST_READ):
            self._wire.send(b"O" + data[start : start + LARGEST_READ].hex().encode())
        return b"OK"
