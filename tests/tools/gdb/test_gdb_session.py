# SPDX-License-Identifier: Apache-2.0
"""What a debugger is told of machines made of bytes, and what it does to them."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tools.gdb.remote import SECONDS, Client, served

from libmicrovmi_py import Microvmi
from libmicrovmi_py.drivers.fake import FakeDriver

RAX, RSP, RIP = 0, 7, 16


@pytest.fixture
def long_mode(machine: Microvmi) -> Microvmi:
    """Its vCPUs are in long mode, with four levels of page tables at 0x1000 that map one page: 0xffff800000000000."""
    for address, entry in ((0x1800, 0x2003), (0x2000, 0x3003), (0x3000, 0x4003), (0x4000, 0x5003)):
        machine.write_physical(address, struct.pack("<Q", entry))
    state = {"cr0": 0x80000011, "cr3": 0x1000, "cr4": 0x20, "efer": 0x500}
    for vcpu in range(2):
        machine.write_state({**state, "rip": 0xFFFF800000000010 + vcpu, "rax": 0x1122334455667788 + vcpu}, vcpu)
    return machine


@pytest.fixture
def client(long_mode: Microvmi, path: str) -> Iterator[Client]:
    with Client(path) as connected:
        yield connected


def wait_for(driver: FakeDriver, running: bool) -> None:
    end = time.monotonic() + SECONDS
    while driver.running is not running:
        assert time.monotonic() < end
        time.sleep(0.005)


def little(text: bytes) -> int:
    return int.from_bytes(bytes.fromhex(text.decode()), "little")


def described(client: Client) -> list[tuple[str, int]]:
    """Names and bits of registers, as the target's description has them, read in small pieces."""
    text, answer = b"", b"m"
    while answer[:1] == b"m":
        answer = client.ask(b"qXfer:features:read:target.xml:%x,100" % len(text))
        text += answer[1:]
    return [(item.attrib["name"], int(item.attrib["bitsize"])) for item in ElementTree.fromstring(text).iter("reg")]


# ---------------------------------------------------------------------------------------------------------- registers


