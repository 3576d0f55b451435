# SPDX-License-Identifier: Apache-2.0
"""Calls of libvirt's library, by a fake that has its functions: errors, limits of time, descriptors, quiet.

Each test is a process of its own, as a library stays loaded.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from needs import missing

ROOT = Path(__file__).resolve().parents[2]

HEAD = f"""
import ctypes, os, socket, sys, tempfile, time
sys.path.insert(0, {str(ROOT)!r})
from libmicrovmi_py.errors import *
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.libvirt import *
from libmicrovmi_py.transport.native import native
folder = tempfile.TemporaryDirectory()
PATH = folder.name + "/sock et"
gate, open_gate = os.pipe()
os.environ["FAKE_GATE"] = str(gate)
server = socket.socket(socket.AF_UNIX)
server.bind(PATH)
def listen(): server.listen(20)
def opened(seconds=5.0, trusted=()):
    return Domain(UnixEndpoint(PATH, PATH), "0", Deadline(seconds), frozenset(trusted))
def error_of(function, quiet=False):
    try: function()
    except MicrovmiError as err: quiet or print(type(err).__name__, str(err).replace(PATH, "PATH"))
def left():
    kind = "session" if os.geteuid() else "system"
    uri = "qemu+unix:///" + kind + "?socket=" + PATH.replace(" ", "%20")
    return native().lib.mvi_libvirt_left(uri.encode())
def have_calls_hang(count):
    while ctypes.CDLL("libvirt.so.0").fake_hanging() < count or left() < count:
        error_of(lambda: opened(0.05), quiet=True)
def names(): return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
"""

Run = Callable[..., str]


@pytest.fixture(scope="session")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the fake of a present libvirt, and one, ``old``, with that of an old one."""
    compiler = shlex.split(os.environ.get("CC") or "cc")
    folder = tmp_path_factory.mktemp("libvirt")
    (folder / "old").mkdir()
    for place, flags in ((folder, []), (folder / "old", ["-DOLD"])):
        source = Path(__file__).with_name("libvirt.c")
        common = ["-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", *flags]
        libvirt = place / "libvirt.so.0"
        subprocess.run([*compiler, *common, source, f"-Wl,-soname,{libvirt.name}", "-o", libvirt], check=True)
        (place / "libvirt-qemu.so.0").symlink_to(libvirt.name)
    return folder


@pytest.fixture
def run(fakes: Path) -> Run:
    """What Python code prints with that fake, and that it writes nothing else."""

    def run_code(code: str, fake: str = "", *, old: bool = False, errors: str = "") -> str:
        folder = fakes / "old" if old else fakes
        done = subprocess.run(  # Python from 3.12 on warns of a fork beside threads, which is what some codes are about
            [sys.executable, "-I", "-W", "ignore::DeprecationWarning", "-c", f"{HEAD}\n{code}"],
            env={"LD_LIBRARY_PATH": str(folder), "FAKE": fake},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, errors)
        return done.stdout

    return run_code


def test_orders_go_through_and_everything_is_given_back(run: Run) -> None:
    code = """
listen()
opened().close()
before = names()
domain = opened()
print(domain.command("ask", None, Deadline(5)), domain.state(Deadline(5)))
domain.suspend(Deadline(5)), domain.resume(Deadline(5))
domain.close()
print(names() == before, ctypes.CDLL("libvirt.so.0").fake_open())
"""
    assert run(code) == "b'ask' DomainState(state=3, reason=1)\nTrue 0\n"


def test_a_descriptor_is_handed_over_and_none_stays(run: Run) -> None:
    code = """
listen()
domain = opened()
before = names()
fd = os.memfd_create("x")
expected = f"1 {os.fstat(fd).st_ino}".encode()
print(domain.takes_descriptors, domain.command("x", fd, Deadline(5)) == expected)
domain.command("x", None, Deadline(5))
os.close(fd)
print(names() == before)
"""
    assert run(code) == "True True\nTrue\n"


def test_an_old_library_takes_no_descriptors(run: Run) -> None:
    code = "listen(); domain = opened(); print(domain.takes_descriptors, domain.command('x', None, Deadline(5)))"
    assert run(code, old=True) == "False b'x'\n"


@pytest.mark.parametrize(
    ("fake", "act", "told"),
    [
        ("auth", "opened()", "PermissionDeniedError PATH: libvirt refuses: authentication unavailable (as root, "),
        ("stranger", "opened()", "NoDomainError PATH: Domain not found"),
        ("refuse", "opened().suspend(Deadline(5))", "RefusedError libvirt: cannot acquire state change lock"),
        ("broken", "opened().resume(Deadline(5))", "DriverUnavailableError PATH: the connection to libvirtd broke: cl"),
    ],
)
def test_errors_are_of_their_kind_and_nothing_is_printed(run: Run, fake: str, act: str, told: str) -> None:
    assert run(f"listen(); error_of(lambda: {act})", fake).startswith(told)


def test_an_answer_that_is_none_is_empty(run: Run) -> None:
    assert run("listen(); print(opened().command('x', None, Deadline(5)))", "nothing") == "b''\n"


