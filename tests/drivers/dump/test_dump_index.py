# SPDX-License-Identifier: Apache-2.0
"""``index=on`` keeps where the pages of a saved machine are in a file beside it, which is believed no more than it."""

from __future__ import annotations

import gzip
import json
import os
import random
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drivers.dump import test_dump_mapped
from drivers.dump.builders import PAGE
from drivers.dump.builders_mapped import mapped
from drivers.dump.test_dump_qemu import MIB, RAM, REST, VCPUS, all_pages, content, libvirt, record, stream
from drivers.qemu.migration_stream import over, page, part

from libmicrovmi_py import Microvmi, MicrovmiError
from libmicrovmi_py.drivers.dump import kept

CHANGED = b"\1\0\3\0\1Q"
"""One byte of a page."""
FORMS: dict[str, Callable[[bytes], bytes]] = {"as it is": bytes, "gzip": gzip.compress, "libvirt": libvirt}


def stream_with_changes() -> bytes:
    return stream(all_pages() + record(PAGE, 0x40, CHANGED))


def expected(number: int) -> bytes:
    made = content(number) if number & 1 else bytes(PAGE)
    return b"Q" + made[1:] if number == 1 else made


def saved(folder: Path, data: bytes) -> Path:
    path = folder / "saved"
    path.write_bytes(data)
    return path


def index_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.microvmi-index")


def check(path: Path, **options: str) -> None:
    """The machine is the one that was saved."""
    with Microvmi(driver="dump", path=path, **options) as machine:
        assert machine.max_addr == 2 * MIB
        for number in (0, 1, 2, 0x9F, 0xC1, 0x1FF):
            assert machine.read_physical(number * PAGE, PAGE) == expected(number)
        assert machine.vcpu_count() == len(VCPUS)


def told(path: Path) -> tuple[bytes, dict[str, Any], bytes]:
    """What an index is about, what it tells in words, and all behind that."""
    data = path.read_bytes()
    _, _, about, _ = kept.HEAD.unpack_from(data)
    begin = kept.HEAD.size + about
    words = struct.unpack_from("<Q", data, begin)[0]
    return data[kept.HEAD.size : begin], json.loads(data[begin + 24 : begin + 24 + words]), data[begin + 24 + words :]


def write(path: Path, about: bytes, body: bytes) -> None:
    """An index with a checksum that is right."""
    head = kept.HEAD.pack(kept.MAGIC, zlib.crc32(about + body), len(about), len(body))
    path.write_bytes(head + about + body)


@pytest.mark.parametrize("form", FORMS)
def test_an_index_is_kept_only_when_asked_for_and_tells_the_same(tmp_path: Path, form: str) -> None:
    path = saved(tmp_path, FORMS[form](stream_with_changes()))
    check(path)
    assert os.listdir(tmp_path) == ["saved"]
    path.chmod(0o640)
    check(path, index="on")
    assert sorted(os.listdir(tmp_path)) == ["saved", "saved.microvmi-index"]
    assert index_of(path).stat().st_mode & 0o777 == 0o640
    made = index_of(path).stat()
    check(path, index="on")
    assert (index_of(path).stat().st_ino, index_of(path).stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)


def test_an_index_that_is_there_is_used_only_when_asked_for(tmp_path: Path) -> None:
    path = saved(tmp_path, stream_with_changes())
    check(path, index="on")
    about, words, rest = told(index_of(path))
    changes = len(rest) - 8 * (3 * MIB // PAGE)
    entries = bytearray(rest[changes:])
    entries[8 * 5 : 8 * 6] = struct.pack("=Q", 0x55 << 3 | 2)  # the page consists of that byte
    text = json.dumps(words).encode()
    body = struct.pack("<3Q", len(text), changes, len(entries)) + text + rest[:changes] + bytes(entries)
    write(index_of(path), about, body)
    with Microvmi(driver="dump", path=path, index="on") as machine:
        assert machine.read_physical(5 * PAGE, PAGE) == b"\x55" * PAGE
    check(path)


def grown(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(8))


def touched(path: Path) -> None:
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))


def other_end(path: Path) -> None:
    """The times are those of before."""
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def damaged(path: Path) -> None:
    data = bytearray(index_of(path).read_bytes())
    data[-20] ^= 1
    index_of(path).write_bytes(data)


