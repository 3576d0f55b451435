# SPDX-License-Identifier: Apache-2.0
"""Part of every module that is written for libmicrovmi: calls of the library in a process of its own.

The library works within a Python of the version that it was built for, or starts its own. Another Python cannot have it
in its process: ``microvmi-caller``, which lies beside the library, then makes the calls. What follows the imports is
taken into the module as it stands; nothing here imports anything of ours.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import weakref
from typing import Any

_COUNTED: dict[str, tuple[int, ...]] = {}
"""Of each function: the arguments that point to as many objects as the next one says. Generated."""

# ---------------------------------------------------------------------------------------- taken from here on ----

_FUNCTION_POINTER: Any = ctypes.CFUNCTYPE(None).__base__
_ARGUMENTS, _IN_ARGUMENTS, _IS_TEXT, _NO_TEXT = 8, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1

_LISTEN = "microvmi_listen"
"""What it stores is told to the other process as taken: an event of a call that was given up is another one's."""

_LONGEST_END = 30.0
"""Seconds that the other process may take to undo what was changed in machines."""

_LONGEST_GOING = 2.0
"""Seconds in which a process has ended whose sockets are closed already."""


def _is_foreign(library: Any, ours: str = sys.version) -> bool:
    """Whether the library was built for another version of Python than ours, or ours is one without a GIL."""
    library.microvmi_build_info.restype = ctypes.c_char_p
    found = re.search(rb"Python (\d+\.\d+\.)", library.microvmi_build_info())
    return found is not None and (not ours.startswith(found[1].decode()) or "free-threading" in ours)


def _loaded_from(library: Any) -> str:
    """The path of a library that is loaded."""
    address = ctypes.cast(library.microvmi_version, ctypes.c_void_p).value or 0
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            start, end = (int(number, 16) for number in line.split()[0].split("-"))
            if start <= address < end:
                return line.rstrip("\n").split(None, 5)[5]
    raise OSError("libmicrovmi.so is in no file of this process")


