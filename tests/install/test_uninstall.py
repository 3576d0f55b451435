# SPDX-License-Identifier: Apache-2.0
"""``make uninstall`` leaves no trace, and nothing of others' is touched; everybody can read what is installed."""

from __future__ import annotations

import errno
import json
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from install.installing import ROOT, made, make

from libmicrovmi_py._native import laying, readable
from libmicrovmi_py._native.laying import RECORD


def tree(folder: Path) -> dict[str, bytes | None]:
    """Each file with its content, and each folder."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    return ["PREFIX=/usr/local", f"DESTDIR={tmp_path / 'root'}", "LIBDIR=/usr/local/lib/some-linux"]


def test_what_was_there_before_is_there_afterwards_and_nothing_else(tmp_path: Path, words: list[str]) -> None:
    root = tmp_path / "root"
    others = root / "usr" / "local" / "share" / "man" / "man3"
    others.mkdir(parents=True)
    (others / "others.3").write_text("another's")
    (root / "usr" / "local" / "include").mkdir()
    before = tree(root)
    make("install", *words)
    make("install", *words)
    (root / "usr" / "local" / "lib" / "some-linux" / "libmicrovmi" / "cffi" / "left.pyc").write_text("")
    make("uninstall", *words, "PY=/the/one/it/was/built/with/is/gone", f"PYTHON={sys.executable}")
    assert tree(root) == before


def test_a_folder_that_others_use_since_stays(tmp_path: Path, words: list[str]) -> None:
    make("install", *words)
    kept = tmp_path / "root" / "usr" / "local" / "lib" / "some-linux" / "pkgconfig" / "others.pc"
    kept.write_text("")
    make("uninstall", *words)
    assert [path for path in (tmp_path / "root").rglob("*") if path.is_file()] == [kept]


def test_nothing_of_an_older_version_stays(tmp_path: Path, words: list[str]) -> None:
    make("install", *words)
    local = tmp_path / "root" / "usr" / "local"
    before = tree(local)
    old_page, old_module = local / "share/man/man3/microvmi_old.3", local / "lib/some-linux/libmicrovmi/old.py"
    old_page.write_text("")
    old_module.write_text("")
    record = local / "lib" / "some-linux" / "libmicrovmi" / RECORD
    kept = json.loads(record.read_text())
    kept["files"].append("../../../share/man/man3/microvmi_old.3")
    record.write_text(json.dumps(kept))
    make("install", *words)
    assert tree(local) == before


def test_everybody_can_read_it_whatever_the_umask_is(tmp_path: Path, words: list[str]) -> None:
    done = made("install", *words, umask=0o077)
    assert done.returncode == 0, done.stderr
    for path in (tmp_path / "root").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode in ((0o755,) if path.is_dir() else (0o644, 0o755)), path
    assert (tmp_path / "root/usr/local/bin/microvmi").stat().st_mode & 0o111 == 0o111


def test_that_nothing_is_installed_is_told_in_one_line(tmp_path: Path, words: list[str]) -> None:
    done = made("uninstall", *words)
    root = tmp_path / "root" / "usr" / "local"
    told = f"{root}/lib/some-linux/libmicrovmi/{RECORD} is not there: nothing is installed in {root}, or by a version"
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(told)
    assert len(done.stderr.splitlines()) == 2  # make's own is the second


def test_what_is_in_the_way_is_told_in_one_line(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "root" / "usr").mkdir(parents=True)
    (tmp_path / "root" / "usr" / "local").write_text("a file")
    done = made("install", *words)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == f"{tmp_path}/root/usr/local/bin: Not a directory"
    assert (tmp_path / "root" / "usr" / "local").read_text() == "a file"


@pytest.mark.parametrize("times", [0, 1])
def test_an_install_that_failed_is_taken_away_like_any_other(tmp_path: Path, words: list[str], times: int) -> None:
    """As whoever would install over it is told no better what is there."""
    local = tmp_path / "root" / "usr" / "local"
    for _ in range(times):
        make("install", *words)
        (local / "bin" / "microvmi").unlink()
    (local / "bin" / "microvmi").mkdir(parents=True)
    done = made("install", *words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 2)
    assert done.stderr.startswith(f"{local}/bin/microvmi.new: Is a directory\n")
    (local / "bin" / "microvmi").rmdir()
    make("uninstall", *words)
    assert [path for path in tree(tmp_path / "root") if not path.startswith("usr/local/bin")] == (
        ["usr", "usr/local"] if not times else []
    )


def test_a_disk_that_is_full_leaves_nothing_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path, **_: object) -> None:
        target.mkdir()
        raise shutil.Error([(str(source), f"{target}/cffi", "[Errno 28] No space left on device")])

    monkeypatch.setattr(shutil, "copytree", full)
    folders = [f"/usr{folder}" for folder in ("", "/lib", "/include", "/bin", "/share")]
    with pytest.raises(SystemExit) as told:
        laying.main("install", str(ROOT / "build"), str(tmp_path), *folders)
    assert told.value.code == f"{tmp_path}/usr/lib/libmicrovmi.new/cffi: [Errno 28] No space left on device"
    assert tree(tmp_path) == {}


def test_who_has_no_right_is_told_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/usr/lib")

    monkeypatch.setattr(Path, "mkdir", refused)
    folders = [f"/usr{folder}" for folder in ("", "/lib", "/include", "/bin", "/share")]
    with pytest.raises(SystemExit) as told:
        laying.main("install", str(ROOT / "build"), str(tmp_path), *folders)
    assert told.value.code == "/usr/lib: Permission denied; to write there may take sudo make install"


def test_a_library_that_is_used_is_replaced_and_not_written_into(tmp_path: Path, words: list[str]) -> None:
    make("install", *words)
    library = tmp_path / "root/usr/local/lib/some-linux/libmicrovmi.so"
    with library.open("rb") as used:
        inode = library.stat().st_ino
        make("install", *words)
        assert library.stat().st_ino != inode
        assert used.read() == library.read_bytes()


@pytest.fixture
def open_folder(tmp_path: Path) -> Iterator[Path]:
    """One that everybody may pass, which those of a test are not."""
    folder = Path("/tmp") / f"microvmi-open-{tmp_path.name}-{tmp_path.stat().st_ino}"
    folder.mkdir()
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_what_others_may_not_pass_or_read_is_found(open_folder: Path) -> None:
    file = open_folder / "home" / "python" / "libpython.so"
    file.parent.mkdir(parents=True)
    file.write_text("")
    for path in (open_folder / "home", file.parent):
        path.chmod(0o755)
    file.chmod(0o644)
    link = open_folder / "link"
    link.symlink_to(file)
    assert readable.closed(file) is None
    assert readable.closed(open_folder / "home" / "not there" / "at all") is None
    file.chmod(0o640)
    assert readable.closed(file) == file
    assert readable.closed(link) == link
    (open_folder / "home").chmod(0o711)
    assert readable.closed(open_folder / "home") == open_folder / "home"
    assert readable.closed(file) == file
    (open_folder / "home").chmod(0o700)
    assert readable.closed(file) == open_folder / "home"
    file.chmod(0o644)
    link.unlink()
    link.symlink_to(file.parent)
    assert readable.closed(link) == open_folder / "home"


def test_a_python_that_others_cannot_use_is_warned_of(open_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    python, libdir = open_folder / "own" / "libpython.so", open_folder / "lib"
    for folder in (python.parent, libdir):
        folder.mkdir(mode=0o755)
        folder.chmod(0o755)
    python.write_text("")
    python.chmod(0o644)
    readable.warn(libdir, [python])
    assert capsys.readouterr().err == ""
    python.parent.chmod(0o700)
    readable.warn(libdir, [python])
    told = capsys.readouterr().err
    assert told.startswith(
        f"warning: {python}, which this library needs, can be used by its owner alone, as {python.parent} is"
    )
    assert told.count("\n") == 1
    libdir.chmod(0o700)
    readable.warn(libdir, [python])
    assert capsys.readouterr().err == ""


def test_make_install_warns_of_such_a_python(tmp_path: Path) -> None:
    place = Path("/var/tmp") / f"microvmi-{tmp_path.stat().st_ino}"
    words = [f"PREFIX={place}"]
    try:
        told = made("install", *words).stderr
        closed = [path for path in readable.needed() if readable.closed(path)]
        assert told.startswith(f"warning: {closed[0]}, which" if closed else "")
        assert told.count("\n") == bool(closed)
    finally:
        make("uninstall", *words)
    assert not place.exists()