def cut(path: Path) -> None:
    os.truncate(index_of(path), index_of(path).stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(index_of(path), 0)


def endless(path: Path) -> None:
    os.truncate(index_of(path), 1 << 40)


def others_may_write(path: Path) -> None:
    index_of(path).chmod(0o666)


def a_link(path: Path) -> None:
    index_of(path).rename(path.with_name("elsewhere"))
    index_of(path).symlink_to("elsewhere")


def a_pipe(path: Path) -> None:
    index_of(path).unlink()
    os.mkfifo(index_of(path))


def without_words(path: Path) -> None:
    about, _, rest = told(index_of(path))
    write(index_of(path), about, struct.pack("<3Q", 2, 0, len(rest)) + b"{}" + rest)


def of_another_version(path: Path) -> None:
    about, words, rest = told(index_of(path))
    text = json.dumps(words).encode()
    changes = len(rest) - 8 * (3 * MIB // PAGE)
    body = struct.pack("<3Q", len(text), changes, len(rest) - changes) + text + rest
    write(index_of(path), about.replace(b"qemu 1", b"qemu 0"), body)


PASSED_OVER = [grown, touched, other_end, damaged, cut, empty, endless, others_may_write, a_link, a_pipe]
PASSED_OVER += [without_words, of_another_version]


@pytest.mark.parametrize("change", PASSED_OVER, ids=lambda change: str(change.__name__))
def test_an_index_that_does_not_fit_is_passed_over_and_made_anew(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = saved(tmp_path, stream_with_changes())
    check(path, index="on")
    change(path)
    before = index_of(path).lstat().st_ino
    check(path, index="on")
    made = index_of(path).lstat()
    assert made.st_ino != before
    check(path, index="on")
    assert index_of(path).lstat().st_ino == made.st_ino, "it is one that fits"


@pytest.mark.skipif(os.geteuid() != 0, reason="not root; to enable: run the tests as root")
def test_an_index_of_another_user_is_passed_over(tmp_path: Path) -> None:
    path = saved(tmp_path, stream_with_changes())
    check(path, index="on")
    os.chown(index_of(path), 65534, -1)
    check(path, index="on")
    assert index_of(path).stat().st_uid == 0
    os.chown(path, 65534, -1)
    os.chown(index_of(path), 65534, -1)
    check(path, index="on")
    assert index_of(path).stat().st_uid == 65534, "whose the dump is may say what is in it"


def test_where_no_index_can_be_written_the_dump_opens_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(tmp_path, stream_with_changes())
    index_of(path).mkdir()
    check(path, index="on")
    assert sorted(os.listdir(tmp_path)) == ["saved", "saved.microvmi-index"]
    assert any("cannot be kept: " in text for text in caplog.messages)


def test_no_index_is_kept_of_what_is_cut(tmp_path: Path) -> None:
    path = saved(tmp_path, stream_with_changes()[: 1 << 20])
    Microvmi(driver="dump", path=path, index="on", partial="on").close()
    assert os.listdir(tmp_path) == ["saved"]


def test_no_index_is_kept_of_a_file_whose_pages_lie_as_they_are(tmp_path: Path) -> None:
    path = saved(tmp_path, mapped(test_dump_mapped.BLOCKS, test_dump_mapped.SIZES, REST))
    for _ in range(2):
        with Microvmi(driver="dump", path=path, index="on") as machine:
            assert machine.read_physical(9 * PAGE, PAGE) == content(9)
    assert os.listdir(tmp_path) == ["saved"]


def test_an_index_that_lies_is_an_error_or_another_memory_and_nothing_else(tmp_path: Path) -> None:
    pages = all_pages() + over() + part() + page(0, content(1), RAM) + record(PAGE, 0x40, CHANGED)
    path = saved(tmp_path, stream(pages))
    Microvmi(driver="dump", path=path, index="on").close()
    about, words, rest = told(index_of(path))
    right = struct.pack("<3Q", len(json.dumps(words)), len(rest) - 6144, 6144) + json.dumps(words).encode() + rest
    started, used, errors = time.monotonic(), 0, []
    for number in range(100):
        source, body = random.Random(f"index {number}"), bytearray(right)
        for _ in range(source.choice([1, 1, 2, 4, 50])):
            entry = len(body) - 8 * source.randrange(1, 769)
            place = source.choice([source.randrange(200), source.randrange(len(body)), entry, entry])
            word = source.choice([0, 1, 4, 0xFF, 0x7FF4, 1 << 40, ~0, source.getrandbits(64)])
            body[place : place + 8] = (word & (1 << 64) - 1).to_bytes(8, "little")
        write(index_of(path), about, bytes(body))
        before = index_of(path).stat().st_ino
        try:
            with Microvmi(driver="dump", path=path, index="on") as machine:
                machine.read_states()
                machine.padded_memory.read(2 * MIB)
        except MicrovmiError as err:
            errors.append(str(err))
        used += index_of(path).stat().st_ino == before
    assert used > 15
    assert not any("\n" in text for text in errors)
    assert time.monotonic() - started < 120
