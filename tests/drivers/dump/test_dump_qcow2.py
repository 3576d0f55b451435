# SPDX-License-Identifier: Apache-2.0
"""Machines in the snapshots of a qcow2 image, written from the description; test_dump_saves.py has those of QEMU."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from drivers.dump import builders
from drivers.dump.builders_qcow2 import CORRUPT, EXTENDED, UNKNOWN, qcow2
from drivers.dump.test_dump_qemu import all_pages, content, opened, stream

from libmicrovmi_py import DriverUnavailableError, InvalidArgumentError, IoError

PAGE = 4096
STATE = stream(all_pages())
OTHER = stream(all_pages().replace(content(5), content(99)))


@pytest.mark.parametrize("bits", [9, 12, 16, 21])
@pytest.mark.parametrize("version", [2, 3])
def test_the_state_is_put_together_from_its_clusters(tmp_path: Path, bits: int, version: int) -> None:
    with opened(tmp_path, qcow2({"only": STATE}, bits=bits, version=version)) as machine:
        for number in (0, 1, 5, 0x9F, 0xC1, 0x1FF):
            assert machine.read_physical(number * PAGE, PAGE) == (content(number) if number & 1 else bytes(PAGE))
        assert machine.vcpu_count() == 2


@pytest.mark.parametrize("bits", [14, 16])
def test_parts_of_clusters_are_found(tmp_path: Path, bits: int) -> None:
    with opened(tmp_path, qcow2({"only": STATE}, bits=bits, features=EXTENDED)) as machine:
        assert [machine.read_physical(at * PAGE, PAGE) for at in (4, 5)] == [bytes(PAGE), content(5)]


def test_a_disk_of_another_size_moves_the_state(tmp_path: Path) -> None:
    for disk in (0, 1, 512 * 64, 512 * 64 + 1, 10 << 20):
        with opened(tmp_path, qcow2({"only": STATE}, bits=9, disk=disk)) as machine:
            assert machine.read_physical(5 * PAGE, PAGE) == content(5)


def test_the_latest_machine_is_opened_and_all_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = qcow2({"a": STATE, "b": OTHER, "disk only": b""})
    with opened(tmp_path, image) as machine:
        assert machine.read_physical(5 * PAGE, PAGE) == content(99)
    assert "has 2 saved machines, '1' ('a'), '2' ('b'): the latest is opened, '2' ('b'); snapshot=NAME" in caplog.text
    for name, number in (("a", 5), ("1", 5), ("b", 99), ("2", 99)):
        with opened(tmp_path, image, snapshot=name) as machine:
            assert machine.read_physical(5 * PAGE, PAGE) == content(number)
    with pytest.raises(InvalidArgumentError, match=r"snapshot=disk only: .* has 2 saved machines, '1' \('a'\), '2'"):
        opened(tmp_path, image, snapshot="disk only")
    with opened(tmp_path, qcow2({"2": STATE, "b": OTHER}), snapshot="2") as machine:
        assert machine.read_physical(5 * PAGE, PAGE) == content(5), "a name goes before a number"
    with pytest.raises(InvalidArgumentError, match=r"snapshot=b: .* has a saved machine '1' \('a'\)"):
        opened(tmp_path, qcow2({"a": STATE}), snapshot="b")
    with pytest.raises(InvalidArgumentError, match="snapshot= is for qcow2 images"):
        opened(tmp_path, STATE, snapshot="a")


REFUSED = {
    "without a saved machine in it": qcow2({}),
    "whose snapshots have no machine": qcow2({"disk only": b""}),
    "an encrypted qcow2 image": qcow2({"a": STATE}, method=2),
    "with unknown features 0x80": qcow2({"a": STATE}, features=UNKNOWN),
    "in packed clusters": qcow2({"a": STATE}, flags=1 << 62),
    "version 1": qcow2({"a": STATE}).replace(b"QFI\xfb\0\0\0\3", b"QFI\xfb\0\0\0\1", 1),
    "in an unknown form": qcow2({"a": bytes(range(256)) * 64}),
    "the beginning of": b"QFI\xfb\0\0\0\3",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        DriverUnavailableError, match=f"{name}.*, which cannot be read: run the machine and make a dump"
    ):
        opened(tmp_path, REFUSED[name])


def changed(place: int, form: str, value: int) -> bytes:
    """An image whose table of snapshots, which is in the last cluster, says something else there."""
    image = bytearray(qcow2({"a": STATE}))
    struct.pack_into(form, image, len(image) - PAGE + place, value)
    return bytes(image)


LIES = {
    "snapshot 0 would lie": qcow2({"a": STATE})[:-PAGE],
    "has 65537 bytes of its own": changed(36, ">I", 65537),
    "has tables of 1 entries, not": changed(8, ">I", 1),
    "has tables of 4294967295 entries": changed(8, ">I", 0xFFFFFFFF),
    "a table of a snapshot would lie": changed(0, ">Q", 1 << 40),
    "would have 0xffffffffffffffff bytes": changed(40, ">Q", (1 << 64) - 1),
    "it has 4294967295 snapshots": qcow2({"a": STATE})[:60] + b"\xff" * 4 + qcow2({"a": STATE})[64:],
    "QEMU has marked it as corrupt": qcow2({"a": STATE}, features=CORRUPT),
}


@pytest.mark.parametrize("name", LIES)
def test_an_image_that_lies_is_an_error_of_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(IoError, match="is cut short or damaged") as caught:
        opened(tmp_path, LIES[name])
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_in_use_twice_is_an_error(tmp_path: Path) -> None:
    """Else a small file could keep somebody busy for hours."""
    image = bytearray(qcow2({"a": STATE}, bits=9, disk=0))
    at = struct.unpack_from(">Q", image, int.from_bytes(image[64:72], "big"))[0]
    image[at + 8 : at + 16] = image[at : at + 8]
    with pytest.raises(IoError, match="is in use twice"):
        opened(tmp_path, bytes(image))


def test_an_image_marked_as_corrupt_opens_with_partial(tmp_path: Path) -> None:
    with opened(tmp_path, qcow2({"a": STATE}, features=CORRUPT), partial="on") as machine:
        assert machine.read_physical(5 * PAGE, PAGE) == content(5)


def test_other_dumps_are_no_snapshots(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="snapshot= is for qcow2 images"):
        opened(tmp_path, builders.lime({0: bytes(PAGE)}), snapshot="a")