def test_all_registers_are_as_long_as_the_description_says(client: Client) -> None:
    registers = described(client)
    assert len(client.ask(b"g")) == 2 * sum(bits // 8 for _, bits in registers)
    assert [name for name, _ in registers[:17]] == [
        *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
        "rip",
    ]
    assert {"cr3", "efer", "lstar", "gs_base", "idt_base", "dr7", "tr_selector"} <= {name for name, _ in registers}


def test_each_register_has_the_value_that_the_machine_tells(client: Client, machine: Microvmi) -> None:
    renamed = {"eflags": "rflags", **{name: f"{name}_selector" for name in ("cs", "ss", "ds", "es", "fs", "gs")}}
    state = machine.read_state(1)
    assert client.ask(b"Hg2") == b"OK"
    for number, (name, bits) in enumerate(described(client)):
        value = client.ask(b"p%x" % number)
        if (name.startswith("st") and name[2:].isdigit()) or name in ("fctrl", "fstat", "ftag", "fop"):
            assert value == b"xx" * (bits // 8)
        elif name not in ("fiseg", "fioff", "foseg", "fooff"):
            assert (name, little(value)) == (name, state[renamed.get(name, name)])


def test_registers_are_written_one_by_one_and_together(client: Client, machine: Microvmi) -> None:
    assert client.ask(b"P%x=%s" % (RSP, b"8877665544332211")) == b"OK"
    assert machine.read_state(0)["rsp"] == 0x1122334455667788
    every = bytearray(client.ask(b"g"))
    every[:16] = b"0100000000000000"
    assert client.ask(b"G" + bytes(every)) == b"OK"
    assert (machine.read_state(0)["rax"], machine.read_state(0)["rsp"]) == (1, 0x1122334455667788)
    assert machine.read_state(1)["rax"] == 0x1122334455667789


@pytest.mark.parametrize("packet", [b"p9999", b"p", b"P0=00", b"P0", b"P9999=00", b"P0=zz", b"Hg99", b"T99", b"G1"])
def test_registers_and_threads_that_are_none_are_an_error(client: Client, packet: bytes) -> None:
    assert client.ask(packet)[:1] == b"E"


def test_a_guest_without_long_mode_is_one_of_32_bits(machine: Microvmi, tmp_path: Path) -> None:
    with served(machine, tmp_path) as path, Client(path) as client:
        assert (b"eip", 32) in [(name.encode(), bits) for name, bits in described(client)]
        assert little(client.ask(b"p8")) == 0xFFF0


def test_an_aarch64_machine_has_its_registers_and_the_stack_pointer_in_use(tmp_path: Path) -> None:
    with Microvmi.open("vmi://fake/?architecture=aarch64") as machine:
        machine.write_state({"pc": 0x40, "sp_el0": 1, "sp_el1": 2, "x30": 3})
        with served(machine, tmp_path) as path, Client(path) as client:
            assert described(client)[:34] == [
                *((f"x{number}", 64) for number in range(31)),
                *(("sp", 64), ("pc", 64), ("cpsr", 32)),
            ]
            assert [little(client.ask(b"p%x" % number)) for number in (30, 31, 32)] == [3, 2, 0x40]
            assert client.ask(b"P1f=0500000000000000") == b"OK"
            assert machine.read_state(0)["sp_el1"] == 5


# ------------------------------------------------------------------------------------------------------------- memory


def test_memory_is_by_virtual_address_in_every_packet(client: Client) -> None:
    page = struct.pack("<Q", 5) * 512
    assert client.ask(b"mffff800000000000,10") == page[:16].hex().encode()
    assert client.ask(b"xffff800000000000,10") == b"b" + page[:16]
    assert client.ask(b"Mffff800000000008,2:abcd") == b"OK"
    assert client.ask(b"Xffff80000000000a,3:a}\x03}\x5d") == b"OK"
    assert client.ask(b"mffff800000000008,8") == b"abcd61237d000000"


def test_a_read_ends_where_memory_does(client: Client) -> None:
    assert client.ask(b"mffff800000000ff8,20") == b"0500000000000000"
    for packet in (b"mffff800000001000,8", b"m1000,8", b"mffffffffffffffff,8", b"xffff800000001000,1"):
        assert client.ask(packet) == b"E14"


@pytest.mark.parametrize("size", [b"ffffffffffffffff", b"7fffffff", b"100000"])
def test_no_length_is_too_much(client: Client, size: bytes) -> None:
    assert len(client.ask(b"mffff800000000000," + size)) == 2 * 4096
    assert client.ask(b"Mffff800000000000,%s:00" % size)[:1] == b"E"


@pytest.mark.parametrize(
    "packet", [b"m", b"m,", b"m1", b"m-1,1", b"m1,1,1", b"M1,1", b"M1,1:0", b"m10000000000000000,1"]
)
def test_reads_and_writes_that_make_no_sense_are_an_error(client: Client, packet: bytes) -> None:
    assert client.ask(packet)[:1] == b"E"


def test_physical_memory_is_read_by_commands_and_by_switching_to_it(client: Client, machine: Microvmi) -> None:
    machine.write_physical(0x6000, b"physical\x1b[2J")
    assert "0x000000006000  70 68 79 73 69 63 61 6c 1b 5b 32 4a 00" in client.said("xp 0x6000 32")
    assert "physical.[2J" in client.said("xp 0x6000 32")
    assert client.said("memory physical") == "addresses are physical\n"
    assert client.ask(b"m6000,8") == b"physical".hex().encode()
    assert client.ask(b"M6000,1:50") == b"OK"
    assert machine.read_physical(0x6000, 2) == b"Ph"
    assert client.ask(b"Qqemu.PhyMemMode:0") == b"OK"
    assert client.ask(b"m6000,8") == b"E14"
    assert "no memory" in client.said("xp 0x8ff0 64")


# ------------------------------------------------------------------------------------------------------------ threads


def test_vcpus_are_threads(client: Client) -> None:
    assert (client.ask(b"qfThreadInfo"), client.ask(b"qsThreadInfo")) == (b"m1,2", b"l")
    assert bytes.fromhex(client.ask(b"qThreadExtraInfo,2").decode()) == b"vCPU 1, kernel"
    assert (client.ask(b"T2"), client.ask(b"Hg2"), client.ask(b"qC")) == (b"OK", b"OK", b"QC2")
    assert little(client.ask(b"p0")) == 0x1122334455667789


def test_the_monitor_tells_tables_registers_and_translations(client: Client) -> None:
    assert client.said("cr3") == "vCPU 0: 0x1000, X86_4_LEVELS\nvCPU 1: 0x1000, X86_4_LEVELS\n"
    assert "rax                  0x1122334455667789" in client.said("regs 1")
    assert "physical 0x5010, a page of 0x1000 bytes, KERNEL_READ" in client.said("translate 0xffff800000000010")
    assert client.said("translate 0x7000").startswith("0x7000: NOT_PRESENT at level ")
    assert "0x00000000a000 to 0x000000080000 RAM" in client.said("map")
    assert "monitor translate ADDRESS" in client.said("help")
    for wrong in (
        "translate",
        "translate x",
        "regs 9",
        "nonsense \x1b[2J",
        "xp -1",
        "memory other",
        "xp 0x1" + "0" * 16,
    ):
        text = client.said(wrong)
        assert text.count("\n") == 1
        assert "\x1b" not in text


# ------------------------------------------------------------------------------------------------------- run and stop


def test_a_debugger_stops_the_machine_and_lets_it_run(client: Client, driver: FakeDriver) -> None:
    assert client.ask(b"?") == b"T05thread:1;"
    assert not driver.running
    client.send(b"vCont;c")
    wait_for(driver, running=True)
    client.raw(b"\x03")
    assert client.content() == b"T02thread:1;"
    assert not driver.running


@pytest.mark.parametrize("end", [b"D", b"k", b"vKill;1", None], ids=["detach", "kill", "vKill", "vanish"])
@pytest.mark.parametrize("state", ["stands", "runs"])
def test_however_a_debugger_goes_the_machine_runs(path: str, driver: FakeDriver, end: bytes | None, state: str) -> None:
    with Client(path) as client:
        client.ask(b"qC")
        if state == "runs":
            client.send(b"c")
        if end:
            client.send(end)
    wait_for(driver, running=True)
    with Client(path) as client:
        assert client.ask(b"?") == b"T05thread:1;"


def test_a_machine_that_stood_before_stands_afterwards(driver: FakeDriver, path: str) -> None:
    driver.running = False
    for _ in range(2):
        with Client(path) as client:
            assert client.ask(b"qC") == b"QC1"
            assert client.ask(b"D") == b"OK"
    with Client(path) as client:
        assert client.ask(b"qC") == b"QC1"
    assert not driver.running


def test_a_second_debugger_waits_until_the_first_has_gone(path: str) -> None:
    with Client(path) as first:
        assert first.ask(b"qC") == b"QC1"
        with Client(path) as second:
            first.ask(b"D")
            assert second.ask(b"qC") == b"QC1"


def test_a_machine_that_is_stopped_for_good_is_told(path: str, machine: Microvmi) -> None:
    with Client(path) as client:
        assert client.ask(b"s0") == b"E.write the instruction pointer to go on elsewhere"


def test_a_dump_is_read_and_neither_written_nor_run(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(range(256)) * 64)
    with Microvmi.open(str(tmp_path / "raw")) as machine, served(machine, tmp_path) as path, Client(path) as client:
        assert client.ask(b"qfThreadInfo") == b"m1"
        assert client.ask(b"g")[: 2 * 8] == b"xx" * 8
        assert client.ask(b"m0,4") == b"E14"
        client.said("memory physical")
        assert client.ask(b"m100,4") == b"00010203"
        assert client.ask(b"M100,1:00") == b"E14"
        assert client.ask(b"c")[:2] == b"E."
        assert client.ask(b"P0=0000000000000000")[:2] == b"E."
        assert "no registers are known" in client.said("regs")
        assert client.ask(b"D") == b"OK"
