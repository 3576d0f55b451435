# SPDX-License-Identifier: Apache-2.0
"""Waiting for QEMU: what must not be removed, who does not connect, who connects and says nothing or nonsense."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from contract.stands import kvm as stand
from drivers.kvm import wire
from drivers.kvm.simulator import Simulator

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import (
    DriverUnavailableError,
    InvalidArgumentError,
    MicrovmiError,
    NoDriverError,
    TimeoutExpiredError,
    VmGoneError,
)
from libmicrovmi_py.events import EventKind, Intercept, PageAccess

Reach = Callable[..., Microvmi]


@contextmanager
def lasting(least: float, most: float) -> Iterator[None]:
    """Fail unless the block takes so many seconds."""
    started = time.monotonic()
    yield
    assert least <= time.monotonic() - started <= most


def held() -> tuple[int, int]:
    """How many descriptors and threads this process has."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


# ----------------------------------------------------------------------------------------------------------- parameters


def test_the_socket_has_to_be_named_before_anything_is_loaded() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^KVM driver requires the kvm_unix_socket parameter"):
        Microvmi("any", driver="kvm", library="/no/such/library")


def test_without_its_parameter_the_driver_steps_aside_at_once() -> None:
    with pytest.raises(NoDriverError, match="kvm: KVM driver requires the kvm_unix_socket parameter"):
        Microvmi("no-such-machine")
    with lasting(0, 0.1):
        for _ in range(100):
            with pytest.raises(InvalidArgumentError):
                Microvmi("no-such-machine", driver="kvm")


