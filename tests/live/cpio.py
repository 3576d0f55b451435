# SPDX-License-Identifier: Apache-2.0
"""Writes cpio archives in the "newc" format: what Linux unpacks as its first file system."""

from __future__ import annotations

import stat
from pathlib import Path, PurePosixPath


class Archive:
    """Members in the order they were added; the directories above a member come by themselves. Paths are absolute."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._parts: list[bytes] = []

    def directory(self, path: str) -> None:
        """An empty directory."""
        self._add(path, stat.S_IFDIR | 0o755)

    def device(self, path: str, major: int, minor: int) -> None:
        """A character device."""
        self._add(path, stat.S_IFCHR | 0o600, device=(major, minor))

    def link(self, path: str, target: str) -> None:
        """A symbolic link."""
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def file(self, path: str, content: bytes, *, program: bool = False, mtime: int = 0) -> None:
        """A file; ``mtime`` in seconds since 1970."""
        self._add(path, stat.S_IFREG | (0o755 if program else 0o644), content, mtime=mtime)

    def copy(self, source: Path, path: str | None = None) -> None:
        """A file of this machine, or what a link leads to, with its time of change; ``path``: where, if elsewhere."""
        status = source.stat()
        program = bool(status.st_mode & stat.S_IXUSR)
        self.file(path or str(source), source.read_bytes(), program=program, mtime=int(status.st_mtime))

    @property
    def paths(self) -> list[str]:
        """Of every member, sorted."""
        return sorted(f"/{name}" for name in self._names)

    def to_bytes(self) -> bytes:
        """The archive as it is so far, with its end mark."""
        return b"".join([*self._parts, _entry("TRAILER!!!", 0)])

    def _add(
        self, path: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0), mtime: int = 0
    ) -> None:
        name = path.lstrip("/")
        if name in self._names:
            return
        for parent in reversed(PurePosixPath(name).parents[:-1]):
            self.directory(str(parent))
        self._names.add(name)
        self._parts.append(_entry(name, mode, content, device, mtime))


def _entry(name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0), mtime: int = 0) -> bytes:
    """One member: magic, 13 numbers in hexadecimal, name, content; name and content end at multiples of 4."""
    path = name.encode() + b"\0"
    numbers = (0, mode, 0, 0, 1, mtime, len(content), 0, 0, *device, len(path), 0)
    header = b"070701" + b"".join(b"%08x" % number for number in numbers)
    return _pad(header + path) + _pad(content)


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