class _Pieces:
    """The memory that a call is handed, piece by piece, and where addresses of pieces belong."""

    def __init__(self) -> None:
        self.places: list[tuple[int, int, bool]] = []  # address, bytes, whether a text comes to be there
        self.fixes: list[tuple[int, int, int]] = []  # where: a piece, or _IN_ARGUMENTS; which piece's address; offset
        self.kept: list[Any] = []

    def add(self, where: int, offset: int, address: int, size: int, *, text: bool = False) -> int:
        """A piece of ``size`` bytes, whose address belongs to ``offset`` of the piece ``where``."""
        self.places.append((address, size, text))
        self.fixes.append((where, len(self.places) - 1, offset))
        return len(self.places) - 1

    def add_value(self, number: int, target: Any, value: Any, count: int) -> None:
        """What argument ``number`` points to: ``count`` objects of type ``target``."""
        text = isinstance(target, type) and issubclass(target, ctypes._Pointer)
        if text and target._type_ is not ctypes.c_char:
            raise NotImplementedError("memory cannot be mapped from another process: read it")
        self.kept.append(value)
        address, size = _address(value), ctypes.sizeof(target)
        if count and hasattr(target, "struct_size"):
            _check_struct_size(address + target.struct_size.offset, size)
        piece = self.add(_IN_ARGUMENTS, 8 * number, address, count * size, text=text)
        if issubclass(target, (ctypes.Structure, ctypes.Union)):
            for index in range(count):
                self._look_into(piece, index * size, target)

    def _look_into(self, piece: int, offset: int, kind: Any) -> None:
        """Pieces for what the members of a struct point to; of a union, the first member is in use."""
        if not issubclass(kind, (ctypes.Structure, ctypes.Union)):
            return
        fields = list(getattr(kind, "_fields_", ()))
        for name, member, *_ in fields if issubclass(kind, ctypes.Structure) else fields[:1]:
            place = offset + getattr(kind, name).offset
            if issubclass(member, (ctypes.c_char_p, ctypes._Pointer, _FUNCTION_POINTER)):
                self._follow(piece, place, member, self._count(piece, offset, kind, name))
            else:
                self._look_into(piece, place, member)

    def _count(self, piece: int, offset: int, kind: Any, name: str) -> int:
        """How many a member points to: as many as a member of a name with ``_len``, or ``size``, says, else one."""
        for other in (f"{name}_len", "size"):
            if hasattr(kind, other):
                place = self.places[piece][0] + offset + getattr(kind, other).offset
                return ctypes.c_size_t.from_address(place).value
        return 1

    def _follow(self, piece: int, place: int, kind: Any, count: int) -> None:
        address = ctypes.c_void_p.from_address(self.places[piece][0] + place).value
        if not address:
            return
        if issubclass(kind, _FUNCTION_POINTER):
            raise NotImplementedError("a function of this process cannot be called from another one: leave it out")
        if issubclass(kind, ctypes.c_char_p):
            self.add(piece, place, address, len(ctypes.string_at(address)) + 1)
            return
        target: Any = kind._type_
        made = self.add(piece, place, address, count * ctypes.sizeof(target))
        for index in range(count):
            if issubclass(target, ctypes.c_char_p):
                self._follow(made, index * ctypes.sizeof(target), target, 1)
            else:
                self._look_into(made, index * ctypes.sizeof(target), target)

    def contents(self) -> list[bytes]:
        return [_bytes_at(address, size) for address, size, _ in self.places]

    def store(self, contents: list[bytes]) -> None:
        """Put back what the call made of the pieces; pointers in them stay what they were here."""
        pointers = [(self.places[piece][0] + offset) for piece, _, offset in self.fixes if piece != _IN_ARGUMENTS]
        saved = [(place, _bytes_at(place, 8)) for place in pointers]
        for (address, size, text), content in zip(self.places, contents, strict=True):
            if not text and content != _bytes_at(address, size):
                ctypes.memmove(address, content, size)
        for place, pointer in saved:
            ctypes.memmove(place, pointer, 8)


class _Connection:
    """One thread's socket, on which a thread of the other process makes its calls; closed when the thread ends."""

    def __init__(self, caller: socket.socket) -> None:
        self.socket, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(caller, [b"+"], [theirs.fileno()])

    def __del__(self) -> None:
        self.socket.close()


