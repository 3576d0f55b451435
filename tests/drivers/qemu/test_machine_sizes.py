# SPDX-License-Identifier: Apache-2.0
"""What command lines say of memory, vCPUs and UUIDs."""

from __future__ import annotations

import pytest

from libmicrovmi_py.drivers.qemu.commandline import parse_config
from libmicrovmi_py.drivers.qemu.sizes import machine_uuid, memory_size, vcpu_count

MIB = 1 << 20


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ("512", 512 * MIB),
        ("4G", 4096 * MIB),
        ("4g,slots=4,maxmem=8G", 4096 * MIB),
        ("size=1.5G", 1536 * MIB),
        ("65536k", 64 * MIB),
        ("1T", 1 << 40),
        ("10000b", 16384),
        ("maxmem=8G", 0),
        ("", 0),
        ("4X", 0),
        ("-1", 0),
        ("9" * 15 + "E", 0),
        ("9" * 5000, 0),
        ("\u0664G", 0),
    ],
)
def test_memory_is_mebibytes_or_has_a_unit(given: str, size: int) -> None:
    assert memory_size(["qemu", "-m", given]) == size


def test_without_a_word_the_size_is_not_known() -> None:
    assert memory_size(["qemu", "-m"]) == memory_size([]) == 0


def test_the_last_size_counts_and_files_come_first() -> None:
    files = parse_config('[memory]\n  size = "3G"\n[smp-opts]\n cpus = "5"\n')
    assert memory_size(["qemu"], files) == 3072 * MIB
    assert memory_size(["qemu", "-m", "1G", "-m", "2G"], files) == 2048 * MIB
    assert (vcpu_count(["qemu"], files), vcpu_count(["qemu", "-smp", "2"], files)) == (5, 2)


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ("4", 4),
        ("cpus=2,maxcpus=8", 2),
        ("2,sockets=2,cores=4", 2),
        ("sockets=2,cores=4,threads=2", 16),
        ("maxcpus=6", 6),
        ("x", 0),
        ("cores=65535,threads=65535", 0),
        ("99999999999999999999999", 0),
        ("", 1),
    ],
)
def test_vcpus_are_those_that_the_machine_starts_with(given: str, count: int) -> None:
    assert vcpu_count(["qemu", "-smp", given]) == count


def test_a_machine_has_one_vcpu_if_nothing_is_said() -> None:
    assert vcpu_count(["qemu"]) == 1


def test_a_uuid_is_told_in_lower_case_and_only_if_it_is_one() -> None:
    assert machine_uuid(["-uuid", "0F9C4B3E-1111-4222-8333-444455556666"]) == "0f9c4b3e-1111-4222-8333-444455556666"
    for wrong in ("", "x", "00000000-0000-0000-0000-000000000000", "0f9c4b3e-1111-4222-8333-444455556666\n"):
        assert machine_uuid(["-uuid", wrong]) == ""
