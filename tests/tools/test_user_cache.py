# SPDX-License-Identifier: Apache-2.0
"""Files in the user's cache directory: nobody else wrote them, and they are whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from libmicrovmi_py.errors import PermissionDeniedError
from libmicrovmi_py.tools.cache import keep, kept, private_folder, user_cache


def test_a_folder_is_made_for_its_user_alone(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "own" / "folder")
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_write_is_refused(tmp_path: Path) -> None:
    above = tmp_path / "shared"
    above.mkdir()
    above.chmod(0o777)
    with pytest.raises(PermissionDeniedError, match=f"others may write {above}: chmod go-w {above}"):
        private_folder(above / "folder")


def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away: run the tests as root")
    above = tmp_path / "foreign"
    above.mkdir()
    os.chown(above, 12345, 12345)
    with pytest.raises(PermissionDeniedError, match=f"{above} is another user's"):
        private_folder(above / "folder")
    assert not list(above.iterdir())


def test_a_link_to_where_others_may_write_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    (tmp_path / "link").symlink_to(shared)
    with pytest.raises(PermissionDeniedError):
        private_folder(tmp_path / "link")


def test_a_file_is_kept_whole_and_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    keep(path, b"first")
    keep(path, b"second")
    assert (path.read_bytes(), path.stat().st_mode & 0o777, os.listdir(tmp_path)) == (b"second", 0o600, ["file"])
    assert kept(path)


@pytest.mark.parametrize("kind", ["link", "writable", "empty", "folder", "missing"])
def test_what_may_be_another_s_is_not_trusted(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    keep(tmp_path / "other", b"content")
    if kind == "link":
        path.symlink_to(tmp_path / "other")
    elif kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(b"" if kind == "empty" else b"content")
        path.chmod(0o666 if kind == "writable" else 0o600)
    assert not kept(path)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        keep(tmp_path / "folder", b"content")
    assert os.listdir(tmp_path) == ["folder"]


def test_a_relative_cache_directory_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    assert user_cache() == Path.home() / ".cache"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PermissionDeniedError, match="cannot be made: Not a directory; set XDG_CACHE_HOME"):
        private_folder(tmp_path / "file" / "folder")
