# SPDX-License-Identifier: Apache-2.0
"""The FUSE server as the kernel meets it: greetings, files, folders, errors, nonsense, and its end."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator, Sequence

import pytest
from tools.mount.fusekernel import ROOT, Kernel, failing, talking

from libmicrovmi_py.errors import IoError, MicrovmiError, NotMappedError, VmGoneError
from libmicrovmi_py.tools.mount.wire import Op

FILE, FOLDER, LARGE = 2, 3, 4
CONTENT = bytes(range(256)) * 16
MANY = [f"name-{number:03}" for number in range(300)]


class File:
    """Bytes; whatever is put into ``fails`` is raised by a read."""

    def __init__(self, fixed: bool) -> None:
        self.fixed = fixed
        self.fails: BaseException | None = None
        self.waits: threading.Event | None = None

    def read(self, offset: int, size: int, room: memoryview) -> Sequence[memoryview | bytes]:
        assert len(room) >= size
        if self.waits is not None:
            self.waits.wait(10)
        if self.fails is not None:
            raise self.fails
        return [CONTENT[offset : offset + size][:3], CONTENT[offset : offset + size][3:]]

    def seek(self, offset: int, whence: int) -> int:
        return offset + 1 if whence == os.SEEK_DATA else len(CONTENT)


class Tree:
    """A file, and a folder with many."""

    def __init__(self, fixed: bool = True) -> None:
        self.fixed, self.file = fixed, File(fixed)

    def child(self, folder: int, name: str) -> int:
        return {"file": FILE, "folder": FOLDER}[name] if folder == ROOT else 10 + MANY.index(name)

    def names(self, folder: int) -> list[tuple[int, str]]:
        return [(FILE, "file"), (FOLDER, "folder")] if folder == ROOT else [*enumerate(MANY, 10)]

    def is_folder(self, node: int) -> bool:
        return node in (ROOT, FOLDER)

    def size(self, node: int) -> int:
        return len(CONTENT)

    def open(self, node: int) -> File:
        return self.file


@pytest.fixture
def tree() -> Tree:
    return Tree()


@pytest.fixture
def kernel(tree: Tree) -> Iterator[Kernel]:
    with talking(tree) as kernel:
        kernel.begin()
        yield kernel


def test_reads_of_a_mebibyte_are_agreed_upon(tree: Tree) -> None:
    with talking(tree) as kernel:
        major, minor, readahead, flags, *limits = kernel.begin()
        assert (major, minor) == (7, 31)
        assert limits[4] == (1 << 20) // 4096
        assert flags & 1 << 22
        assert readahead >= 131072


def test_what_a_kernel_does_not_offer_is_not_asked_for(tree: Tree) -> None:
    with talking(tree) as kernel:
        assert kernel.begin(flags=1 << 15)[3] == 1 << 15


@pytest.mark.parametrize(("major", "minor"), [(6, 99), (8, 0), (7, 27)])
def test_a_kernel_with_another_protocol_is_refused_with_the_reason(tree: Tree, major: int, minor: int) -> None:
    with talking(tree) as kernel:
        assert failing(lambda: kernel.begin(major, minor)) == "EPROTO"
        assert kernel.has_ended()
        assert "older" in kernel.server.gone


def test_a_name_is_found_with_its_attributes(kernel: Kernel) -> None:
    assert kernel.lookup("file") == (FILE, len(CONTENT), 0o100400)
    assert kernel.lookup("folder")[::2] == (FOLDER, 0o040500)
    assert kernel.size(FILE) == len(CONTENT)


def test_what_is_not_there_is_said_to_be_not_there(kernel: Kernel) -> None:
    assert failing(lambda: kernel.lookup("nosuch")) == "ENOENT"
    assert failing(lambda: kernel.lookup("\udcff")) == "ENOENT"


def test_a_file_is_read_in_any_parts(kernel: Kernel) -> None:
    handle = kernel.open(FILE).handle
    assert kernel.read(handle, 0, 1 << 20) == CONTENT
    assert kernel.read(handle, 1000, 17) == CONTENT[1000:1017]
    assert kernel.read(handle, len(CONTENT), 100) == b""


@pytest.mark.parametrize(("fixed", "flags", "seconds"), [(True, 32 | 2, 86400), (False, 32 | 1, 0)])
def test_only_of_what_does_not_change_the_kernel_keeps_anything(fixed: bool, flags: int, seconds: int) -> None:
    with talking(Tree(fixed)) as kernel:
        kernel.begin()
        assert kernel.open(FILE).flags == flags
        assert struct.unpack_from("=4Q", kernel.ask(Op.LOOKUP, ROOT, b"file\0"))[2:] == (seconds, seconds)
        assert struct.unpack_from("=Q", kernel.ask(Op.GETATTR, FILE, bytes(16)))[0] == seconds


@pytest.mark.parametrize("room", [40, 100, 4096, 1 << 16])
def test_a_folder_is_told_in_as_many_parts_as_it_takes(kernel: Kernel, room: int) -> None:
    assert kernel.names(FOLDER, room) == [".", "..", *MANY]


def test_holes_are_told(kernel: Kernel) -> None:
    handle = kernel.open(FILE).handle
    assert kernel.seek(handle, 5, os.SEEK_DATA) == 6
    assert kernel.seek(handle, 5, os.SEEK_HOLE) == len(CONTENT)


def test_a_file_that_was_closed_is_not_read(kernel: Kernel) -> None:
    handle = kernel.open(FILE).handle
    kernel.release(handle)
    assert failing(lambda: kernel.read(handle, 0, 1)) == "ENOENT"


@pytest.mark.parametrize("err", [IoError("broken"), NotMappedError("no", address=5), MicrovmiError("x"), ValueError()])
def test_a_read_that_fails_is_an_error_of_that_read_alone(kernel: Kernel, tree: Tree, err: Exception) -> None:
    handle = kernel.open(FILE).handle
    tree.file.fails = err
    assert failing(lambda: kernel.read(handle, 0, 10)) == "EIO"
    tree.file.fails = None
    assert kernel.read(handle, 0, 10) == CONTENT[:10]


def test_the_end_of_the_machine_is_the_end_of_it(kernel: Kernel, tree: Tree) -> None:
    handle = kernel.open(FILE).handle
    tree.file.fails = VmGoneError("process 5 ended")
    assert failing(lambda: kernel.read(handle, 0, 10)) == "EIO"
    assert kernel.has_ended()
    assert kernel.server.gone == "process 5 ended"


@pytest.mark.parametrize("op", [4, 8, 9, 16, 22, 25, 43, 45, 4096, 0xFFFFFFFF])
def test_what_a_file_system_that_is_only_read_does_not_know_is_refused(kernel: Kernel, op: int) -> None:
    assert failing(lambda: kernel.ask(op, FILE, bytes(64))) == "ENOSYS"


@pytest.mark.parametrize("message", [b"x", bytes(39), bytes(40), struct.pack("=2I2Q4I", 99, 1, 2, 1, 0, 0, 0, 0)])
def test_what_is_no_request_gets_no_answer_and_does_no_harm(kernel: Kernel, message: bytes) -> None:
    kernel.send(message)
    assert kernel.lookup("file")[0] == FILE


@pytest.mark.parametrize("op", [Op.READ, Op.LSEEK, Op.RELEASE, Op.READDIR])
def test_a_request_that_is_too_short_is_an_error(kernel: Kernel, op: int) -> None:
    assert failing(lambda: kernel.ask(op, FILE, b"")) == "EIO"


@pytest.mark.parametrize("op", [Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT])
def test_what_wants_no_answer_gets_none(kernel: Kernel, op: int) -> None:
    kernel.send(struct.pack("=2I2Q4I", 48, op, 1, FILE, 0, 0, 0, 0) + bytes(8))
    assert kernel.lookup("file")[0] == FILE


def test_one_answer_that_takes_long_keeps_nobody_waiting(kernel: Kernel, tree: Tree) -> None:
    handle = kernel.open(FILE).handle
    tree.file.waits = threading.Event()
    kernel.send(struct.pack("=2I2Q4I", 80, Op.READ, 99, FILE, 0, 0, 0, 0) + struct.pack("=2QI20x", handle, 0, 4))
    assert kernel.lookup("file")[0] == FILE
    tree.file.waits.set()
    assert kernel.connection.recv(100)[8:] == struct.pack("=Q", 99) + CONTENT[:4]


def test_it_ends_when_it_was_unmounted(kernel: Kernel) -> None:
    kernel.connection.close()
    assert kernel.has_ended()
    assert kernel.server.gone == ""


def test_nothing_is_left_when_it_was_stopped(tree: Tree) -> None:
    before = sorted(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(3):
        with talking(tree) as kernel:
            kernel.begin()
    assert (sorted(os.listdir("/proc/self/fd")), threading.active_count()) == before
