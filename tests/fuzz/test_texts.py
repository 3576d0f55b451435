# SPDX-License-Identifier: Apache-2.0
"""Texts that reach Python: URIs, parameters, names, command lines, and what HMP prints."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drivers.test_qemu_texts import LONG_MODE, REAL_MODE, TWO_VIEWS
from fuzz.mutator import SCALE, Mutator
from fuzz.outcomes import Caller, told

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.qemu.commandline import guest_name, qmp_sockets
from libmicrovmi_py.drivers.qemu.flatview import parse_flat_view
from libmicrovmi_py.drivers.qemu.infotext import by_vcpu, parse_aarch64, parse_x86
from libmicrovmi_py.transport.deadline import Deadline
from libmicrovmi_py.transport.unixsock import TcpEndpoint, UnixEndpoint

URIS = (
    "vmi://qemu/?vm_name=debian&qmp=127.0.0.1:4444&timeout=0.1&cache=0x1000",
    "vmi://qemu/?vm_name=12345678&qmp=/nowhere/qmp.sock",
    "vmi://dump/?path=/nowhere/image.raw&cache=65536",
    "vmi://virtualbox/?vm_name=win%20xp&library=/nowhere/libFDP.so&timeout=0.1",
    "vmi://kvm/?kvm_unix_socket=/nowhere/introspector&library=/nowhere/libkvmi.so&timeout=0.1",
    "vmi://xen/?vm_name=tiny",
    "vmi://memflow/?memflow_connector_name=qemu&memflow_connector_args=a=b,c=d&package=/nowhere",
    "vmi://fake/?cache=0",
    "vmi:///?vm_name=debian&vm_name=%C3%A4",
    "/nowhere/image.raw",
)


@pytest.mark.parametrize("base", URIS)
def test_wrong_uris_are_told(base: str, lib: Any) -> None:
    call = Caller(lib)
    for number in range(60 * SCALE):
        mutator = Mutator(base, number)
        uri = mutator.text(mutator.text(base))
        opened = told(uri, lambda uri=uri: Microvmi.open(uri))  # type: ignore[misc]
        if isinstance(opened, Microvmi):
            opened.close()
        context = call(uri, "microvmi_open", uri.partition("\0")[0].encode("utf-8", "surrogatepass"), None)
        if context:
            call(uri, "microvmi_destroy", context)


@pytest.mark.parametrize("driver", ["qemu", "dump", "virtualbox", "kvm", "xen", "memflow", "fake", None])
def test_wrong_parameters_are_told(driver: str | None) -> None:
    for number in range(60 * SCALE):
        mutator = Mutator(f"parameters {driver}", number)
        values = {
            key: mutator.choice((text, mutator.text(text), mutator.value()))
            for key, text in (("vm_name", "debian"), ("timeout", "0.1"), ("qmp", "127.0.0.1:1"), ("cache", "4096"))
            if mutator.random() < 0.6
        }
        opened = told(values, lambda values=values: Microvmi(driver=driver, **values))  # type: ignore[misc]
        if isinstance(opened, Microvmi):
            opened.close()


COMMAND = ("-name", "guest=debian,debug-threads=on", "-chardev", "socket,id=m,host=::1,port=1,server=on", "-mon", "m")
AARCH64 = " PC=0000000040000000 X00=0000000000000000 X01=0000000000000001\nX30=2  SP=3\nPSTATE=000003c5 ---- EL1h\n"
MORE = ("-qmp", "tcp:localhost:4444,server=on", "-qmp", "unix:/q,,x,server", "-chardev", "socket,id=m,fd=27,server=on")


@pytest.mark.parametrize(
    ("text", "reader"),
    [
        (TWO_VIEWS, parse_flat_view),
        (LONG_MODE, parse_x86),
        (REAL_MODE, parse_x86),
        (LONG_MODE + REAL_MODE, by_vcpu),
        (AARCH64, parse_aarch64),
        ("\0".join(COMMAND), lambda text: (guest_name(text.split("\0")), qmp_sockets(text.split("\0")))),
        ("\0".join(MORE), lambda text: (guest_name(text.split("\0")), qmp_sockets(text.split("\0")))),
    ],
    ids=["flat view", "long mode", "real mode", "two vCPUs", "aarch64", "command line", "another"],
)
def test_wrong_texts_of_qemu_are_told(text: str, reader: Callable[[str], object]) -> None:
    for number in range(400 * SCALE):
        mutator = Mutator(text[:20], number)
        wrong = mutator.text(mutator.text(text))
        told(wrong, lambda wrong=wrong: reader(wrong))  # type: ignore[misc]


@pytest.mark.parametrize(
    "endpoint",
    [
        TcpEndpoint("a" * 64 + ".b", 1),
        TcpEndpoint("a..b", 1),
        TcpEndpoint("127.0.0.1", 70_000),
        TcpEndpoint("127.0.0.1", 1),
        UnixEndpoint("/\ud800", "/"),
        UnixEndpoint("/nul\0byte", "/"),
        UnixEndpoint("/" + "x" * 5000, "/"),
        UnixEndpoint("", ""),
    ],
    ids=str,
)
def test_places_where_nothing_can_listen_are_told(endpoint: TcpEndpoint | UnixEndpoint) -> None:
    told(endpoint, lambda: endpoint.connect(Deadline(0.2)).close())


SIZE = 240_000


@pytest.mark.parametrize(
    ("text", "reader"),
    [
        ("FlatView #" * (SIZE // 10), parse_flat_view),
        ('FlatView #0\n AS "memory", root\n ' + " 0-0 (ram): @" + " @a" * (SIZE // 3), parse_flat_view),
        ('FlatView #0\n AS "memory", root\n ' + " 0-0 (ram): " + " owner:" * (SIZE // 7) + "\r", parse_flat_view),
        ('FlatView #0\n AS "memory", root\n ' + " 0-0 (ram): " + " owner:{" * (SIZE // 8) + "\r", parse_flat_view),
        ('FlatView #0\n AS "memory", root\n' + " " * SIZE, parse_flat_view),
        ('FlatView #0\n AS "memory", root\n ' + "0" * SIZE, parse_flat_view),
        ("EIP=00000000" + "A" * SIZE, parse_x86),
        ("EIP=00000000" + "\nCS =0000 " + "0" * SIZE, parse_x86),
        ("EIP=00000000" + "\nGDT=" + " " * SIZE, parse_x86),
        ("\nCPU#" * (SIZE // 5), by_vcpu),
        (" PC=" + "0" * SIZE, parse_aarch64),
        ("," * SIZE, lambda text: guest_name(["-name", text])),
        ("a=b,c" * (SIZE // 5), lambda text: qmp_sockets(["-chardev", text, "-qmp", text])),
    ],
)
@pytest.mark.alone
def test_texts_made_to_take_long_are_read_in_no_time(text: str, reader: Callable[[str], object]) -> None:
    started = time.monotonic()
    told(text[:60], lambda: reader(text))
    assert time.monotonic() - started < 1


def test_a_folder_and_odd_files_as_images_are_told(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for path in (
        "/",
        str(tmp_path),
        str(tmp_path / "empty"),
        "/dev/null",
        "/proc/self/mem",
        "x" * 4000,
        "/" + "y" * 300,
    ):
        told(path, lambda path=path: Microvmi(driver="dump", path=path))  # type: ignore[misc]
