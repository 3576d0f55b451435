# SPDX-License-Identifier: Apache-2.0
"""Paths of open files, from the root of the guest's mounts on."""

from __future__ import annotations

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.errors import IoError
from libmicrovmi_py.linux.objects import Object, read

if TYPE_CHECKING:
    from libmicrovmi_py.linux.kernel import Kernel

_MOST_STEPS = 512
_LONGEST_NAME = 255
_MOST_STEPS_IN_ALL = 1 << 16


class Paths:
    """Paths by files, each found once. Reading raises ``NotMappedError``."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._left = _MOST_STEPS_IN_ALL
        self._known: dict[tuple[int, int], bytes] = {}

    def of_file(self, address: int) -> bytes:
        """The path of a ``struct file``; one that has been removed ends in `` (deleted)``, as the kernel has it."""
        file = read(self._kernel, "file", address)
        key = file.number("f_path.mnt"), file.number("f_path.dentry")
        if key not in self._known:
            self._known[key] = self._path(*key)
        return self._known[key]

    def _path(self, mount_point: int, entry: int) -> bytes:
        """Up from entry to entry, and at the root of a file system to where it is mounted."""
        dentry, mount = read(self._kernel, "dentry", entry), self._mount(mount_point)
        deleted = b" (deleted)" if not dentry.number("d_hash.pprev") and dentry.number("d_parent") != entry else b""
        names: list[bytes] = []
        for _ in range(_MOST_STEPS):
            self._left -= 1
            if self._left < 0:
                raise IoError("the guest's files are damaged: their paths have no end")
            parent = dentry.number("d_parent")
            if dentry.address == mount.number("mnt.mnt_root"):
                above = mount.number("mnt_parent")
                if above == mount.address:
                    break
                parent = mount.number("mnt_mountpoint")
                mount = read(self._kernel, "mount", above)
            else:
                names.append(self._kernel.text(dentry.number("d_name.name"), _LONGEST_NAME))
                if parent == dentry.address:
                    break
            dentry = read(self._kernel, "dentry", parent)
        return b"/" + b"/".join(name.lstrip(b"/") for name in reversed(names)) + deleted

    def _mount(self, inner: int) -> Object:
        """The mount around what files point at."""
        offset = self._kernel.known_types().struct("mount").offset("mnt")
        return read(self._kernel, "mount", inner - offset)