class _Elsewhere:
    """The functions of a library, called in another process; as ctypes' own handle of it otherwise."""

    def __init__(self, library: Any) -> None:
        path = _loaded_from(library)
        folder = os.path.dirname(path)
        beside = (os.path.join(folder, "libmicrovmi", "libmicrovmi_py"), os.path.dirname(folder))
        programs = [os.path.join(place, "microvmi-caller") for place in beside]
        program = next(filter(os.path.exists, programs), None)
        if program is None:
            raise OSError(f"{path} was built for another Python, and {programs[0]}, which would call it, is not there")
        self._ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen([program, path], stdin=theirs.fileno(), start_new_session=True)
        self._library, self._pid = library, os.getpid()
        self._thread = threading.local()
        self._connections: weakref.WeakSet[_Connection] = weakref.WeakSet()
        self._texts: dict[int, tuple[Any, int]] = {}

        os.register_at_fork(after_in_child=self._close)
        atexit.register(self._end)

    def _close(self) -> None:
        """Let go of the other process, which ends when all that have a socket of it did."""
        self._ours.close()
        for connection in list(self._connections):
            connection.socket.close()

    def _end(self) -> None:
        """The other process undoes what was changed in machines before this one is gone."""
        if os.getpid() == self._pid:
            self._close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_LONGEST_END)

    def __getattr__(self, name: str) -> _Function:
        getattr(self._library, name)  # AttributeError, as ctypes words it, for one that it lacks
        function = _Function(self, name)
        setattr(self, name, function)
        return function

    def _connection(self) -> socket.socket:
        """This thread's socket: errors belong to threads, there as here."""
        if os.getpid() != self._pid:
            raise OSError("after fork() the child cannot use the library")
        if not hasattr(self._thread, "connection"):
            self._thread.connection = _Connection(self._ours)
            self._connections.add(self._thread.connection)
        found: socket.socket = self._thread.connection.socket
        return found

    def call(self, name: str, arguments: list[int], pieces: _Pieces, result_is_text: bool) -> tuple[int, bytes | None]:
        """Make a call: what it returned, and the text behind that."""
        try:
            connection = self._connection()
            self._ask(connection, name, arguments, pieces, result_is_text)
            result, text = self._take(connection, pieces, result_is_text)
            if name == _LISTEN and result & 0xFF:
                connection.sendall(b"+")
        except ConnectionError:
            self._give_up()
            raise ConnectionError(self._why_gone()) from None
        except BaseException:  # an interrupt, for instance: what comes now belongs to the call that was given up
            self._give_up()
            raise
        return result, text

    def _give_up(self) -> None:
        """Let go of this thread's socket; its next call gets another."""
        connection = self._thread.__dict__.pop("connection", None)
        if connection is not None:
            connection.socket.close()

    def _why_gone(self) -> str:
        """Why nobody is at the other end of a socket, and the way out, in one line."""
        program = f"microvmi-caller (process {self._process.pid}), which makes the calls,"
        try:
            code = self._process.wait(_LONGEST_GOING)
        except subprocess.TimeoutExpired:
            way_out = "use fewer threads, or raise the limits of open files and processes (ulimit -n, ulimit -u)"
            return f"{program} has given up this thread: {way_out}"
        end = f"was ended by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"ended with code {code}"
        return f"{program} {end}, and its machines are closed: load() the library again and open them anew"

    def _ask(
        self, connection: socket.socket, name: str, arguments: list[int], pieces: _Pieces, result_is_text: bool
    ) -> None:
        values = [*arguments, *([0] * (_ARGUMENTS - len(arguments)))]
        head = struct.pack(
            f"=4I{_ARGUMENTS}Q", len(name), len(pieces.places), len(pieces.fixes), result_is_text, *values
        )
        sizes = [size | (_IS_TEXT if text else 0) for _, size, text in pieces.places]
        fixes = [struct.pack("=IIQ", *fix) for fix in pieces.fixes]
        parts = [head, name.encode(), struct.pack(f"={len(sizes)}Q", *sizes), *fixes, *pieces.contents()]
        connection.sendall(b"".join(parts))

    def _take(self, connection: socket.socket, pieces: _Pieces, result_is_text: bool) -> tuple[int, bytes | None]:
        (result,) = struct.unpack("=Q", _receive(connection, 8))
        contents = [_receive(connection, size) for _, size, _ in pieces.places]
        text = _receive_text(connection) if result_is_text else None
        pieces.store(contents)
        for (address, _, owned), content in zip(pieces.places, contents, strict=True):
            if owned:
                self._own(address, int.from_bytes(content, sys.byteorder), _receive_text(connection))
        return result, text

    def _own(self, place: int, there: int, text: bytes | None) -> None:
        """Store a text that is the caller's now: a copy, and who frees it means the one there as well."""
        copy = None if text is None else ctypes.create_string_buffer(text)
        if copy is not None:
            self._texts[ctypes.addressof(copy)] = copy, there
        ctypes.c_void_p.from_address(place).value = None if copy is None else ctypes.addressof(copy)

    def disown(self, address: int) -> int:
        """Where the text is there, of which a copy is here; the copy goes."""
        return self._texts.pop(address)[1] if address in self._texts else 0