def test_of_an_answer_no_more_is_taken_than_a_message_may_have(run: Run) -> None:
    code = """
from libmicrovmi_py.transport.messages import LARGEST_MESSAGE
listen()
domain = opened()
print([len(domain.command("x" * size, None, Deadline(5))) - LARGEST_MESSAGE for size in (LARGEST_MESSAGE, 8 << 20)])
"""
    assert run(code) == "[0, 1]\n"


def test_the_socket_is_named_with_what_a_uri_takes(run: Run) -> None:
    kind = "session" if os.geteuid() else "system"
    told = run("listen(); error_of(opened)", "uri")
    assert f"qemu+unix:///{kind}?socket=/" in told
    assert told.endswith("/sock%20et\n")


def test_a_socket_may_have_any_name(run: Run) -> None:
    code = """
PATH = os.fsdecode(os.fsencode(folder.name) + "/caf\u00e9".encode() + b"\\xff")
server = socket.socket(socket.AF_UNIX)
server.bind(PATH)
listen()
try: opened()
except MicrovmiError as err: print(ascii(str(err)))
"""
    assert run(code, "uri").endswith("/caf%C3%A9%FF'\n")


def test_a_call_that_hangs_ends_in_time_and_is_left_to_itself(run: Run) -> None:
    code = """
listen()
functions()
before = names()
begin = time.monotonic()
error_of(lambda: opened(1))
print(1 <= time.monotonic() - begin < 4, left())
os.close(open_gate)
while left(): time.sleep(0.01)
while names()[0] > before[0]: time.sleep(0.01)
print(ctypes.CDLL("libvirt.so.0").fake_open())
"""
    told = run(code, "hang")
    assert told.startswith("TimeoutExpiredError no answer from libvirtd within 1 s: PATH takes connections, and")
    assert told.endswith("\nTrue 1\n0\n")


def test_a_libvirtd_that_hangs_again_and_again_is_not_asked_any_more(run: Run) -> None:
    code = """
listen()
have_calls_hang(8)
begin = time.monotonic()
error_of(lambda: opened(20))
print(time.monotonic() - begin < 1, len(os.listdir("/proc/self/task")))
"""
    told = run(code, "hang")
    assert told.startswith("TimeoutExpiredError 8 calls of libvirt are under way that did not end in time")
    assert told.endswith("True 9\n")


def test_the_child_of_a_process_with_calls_that_hang_has_none(run: Run) -> None:
    code = """
listen()
have_calls_hang(1)
print(left(), flush=True)
if os.fork() == 0:
    print(left(), flush=True)
    os._exit(0)
os.wait()
print(left())
"""
    assert run(code, "hang") == "1\n0\n1\n"


def test_a_libvirtd_that_hangs_does_not_keep_others_from_being_asked(run: Run) -> None:
    code = """
listen()
have_calls_hang(8)
print(left())
PATH = folder.name + "/other"
server = socket.socket(socket.AF_UNIX)
server.bind(PATH)
listen()
error_of(lambda: opened(0.05))
"""
    told = run(code, "hang")
    assert told.startswith("8\nTimeoutExpiredError no answer from libvirtd within")


def test_an_order_whose_time_is_over_is_not_given(run: Run) -> None:
    code = """
listen()
domain = opened()
library = ctypes.CDLL("libvirt.so.0")
error_of(lambda: domain.suspend(Deadline(0)))
domain.close()
while library.fake_open(): time.sleep(0.01)
print(library.fake_suspended())
opened().suspend(Deadline(5))
print(library.fake_suspended())
"""
    told = run(code)
    assert told.startswith("TimeoutExpiredError no answer")
    assert told.endswith("\n0\n1\n")


def test_errors_of_a_host_that_uses_the_library_itself_are_told_as_before(run: Run) -> None:
    code = "listen(); opened(); ctypes.CDLL('libvirt.so.0').fake_error()"
    assert run(code, errors="libvirt: error 1\n") == ""


def test_the_handler_of_a_host_that_had_the_library_before_is_its_own(run: Run) -> None:
    code = """
host = ctypes.CDLL("libvirt.so.0")
KIND = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
handler = KIND(lambda data, error: print("heard"))
host.virSetErrorFunc(None, handler)
listen()
domain = opened()
host.fake_error()
error_of(lambda: domain.suspend(Deadline(5)))
"""
    told = run(code, "refuse")
    assert told == "heard\nRefusedError libvirt: cannot acquire state change lock\n"


def test_errors_of_ours_are_not_printed_in_a_host_that_had_the_library_before(run: Run) -> None:
    code = """
host = ctypes.CDLL("libvirt.so.0")
listen()
error_of(lambda: opened().suspend(Deadline(5)))
"""
    assert run(code, "refuse") == "RefusedError libvirt: cannot acquire state change lock\n"


def test_a_libvirtd_of_a_stranger_is_not_trusted(run: Run) -> None:
    if os.geteuid():
        missing("acts as another user; to enable: run as root")
    code = "os.seteuid(1); listen(); os.seteuid(0); error_of(opened); opened(trusted=(1,)).close(); print('trusted')"
    assert run(code) == "DriverUnavailableError PATH: user 1 listens there, who is not to be trusted\ntrusted\n"


def test_what_cannot_be_connected_to_is_told_at_once(run: Run) -> None:
    assert run("error_of(opened)") == "DriverUnavailableError PATH: Connection refused\n"
