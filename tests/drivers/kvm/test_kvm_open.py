# SPDX-License-Identifier: Apache-2.0
"""Waiting for QEMU: what must not be removed, who does not connect, who connects and says nothing or nonsense."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from drivers.kvm import wire
from drivers.kvm.simulator import Simulator
from drivers.kvm.watching import held, lasting, no_more_than, until

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import (
    DriverUnavailableError,
    InvalidArgumentError,
    MicrovmiError,
    NoDriverError,
    TimeoutExpiredError,
)

Reach = Callable[..., Microvmi]


# ----------------------------------------------------------------------------------------------------------- parameters


def test_the_socket_has_to_be_named_before_anything_is_loaded() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^KVM driver requires the kvm_unix_socket parameter"):
        Microvmi("any", driver="kvm", library="/no/such/library")


def test_without_its_parameter_the_driver_steps_aside_at_once() -> None:
    with pytest.raises(NoDriverError, match="kvm: KVM driver requires the kvm_unix_socket parameter"):
        Microvmi("no-such-machine")
    took = []
    for _ in range(20):
        started = time.monotonic()
        with pytest.raises(InvalidArgumentError):
            Microvmi("no-such-machine", driver="kvm")
        took.append(time.monotonic() - started)
    assert min(took) < 0.005


def test_a_library_that_is_not_there_is_told_with_the_way_out(socket_path: str) -> None:
    with pytest.raises(DriverUnavailableError, match=r"cannot load /no/libkvmi\.so.*install it"):
        Microvmi(driver="kvm", kvm_unix_socket=socket_path, library="/no/libkvmi.so")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/tmp/" + "x" * 103, "longer than the 107 bytes"),
        ("/tmp/a\nb", "control characters"),
        ("/tmp/\udc80\ud800", "not a printable path"),
    ],
)
def test_paths_that_cannot_be_sockets(reach: Reach, path: str, reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        reach(kvm_unix_socket=path)


def test_a_folder_that_is_not_there_is_told_at_once(reach: Reach) -> None:
    with lasting(0, 3), pytest.raises(DriverUnavailableError, match="cannot listen at /no/such/folder/socket: No such"):
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


def test_nor_is_a_link_to_a_socket(reach: Reach, socket_path: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "elsewhere"))
    os.symlink(tmp_path / "elsewhere", socket_path)
    with pytest.raises(InvalidArgumentError, match="not a socket"):
        reach()
    assert os.path.islink(socket_path)


def test_another_introspector_that_listens_is_not_pushed_aside(reach: Reach, socket_path: str) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(socket_path)
        other.listen()
        with lasting(0, 3), pytest.raises(DriverUnavailableError, match="another introspector listens"):
            reach()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(socket_path)
        other.settimeout(0.5)
        client, _ = other.accept()
        assert client.recv(1) == b"", "the first to connect is the client, nobody knocked before"
        client.close()


def test_a_socket_that_nobody_has_any_more_is_taken(reach: Reach, socket_path: str, simulator: Simulator) -> None:
    simulator.ended = True
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
        lasting(timeout, timeout + 1),
        pytest.raises(TimeoutExpiredError, match=r"no QEMU .* within 0\.\d+ s"),
    ):
        reach(timeout=timeout)
    until(lambda: no_more_than(before))
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
    with lasting(0.5, 3), pytest.raises(TimeoutExpiredError):
        reach(timeout=0.5)
    thread.join(5)
    until(lambda: no_more_than(before))


def test_after_a_peer_with_nonsense_the_next_is_taken(reach: Reach, socket_path: str, simulator: Simulator) -> None:
    calls: list[bytes] = []

    def greet() -> bytes:
        calls.append(greeting(8) if len(calls) < 3 else simulator.greeting())
        return calls[-1]

    simulator.greet = greet
    assert reach().read_physical(0, 1)
    assert len(calls) == 4


def test_a_longer_greeting_of_a_newer_qemu_is_fine(reach: Reach, simulator: Simulator) -> None:
    simulator.greet = lambda: wire.HANDSHAKE.pack(wire.HANDSHAKE.size + 300, bytes(16), 0, 1, b"new") + bytes(300)
    assert reach().read_physical(0, 1)


@pytest.mark.parametrize("frame", [(1 << 64) - 1, 1 << 40])
def test_a_size_that_cannot_be_is_an_error_and_leaves_nothing(reach: Reach, simulator: Simulator, frame: int) -> None:
    def lie(command: int, seq: int, body: bytes) -> bytes | None:
        if command != wire.GET_MAX_GFN:
            return None
        return wire.HEADER.pack(command, 16, seq) + bytes(8) + frame.to_bytes(8, "little")

    simulator.meddle = lie
    with pytest.raises(MicrovmiError, match="more than there can be"):
        reach()
