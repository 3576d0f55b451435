# SPDX-License-Identifier: Apache-2.0
"""In Python the domain's memory is a file, plain and padded; errors are the library's own."""

from __future__ import annotations

from array import array

import layout

from libmicrovmi_py import Microvmi, NotMappedError

SIZE = 0x100000
NOTHING = 0x40000000


def check_plain(vm: Microvmi) -> None:
    vm.memory.seek(layout.PATTERN_ADDRESS)
    content = vm.memory.read(SIZE)
    assert content == array("Q", range(layout.PATTERN_ADDRESS, layout.PATTERN_ADDRESS + SIZE, 8)).tobytes()
    assert vm.memory.tell() == layout.PATTERN_ADDRESS + SIZE


def check_padded(vm: Microvmi) -> None:
    vm.padded_memory.seek(layout.PAGE_ADDRESS)
    assert vm.padded_memory.read(12) == b"libmicrovmi:"


def check_hole(vm: Microvmi) -> None:
    try:
        vm.read_physical(NOTHING, 8)
    except NotMappedError:
        return
    raise AssertionError("nothing was read without an error")


with Microvmi.open("vmi://xen/?vm_name=tiny") as vm:
    check_plain(vm)
    check_padded(vm)
    check_hole(vm)
    assert vm.vcpu_count() == 1