class _Function:
    """One function, as ctypes has them: ``restype`` and ``argtypes`` say what it takes and gives."""

    restype: Any = ctypes.c_int
    argtypes: Any = ()

    def __init__(self, owner: _Elsewhere, name: str) -> None:
        self._owner = owner
        self._name = name

    def __call__(self, *values: Any) -> Any:
        pieces = _Pieces()
        if len(values) != len(self.argtypes):
            raise TypeError(f"{self._name}() takes {len(self.argtypes)} arguments ({len(values)} given)")
        pairs = enumerate(zip(self.argtypes, values, strict=True), 1)
        taken = [_taken(number, kind, getattr(value, "_as_parameter_", value)) for number, (kind, value) in pairs]
        numbers = [self._number(index, taken, pieces) for index in range(len(taken))]
        is_text = self.restype is ctypes.c_char_p
        result, text = self._owner.call(self._name, numbers, pieces, is_text)
        if is_text or self.restype is None:
            return text
        return self.restype.from_buffer_copy(result.to_bytes(8, sys.byteorder)).value

    def _number(self, index: int, taken: list[Any], pieces: _Pieces) -> int:
        """The number that stands for an argument; 0 where the address of a piece takes its place."""
        kind, value = self.argtypes[index], taken[index]
        if isinstance(value, int):
            return value
        if isinstance(value, bytes):
            text = ctypes.create_string_buffer(value)
            pieces.kept.append(text)
            pieces.add(_IN_ARGUMENTS, 8 * index, ctypes.addressof(text), ctypes.sizeof(text))
        elif _address(value) and kind._type_ is ctypes.c_char:
            return self._owner.disown(_address(value))
        elif _address(value):
            pieces.add_value(index, kind._type_, value, self._count(index, taken))
        return 0

    def _count(self, index: int, taken: list[Any]) -> int:
        """How many objects an argument points to: as many as the next one says, where that counts them, else one."""
        count: int = taken[index + 1] if index in _COUNTED.get(self._name, ()) else 1
        value, needed = taken[index], count * ctypes.sizeof(self.argtypes[index]._type_)
        if isinstance(value, ctypes.Array) and ctypes.sizeof(value) < needed:
            has = f"argument {index + 1} has {ctypes.sizeof(value)} bytes, and the call may use {needed}"
            raise ValueError(f"{self._name}(): {has}: give it more, or ask for less")
        return count


def _taken(number: int, kind: Any, value: Any) -> Any:
    """What ctypes makes of argument ``number``, or its refusal: a number, a text, or an object with an address."""
    try:
        taken = kind.from_param(value)
    except Exception as err:
        raise ctypes.ArgumentError(f"argument {number}: {type(err).__name__}: {err}") from err
    if issubclass(kind, ctypes._Pointer):
        return taken
    if kind is ctypes.c_void_p:
        return _address(value)
    if kind is ctypes.c_char_p:
        return ctypes.cast(value, kind).value
    return int((value if isinstance(value, kind) else kind(value)).value) & _NO_TEXT


def _address(value: Any) -> int:
    """The address that a pointer, an array, ``byref()`` with its offset, or a number is for C; 0 for NULL."""
    return ctypes.cast(value, ctypes.c_void_p).value or 0


def _bytes_at(address: int, size: int) -> bytes:
    """So many bytes; ``string_at()`` counts in an ``int`` of C."""
    content: bytes = (ctypes.c_char * size).from_address(address).raw
    return content


def _check_struct_size(place: int, size: int) -> None:
    """The library writes as much as a struct says that it has."""
    said = ctypes.c_uint32.from_address(place).value
    if said > size:
        raise ValueError(f"struct_size is {said} of a struct of {size} bytes: set it to ctypes.sizeof() of the struct")


def _receive(connection: socket.socket, size: int) -> bytes:
    """Exactly so many bytes."""
    content = bytearray(size)
    view = memoryview(content)
    while view:
        done = connection.recv_into(view)
        if done == 0:
            raise ConnectionError
        view = view[done:]
    return bytes(content)


def _receive_text(connection: socket.socket) -> bytes | None:
    (size,) = struct.unpack("=Q", _receive(connection, 8))
    return None if size == _NO_TEXT else _receive(connection, size)
