# SPDX-License-Identifier: Apache-2.0
"""Answers of the wrong shape: to every command of QEMU's monitor, and of KVM's introspection.

A process that looks like QEMU spoils its answers by the number of the connection; see ``qemu_program.py``.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from drivers.kvm.library import library
from drivers.kvm.simulator import Simulator
from fuzz.mutator import SCALE, Mutator
from fuzz.outcomes import Caller

ROUNDS = 120


@pytest.mark.parametrize("ram", [(), ("-fake", "private")], ids=["shared", "private"])
def test_wrong_answers_of_a_monitor_are_told(
    start_machine: Callable[..., str], lib: Any, stubs: ModuleType, ram: tuple[str, ...]
) -> None:
    uri = start_machine(*ram, "-fake", "fuzz").replace("timeout=30", "timeout=0.3").encode()
    call = Caller(lib)
    for number in range(ROUNDS * SCALE):
        started = time.monotonic()
        context = call(number, "microvmi_open", uri, None)
        if context:
            use(call, stubs, number, context)
            call(number, "microvmi_destroy", context)
        assert time.monotonic() - started < 10, f"round {number} takes for ever"
    assert call.codes[0] > ROUNDS // 2, "nearly nothing works: the answers are too wrong to tell anything"
    assert call.codes[10] > 0


class Spoiling(Simulator):
    """A machine whose replies have the right length and wrong content."""

    def __init__(self, path: str, pieces: Mapping[int, bytes]) -> None:
        super().__init__(path, pieces)
        self.mutator = Mutator("kvmi", 0)

    def _do(self, command: int, body: bytes) -> bytes:
        reply = super()._do(command, body)
        if self.mutator.random() > 0.2 or not reply:
            return reply
        return self.mutator.data(reply)[: len(reply)].ljust(len(reply), b"\xff")


def test_wrong_replies_of_kvmi_are_told(lib: Any, stubs: ModuleType, tmp_path: Path) -> None:
    path = f"{tmp_path}/introspector"
    uri = f"vmi://kvm/?kvm_unix_socket={path}&library={library(tmp_path)}&timeout=2".encode()
    machine, call = Spoiling(path, {0: bytes(0x40000)}), Caller(lib)
    machine.start()
    for number in range(ROUNDS * SCALE):
        machine.mutator = Mutator("kvmi", number)
        context = call(number, "microvmi_open", uri, None)
        if context:
            use(call, stubs, number, context)
            call(number, "microvmi_destroy", context)
    machine.stop()
    assert call.codes[0] > ROUNDS // 2


def use(call: Caller, stubs: ModuleType, number: int, context: int) -> None:
    """Every call that asks the monitor, and a read of what it told."""
    ranges = (stubs.microvmi_memory_range * 64)()
    registers, word, count, done = stubs.Registers(), ctypes.c_uint64(), ctypes.c_size_t(), ctypes.c_uint64()
    vcpus, buffer = ctypes.c_uint16(), (ctypes.c_uint8 * 4096)()
    call(number, "microvmi_get_vcpu_count", context, ctypes.byref(vcpus))
    call(number, "microvmi_read_registers", context, 0, ctypes.byref(registers))
    call(number, "microvmi_get_max_physical_addr", context, ctypes.byref(word))
    call(number, "microvmi_pause", context)
    call(number, "microvmi_get_memory_map", context, ranges, 64, ctypes.byref(count))
    call(number, "microvmi_read_physical", context, 0x5000, buffer, 4096, ctypes.byref(done))
    call(number, "microvmi_resume", context)
