# SPDX-License-Identifier: Apache-2.0
"""A file system of ours at a folder: ``fusermount3``, for root and for users, mounts it and hands the device over."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from libmicrovmi_py.errors import DriverUnavailableError, IoError, escaped

_OPTIONS = "ro,nosuid,nodev,noexec,default_permissions,subtype=microvmi,max_read=1048576,fsname="
_SECONDS = 20.0

_UNMOUNT = 'read -r _ || exec "$0" -u -q -z -- "$1"'
"""What a process does that is told nothing: when nobody can tell it anything any more, it unmounts.

So a mount ends with this process, in whatever way that ends. It is taken out of the tree at once; what is open in it
ends with the device.
"""


@contextmanager
def mounted(program: str, folder: str, name: str) -> Iterator[int]:
    """Mount, give the device, and unmount at the end of the block, whoever still uses a file of it.

    ``program`` is the path of fusermount3; ``name`` is what lists of mounts say. Raises ``IoError`` with what
    fusermount3 says, one line.
    """
    folder = os.path.realpath(folder)
    with _unmounter(program, folder) as unmounter:
        try:
            device = _mount(program, folder, name)
        except Exception:  # a signal is none: what is mounted by then is unmounted
            _tell(unmounter)
            raise
        try:
            yield device
        finally:
            if _is_over(device):  # by somebody else, who may have mounted another by now
                _tell(unmounter)
            os.close(device)


@contextmanager
def _unmounter(program: str, folder: str) -> Iterator[subprocess.Popen[bytes]]:
    """The process that unmounts, at the end of the block at the latest. Ctrl-C at a terminal is not for it."""
    with subprocess.Popen(
        ["/bin/sh", "-c", _UNMOUNT, program, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    ) as process:
        yield process


def _tell(unmounter: subprocess.Popen[bytes]) -> None:
    """There is nothing to unmount."""
    assert unmounter.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        unmounter.stdin.write(b"\n")
        unmounter.stdin.flush()


def _is_over(device: int) -> bool:
    poll = select.poll()
    poll.register(device, 0)
    return bool(poll.poll(0))


def _mount(program: str, folder: str, name: str) -> int:
    """The device, which fusermount3 sends. Its options are split at commas, for which it has the backslash."""
    option = _OPTIONS + "".join(f"\\{item}" if item in ",\\" else item for item in escaped(name))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            code, errors = _run([program, "-o", option, "--", folder], theirs.fileno())
        except OSError as err:
            raise DriverUnavailableError(f"{program} cannot be run: {err.strerror}: apt install fuse3") from err
        except subprocess.TimeoutExpired as err:
            raise IoError(f"{program} did not mount within {_SECONDS:.0f} s") from err
        if code:
            said = errors.decode(errors="replace").strip().replace("\n", "; ")
            raise IoError(said or f"{program} ended with code {code}, and does not say why")
        _, found, *_ = socket.recv_fds(ours, 1, 1, socket.MSG_DONTWAIT)
        if not found:
            raise IoError(f"{program} mounted {folder} and sent no device")
        return found[0]


def _run(words: Sequence[str], number: int) -> tuple[int, bytes]:
    """Run fusermount3, which sends the device over a socket; its exit code, and what it says.

    A signal of ours does not end it, as it may have mounted, and would leave a mount that nobody serves.
    """
    with subprocess.Popen(
        words,
        env={**os.environ, "_FUSE_COMMFD": str(number), "LC_ALL": "C"},
        pass_fds=[number],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            errors = process.communicate(timeout=_SECONDS)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        except BaseException:
            process.wait(_SECONDS)
            raise
        return process.returncode, errors
