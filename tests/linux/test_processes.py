# SPDX-License-Identifier: Apache-2.0
"""Tasks, their memory and the kernel's log, out of a guest that was made for it."""

from __future__ import annotations

import struct

import pytest
from linux.made import COMMAND_LINE, LINES, Made

from libmicrovmi_py.errors import IoError, NotSupportedError
from libmicrovmi_py.linux.btf import NoSuchTypeError
from libmicrovmi_py.linux.kernel import Kernel
from libmicrovmi_py.linux.log import log
from libmicrovmi_py.linux.objects import read
from libmicrovmi_py.linux.tasks import tasks


@pytest.fixture
def made() -> Made:
    return Made()


def test_processes_are_told_in_their_order(made: Made) -> None:
    found = list(tasks(Kernel.find(made.machine())))
    assert [(task.pid, task.tgid, task.parent, task.name) for task in found] == [
        (1, 1, 0, b"init"),
        (2, 2, 0, b"kthreadd"),
        (3, 3, 2, b"kworker/0:0"),
    ]
    assert [task.is_kernel_thread for task in found] == [False, True, True]
    assert {(task.state, task.user) for task in found} == {("S", 1000)}
    assert [task.shown_name() for task in found] == [task.name for task in found]


def test_threads_follow_their_process(made: Made) -> None:
    found = list(tasks(Kernel.find(made.machine()), threads=True))
    assert [(task.pid, task.tgid, task.is_thread) for task in found] == [
        (1, 1, False),
        (4, 1, True),
        (2, 2, False),
        (3, 3, False),
    ]


@pytest.mark.parametrize(
    ("state", "exit_state", "letter"),
    [
        (0, 0, "R"),
        (1, 0, "S"),
        (2, 0, "D"),
        (4, 0, "T"),
        (8, 0, "t"),
        (0x402, 0, "I"),
        (0x8000, 0, "D"),
        (0x80, 0x20, "Z"),
        (0x80, 0x10, "X"),
        (0x40, 0, "P"),
    ],
)
def test_states_have_the_letters_of_ps(made: Made, state: int, exit_state: int, letter: str) -> None:
    made.put(made.tasks[1] + 40, struct.pack("<Ii", state, exit_state))
    assert next(tasks(Kernel.find(made.machine()))).state == letter


def test_a_process_has_its_memory_and_arguments(made: Made) -> None:
    first, thread, *_ = tasks(Kernel.find(made.machine()))
    assert first.command_line() == COMMAND_LINE[:2]
    assert [(item.start, item.end, item.rights) for item in first.maps()] == [
        (0x1000, 0x2000, "rw-p"),
        (0x7FFF_0000_0000, 0x7FFF_0000_1000, "r--p"),
    ]
    assert [item.path for item in first.maps()] == [b"[heap]", b""]
    assert first.space is not None
    assert first.space.read_virtual(0x7FFF_0000_0000, 12) == b"/bin/program"
    assert (thread.space, thread.command_line(), list(thread.maps())) == (None, [], [])


def test_without_types_ps_says_why_and_the_log_is_told() -> None:
    made = Made(types=False)
    names = {"printk_ringbuffer.desc_ring": 0, "printk_ringbuffer.text_data_ring": 48, "prb_desc_ring.count_bits": 0}
    names |= {"prb_desc_ring.descs": 8, "prb_desc_ring.infos": 16, "prb_desc_ring.head_id": 24}
    names |= {"prb_desc_ring.tail_id": 32, "prb_desc.state_var": 0, "prb_desc.text_blk_lpos": 8}
    names |= {"prb_data_blk_lpos.begin": 0, "prb_data_blk_lpos.next": 8, "printk_info.ts_nsec": 8}
    names |= {"printk_info.text_len": 16, "prb_data_ring.size_bits": 0, "prb_data_ring.data": 8}
    made.notes = [f"OFFSET({name})={value}" for name, value in names.items()]
    made.notes += ["SIZE(prb_desc)=24", "SIZE(printk_info)=32"]
    made.put_note(0x8000)
    kernel = Kernel.find(made.machine())
    assert [line.text for line in log(kernel)] == LINES
    with pytest.raises(NotSupportedError, match="built without BTF"):
        tasks(kernel)


def test_the_log_is_told_from_the_oldest_record_on(made: Made) -> None:
    lines = list(log(Kernel.find(made.machine())))
    assert [(line.level, line.text) for line in lines] == list(enumerate(LINES))
    assert lines[1].lines() == ["[    1.234568] a line", "[    1.234568] of two"]
    assert lines[0].seconds == pytest.approx(1.234568912)


def test_a_record_that_is_not_whole_is_left_out(made: Made) -> None:
    at = int.from_bytes(made.memory[made.log_ring + 8 - 0xFFFF_FFFF_9400_0000 :][:8], "little")
    made.put(at + 24 * (1022 % 8), struct.pack("<Q", 1022))
    assert [line.text for line in log(Kernel.find(made.machine()))] == [LINES[0], LINES[2]]


def test_a_log_of_another_size_than_any_is_refused(made: Made) -> None:
    made.put(made.log_ring, struct.pack("<I", 40))
    with pytest.raises(IoError, match="the kernel's log is damaged: its size would be 2 to the power of 40"):
        list(log(Kernel.find(made.machine())))


def test_a_list_that_leads_astray_is_refused(made: Made) -> None:
    made.put(made.tasks[3], struct.pack("<Q", made.tasks[1]))
    with pytest.raises(IoError, match=r"is damaged at .*, or changed while it was read; its like 20 times"):
        tasks(Kernel.find(made.machine()))


def test_a_tree_of_memory_without_an_end_is_refused(made: Made) -> None:
    leaf = int.from_bytes(made.memory[made.process_memory + 32 - 0xFFFF_8880_0000_0000 :][:8], "little")
    node = leaf & ~0xFF
    made.word(made.process_memory + 32, node | 2 << 3 | 2)
    made.put(node + 128, struct.pack("<16Q", *[node | 2 << 3 | 2] * 16))
    with pytest.raises(IoError, match="the tree of a process's memory is damaged: it has no end"):
        list(next(tasks(Kernel.find(made.machine()))).maps())


def test_types_are_asked_for_by_name(made: Made) -> None:
    types = Kernel.find(made.machine()).known_types()
    task = types.struct("task_struct")
    assert (task.size, task.offset("tasks.prev"), task.offset("flags")) == (128, 8, 48)
    assert task.field("comm") == (16, 16, False, task.field("comm").type)
    assert task.field("pid").signed
    assert types.struct("kuid_t").offset("val") == 0
    assert types.enum("color") == {"red": 0, "none": -1}
    assert "nothing" not in task
    for wrong in (lambda: types.struct("nothing"), lambda: task.offset("nothing"), lambda: types.enum("task_struct")):
        with pytest.raises(NoSuchTypeError, match=r"the kernel has no type|has no member"):
            wrong()
    assert [record.number for record in types] == list(range(1, len(types) + 1))


def test_a_log_whose_records_would_be_huge_is_an_error() -> None:
    with pytest.raises(NotSupportedError, match="printk_info, or what it cannot be"):
        list(log(Kernel.find(Made(info_size=1 << 31).machine())))


def test_a_name_is_never_longer_than_those_of_the_kernel() -> None:
    made = Made(name_size=100)
    made.put(made.tasks[1] + 16, b"n" * 100)
    found = read(Kernel.find(made.machine()), "task_struct", made.tasks[1])
    assert len(found.text("comm")) == 64
