# SPDX-License-Identifier: Apache-2.0
"""A Python program that has closed some of its standard streams, as ``c_tests/closed.c`` does.

closed.py NUMBERS URI
"""

from __future__ import annotations

import errno
import os
import sys
import threading

from libmicrovmi_py import Microvmi

AT = 0x2000


def stray(numbers: list[int], ended: threading.Event, wrong: list[str]) -> None:
    """Read and write what is closed; every try has to say so."""
    while not ended.is_set():
        for number in numbers:
            for what in (lambda fd: os.write(fd, b"stray!!!"), lambda fd: os.read(fd, 8)):
                try:
                    what(number)
                except OSError as err:
                    if err.errno == errno.EBADF:
                        continue
                wrong.append(f"{number} could be used")


class Watch:
    """Looks at every import: its files, and those of the loader, get no number that was closed."""

    def __init__(self, numbers: list[int], wrong: list[str]) -> None:
        self._numbers, self._wrong = numbers, wrong

    def find_spec(self, name: str, *_: object) -> None:
        if name in sys.builtin_module_names or not name.startswith(("libmicrovmi_py", "_")):
            return
        free = [number for number in self._numbers if not os.path.exists(f"/proc/self/fd/{number}")]
        if free:
            self._wrong.append(f"{name} is imported while {free} can be taken")


def left_open(numbers: list[int]) -> list[int]:
    return [number for number in numbers if os.path.exists(f"/proc/self/fd/{number}")]


def use(uri: str, numbers: list[int]) -> None:
    with Microvmi.open(uri) as machine:
        before = machine.read_physical(0, 0x4000)
        machine.write_physical(AT, b"\2" * 16)
        assert not left_open(numbers)
        machine.pause()
        machine.memory.seek(AT)
        machine.memory.write(before[AT : AT + 16])
        machine.read_registers()
        assert not left_open(numbers)
        assert machine.read_physical(0, 0x4000) == before
        machine.resume()
        machine.pause()
    assert not left_open(numbers)


def main() -> None:
    numbers = [int(digit) for digit in sys.argv[1]]
    report = os.dup(2)
    for number in numbers:
        os.close(number)
    ended = threading.Event()
    wrong: list[str] = []
    sys.meta_path.insert(0, Watch(numbers, wrong))
    thread = threading.Thread(target=stray, args=(numbers, ended, wrong))
    thread.start()
    try:
        for _ in range(3):
            use(sys.argv[2], numbers)
    except BaseException as err:
        wrong.append(repr(err))
    ended.set()
    thread.join()
    os.write(report, "\n".join(wrong[:3]).encode())
    os._exit(bool(wrong))


if __name__ == "__main__":
    main()