def test_a_library_that_is_not_there_is_told_with_the_way_out(socket_path: str) -> None:
    with pytest.raises(DriverUnavailableError, match=r"cannot load /no/libkvmi\.so.*install it"):
        Microvmi(driver="kvm", kvm_unix_socket=socket_path, library="/no/libkvmi.so")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/tmp/" + "x" * 103, "longer than the 107 bytes"),
        ("/tmp/a\nb", "not a printable path"),
        ("/tmp/\udc80\ud800", "not a printable path"),
    ],
)
def test_paths_that_cannot_be_sockets(reach: Reach, path: str, reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        reach(kvm_unix_socket=path)


def test_a_folder_that_is_not_there_is_told_at_once(reach: Reach) -> None:
    with lasting(0, 1), pytest.raises(DriverUnavailableError, match="cannot listen at /no/such/folder/socket: No such"):
        reach(kvm_unix_socket="/no/such/folder/socket")


# ------------------------------------------------------------------------------------------ what is at the path already


def test_a_file_at_the_path_is_not_removed(reach: Reach, socket_path: str) -> None:
    Path(socket_path).write_text("precious")
    with pytest.raises(InvalidArgumentError, match="not a socket"):
        reach()
    assert Path(socket_path).read_text() == "precious"


def test_nor_is_a_link_to_one(reach: Reach, socket_path: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    os.symlink(tmp_path / "file", socket_path)
    with pytest.raises(InvalidArgumentError, match="not a socket"):
        reach()
    assert os.path.islink(socket_path)


def test_another_introspector_that_listens_is_not_pushed_aside(reach: Reach, socket_path: str) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(socket_path)
        other.listen()
        with lasting(0, 1), pytest.raises(DriverUnavailableError, match="another introspector listens"):
            reach()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(socket_path)
        other.settimeout(0.5)
        client, _ = other.accept()
        assert client.recv(1) == b"", "the first to connect is the client, nobody knocked before"
        client.close()


def test_a_socket_that_nobody_has_any_more_is_taken(reach: Reach, socket_path: str, played: Simulator) -> None:
    played.ended = True
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(socket_path)
    fresh = Simulator(socket_path, {0: bytes(4096)}).start()
    assert reach().read_physical(0, 8) == bytes(8)
    fresh.stop()


# -------------------------------------------------------------------------------------------------- nobody, or somebody


@pytest.mark.parametrize("timeout", [0.05, 0.5])
def test_nobody_connects(reach: Reach, socket_path: str, timeout: float) -> None:
    before = held()
    with (
        lasting(timeout, timeout + 0.3),
        pytest.raises(TimeoutExpiredError, match=r"no QEMU .* within 0\.\d+ s"),
    ):
        reach(timeout=timeout)
    assert held() == before
    assert not os.path.exists(socket_path)


def greeting(size: int = wire.HANDSHAKE.size) -> bytes:
    return wire.HANDSHAKE.pack(size, bytes(16), 0, 1, b"odd")


ODD_PEERS = {
    "silent": [],
    "half a greeting": [greeting()[:40]],
    "drop by drop": [bytes([byte]) for byte in greeting()[:20]],
    "greets and no more": [greeting()],
    "too small": [greeting(8)],
    "too large": [greeting(0xFFFFFFFF)],
    "noise": [bytes(range(256)) * 40],
}


@pytest.mark.parametrize("words", ODD_PEERS.values(), ids=ODD_PEERS)
def test_a_peer_that_says_nothing_or_nonsense_does_not_hold_anybody_up(
    reach: Reach, socket_path: str, words: list[bytes]
) -> None:
    before = held()

    def connect() -> None:
        peer = socket.socket(socket.AF_UNIX)
        while peer.connect_ex(socket_path):
            time.sleep(0.001)
        with peer:
            try:
                for word in words:
                    peer.sendall(word)
                    time.sleep(0.03)
                while peer.recv(1024):
                    pass
            except OSError:
                return

    thread = threading.Thread(target=connect)
    thread.start()
    with lasting(0.5, 1), pytest.raises(TimeoutExpiredError):
        reach(timeout=0.5)
    thread.join(5)
    assert held() == before


def test_after_a_peer_with_nonsense_the_next_is_taken(reach: Reach, socket_path: str, played: Simulator) -> None:
    calls: list[bytes] = []

    def greet() -> bytes:
        calls.append(greeting(8) if len(calls) < 3 else played.greeting())
        return calls[-1]

    played.greet = greet
    assert reach().read_physical(0, 1)
    assert len(calls) == 4


def test_a_longer_greeting_of_a_newer_qemu_is_fine(reach: Reach, played: Simulator) -> None:
    played.greet = lambda: wire.HANDSHAKE.pack(wire.HANDSHAKE.size + 300, bytes(16), 0, 1, b"new") + bytes(300)
    assert reach().read_physical(0, 1)


@pytest.mark.parametrize("frame", [(1 << 64) - 1, 1 << 40])
def test_a_size_that_cannot_be_is_an_error_and_leaves_nothing(reach: Reach, played: Simulator, frame: int) -> None:
    def lie(command: int, seq: int, body: bytes) -> bytes | None:
        if command != wire.GET_MAX_GFN:
            return None
        return wire.HEADER.pack(command, 16, seq) + bytes(8) + frame.to_bytes(8, "little")

    played.meddle = lie
    with pytest.raises(MicrovmiError, match="more than there can be"):
        reach()


# ------------------------------------------------------------------------------------------------------- several, again


def test_contexts_of_one_process_share_a_machine(reach: Reach, played: Simulator) -> None:
    first, second = reach(), reach()
    first.pause()
    assert second.driver.pause() is False  # type: ignore[attr-defined]
    second.write_physical(0x1000, b"shared")
    second.close()
    assert first.read_physical(0x1000, 6) == b"shared"
    assert first.driver.pause() is False  # type: ignore[attr-defined]
    third = reach()
    first.close()
    played.vcpus[0].step().result(5)
    assert third.read_physical(0x1000, 6) == b"shared"
    assert played.seen.count(wire.GET_VERSION) == 1
    third.close()
    reach()
    assert played.seen.count(wire.GET_VERSION) == 2


def test_one_context_listens(reach: Reach, played: Simulator) -> None:
    first, second = reach(), reach()
    first.toggle_intercept(Intercept(EventKind.CR, 3))
    write = played.vcpus[0].write_cr(3, 7)
    event = first.listen(5)
    assert event is not None
    for call in (
        lambda: second.toggle_intercept(Intercept(EventKind.CR, 4)),
        lambda: second.listen(0),
        lambda: second.reply_event(event),
    ):
        with pytest.raises(DriverUnavailableError, match="another context"):
            call()
    second.set_page_access(0x5000, PageAccess.READ)
    second.close()
    assert played.accesses == {5: PageAccess.ALL}
    assert not write.done()
    third = reach()
    first.close()
    assert write.result(5) == 7
    third.toggle_intercept(Intercept(EventKind.CR, 4))


def test_threads_that_open_a_machine_at_once_share_it(reach: Reach, socket_path: str, pieces: dict[int, bytes]) -> None:
    contents: list[bytes] = []
    threads = [threading.Thread(target=lambda: contents.append(reach().read_physical(0, 8))) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    played = Simulator(socket_path, pieces).start()
    for thread in threads:
        thread.join(10)
    assert contents == [pieces[0][:8]] * 4
    assert played.seen.count(wire.GET_VERSION) == 1
    played.stop()


def test_a_machine_that_starts_anew_is_opened_beside_the_dead_one(
    reach: Reach, socket_path: str, played: Simulator
) -> None:
    first = reach()
    played.stop()
    fresh = Simulator(socket_path, {0: b"anew" * 1024}).start()
    assert reach().read_physical(0, 4) == b"anew"
    with pytest.raises(VmGoneError):
        first.read_physical(0, 4)
    fresh.stop()


def test_two_machines_at_two_sockets(reach: Reach, played: Simulator, tmp_path: Path) -> None:
    other = Simulator(str(tmp_path / "other"), {0: b"other   " * 512}).start()
    first, second = reach(), reach(kvm_unix_socket=str(tmp_path / "other"))
    assert second.read_physical(0, 8) == b"other   "
    second.close()
    assert first.read_physical(0, 8) == bytes(played.frames[0][:8])
    other.stop()


def test_no_thread_of_libkvmi_stays_and_nobody_else_can_connect(
    reach: Reach, played: Simulator, socket_path: str
) -> None:
    before = held()[1]
    reach()
    assert held()[1] == before
    assert not os.path.exists(socket_path)


def test_opening_fifty_times_keeps_nothing(tmp_path: Path) -> None:
    with contextmanager(stand.stand)(tmp_path) as target:
        for round_ in range(51):
            if round_ == 1:
                before = held()
            with Microvmi.open(target.uri) as machine:
                machine.pause()
                assert machine.read_physical(0xFFC, 8) == target.pieces[0][0xFFC:0x1004]
        assert held() == before
