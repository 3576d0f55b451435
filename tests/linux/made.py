# SPDX-License-Identifier: Apache-2.0
"""A guest made of bytes in which a kernel lies that never ran: its note, page tables, symbols, types, tasks and log."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from linux.packing import Btf, Kallsyms, kallsyms
from pagetables import MIB, Tables
from pagewalk import KERNEL_EXECUTE, KERNEL_READ, KERNEL_WRITE

from libmicrovmi_py import Microvmi
from libmicrovmi_py.arch.state import VcpuState
from libmicrovmi_py.drivers.fake import FakeDriver, reset_state
from libmicrovmi_py.model import Architecture

SIZE = 10 * MIB
IMAGE_AT, IMAGE = 4 * MIB, 0xFFFF_FFFF_9440_0000
"""Where the kernel's image is: physical, virtual."""

TEXT = 2 * MIB
DATA = IMAGE + TEXT
MOVED = IMAGE - 0xFFFF_FFFF_8100_0000
DIRECT = 0xFFFF_8880_0000_0000
"""Where all of memory is mapped."""

TABLES_AT, NOTE_AT, HEAP_AT = 17 * MIB // 2, 0x8000, 0x10000
RELEASE = "6.99.0-made"
BANNER = f"Linux version {RELEASE} (somebody@somewhere) #1 SMP\n".encode()
FUNCTIONS = 2000
LINES = ["first line", "a line\nof two", "last"]
COMMAND_LINE = [b"/bin/program", b"an argument", b""]


@dataclass
class Made:
    """What the kernel is made of, and what was made: ``memory`` is the guest's, ``rows`` are the symbols."""

    layout: str = "6.12"
    named: bool = True
    note: bool = True
    all_symbols: bool = True
    types: bool = True
    info_size: int = 32
    name_size: int = 16
    memory: bytearray = field(default_factory=lambda: bytearray(SIZE))
    rows: list[tuple[int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._heap, self._data = HEAP_AT, DATA
        self.tables = Tables(self.memory, "x86-4", TABLES_AT)
        self.put_banner()
        self.put_types()
        self.put_tasks()
        self.put_log()
        self.symbols = self.put_symbols()
        self.map_all()
        if self.note:
            self.put_note(NOTE_AT)

    # ------------------------------------------------------------------------------------------- where things go --

    def put(self, address: int, content: bytes) -> None:
        """Write at a virtual address of the kernel's."""
        at = address - IMAGE + IMAGE_AT if address >= IMAGE else address - DIRECT
        self.memory[at : at + len(content)] = content

    def word(self, address: int, value: int) -> None:
        self.put(address, struct.pack("<Q", value))

    def data(self, content: bytes, name: str = "", align: int = 64) -> int:
        """Put something into the image, with a symbol if it has a name; its address."""
        self._data = -(-self._data // align) * align
        address, self._data = self._data, self._data + len(content)
        assert self._data < IMAGE + TABLES_AT - IMAGE_AT
        self.put(address, content)
        if name:
            self.places[name] = address
        return address

    def heap(self, size: int) -> int:
        """Room in memory that is of nobody; its address."""
        address, self._heap = DIRECT + self._heap, self._heap + -(-size // 64) * 64
        assert self._heap < MIB
        return address

    def machine(self, **state: int) -> Microvmi:
        """The machine, whose vCPU has these registers."""
        states = [VcpuState(Architecture.X86, {**reset_state(Architecture.X86), **state})]
        return Microvmi.from_driver(FakeDriver({0: self.memory}, states=states), cache=0)

    def machine_in_kernel(self) -> Microvmi:
        """The machine, whose vCPU is in the kernel."""
        return self.machine(cr0=0x80050033, cr3=self.tables.base, cr4=0x6F0, efer=0xD01)

    def map_all(self) -> None:
        self.tables.map(IMAGE, IMAGE_AT, TEXT, KERNEL_READ | KERNEL_EXECUTE)
        self.tables.map_range(DATA, IMAGE_AT + TEXT, SIZE - IMAGE_AT - TEXT, KERNEL_READ | KERNEL_WRITE)
        self.tables.map_range(DIRECT, 0, IMAGE_AT, KERNEL_READ | KERNEL_WRITE)

    # ---------------------------------------------------------------------------------------------- what it tells --

    def put_banner(self) -> None:
        self.data(BANNER + b"\0", "linux_banner")
        self.places["swapper_pg_dir"] = TABLES_AT - IMAGE_AT + IMAGE
        self.places["_stext"] = IMAGE
        self.data(struct.pack("<q", self.phys_base), "phys_base")

    @property
    def phys_base(self) -> int:
        return IMAGE_AT - (IMAGE - 0xFFFF_FFFF_8000_0000)

    def put_symbols(self) -> Kallsyms:
        """Functions, places of a CPU's memory, and what was put into the image."""
        rows = [(0x1000 * number, f"A{name}") for number, name in enumerate(("fixed_percpu_data", "current_task"))]
        rows = [] if self.layout == "7.2" else rows
        rows += [(IMAGE, "T_stext"), (IMAGE, "T_text")]
        rows += [(IMAGE + 64 * number, f"tfunction_{number}") for number in range(FUNCTIONS)]
        rows.append((IMAGE + 64 * FUNCTIONS, "ttwice"))
        rows.append((IMAGE + 64 * FUNCTIONS + 64, "ttwice"))
        if self.all_symbols:
            rows += [(address, f"D{name}") for name, address in sorted(self.places.items(), key=lambda item: item[1])]
            rows.append((IMAGE + SIZE - IMAGE_AT, "B_end"))
        self.rows = rows
        base = self._data = -(-self._data // 64) * 64
        made = kallsyms(rows, self.layout, base, IMAGE, per_cpu=True)
        self.data(made.content)
        return made

    def put_note(self, at: int) -> None:
        lines = [f"OSRELEASE={RELEASE}", "BUILD-ID=" + "ab" * 20, "PAGESIZE=4096", f"KERNELOFFSET={MOVED:x}"]
        lines += [f"NUMBER(phys_base)={self.phys_base}", "NUMBER(pgtable_l5_enabled)=0"]
        lines += [f"SYMBOL({name})={self.places[name]:x}" for name in ("swapper_pg_dir", "_stext", "prb")]
        if self.named:
            lines += [f"SYMBOL(kallsyms_{name})={address:x}" for name, address in self.symbols.places.items()]
        text = "".join(f"{line}\n" for line in [*lines, *self.notes]).encode()
        content = struct.pack("<III", 11, len(text), 0) + b"VMCOREINFO\0\0" + text
        self.memory[at : at + len(content)] = content

    # ------------------------------------------------------------------------------------------------------ types --

    def put_types(self) -> None:
        content = types(self.info_size, self.name_size).content() if self.types else b""
        self.places["__start_BTF"] = self.data(content)
        self.places["__stop_BTF"] = self.places["__start_BTF"] + len(content)

    # ------------------------------------------------------------------------------------------------------ tasks --

    def put_tasks(self) -> None:
        """The first task, and behind it ``init``, which has memory, two threads of the kernel's, and init's thread."""
        decoy = self.data(bytes(TASK))
        self.put(decoy, struct.pack("<QQ", decoy, 0) + b"swapper/0")
        first = self.data(bytes(TASK), "init_task")
        cred = self.heap(64)
        self.put(cred, struct.pack("<I", 1000))
        tasks = [first, *(self.heap(TASK) for _ in range(4))]
        names = [b"swapper/0", b"init", b"kthreadd", b"kworker/0:0", b"thread"]
        flags, leaders = [0x200000, 0, 0x200000, 0x200020, 0], tasks[:4]
        memory = self.put_memory()
        for number, task in enumerate(tasks):
            numbers = (number, 1 if number == 4 else number, 1, 0, flags[number])
            self.put(task + 16, names[number].ljust(16, b"\0") + struct.pack("<iiIiI", *numbers))
            self.put(task + 56, struct.pack("<QQ", 0 if flags[number] else memory, tasks[2 if number == 3 else 0]))
            self.put(task + 72, struct.pack("<QQ", self.heap(64), cred))
            self.chain(self.signal(task), [task + 88])
        self.chain(first, leaders[1:])
        self.chain(self.signal(tasks[1]), [tasks[1] + 88, tasks[4] + 88])
        self.tasks, self.process_memory = tasks, memory

    def signal(self, task: int) -> int:
        at = task + 72 - IMAGE + IMAGE_AT if task >= IMAGE else task + 72 - DIRECT
        return int.from_bytes(self.memory[at : at + 8], "little")

    def chain(self, head: int, items: list[int]) -> None:
        """A list of the kernel's: each has the address of the next and of the one before."""
        for before, at, following in zip([items[-1], head, *items], [head, *items], [*items, head], strict=False):
            self.put(at, struct.pack("<QQ", following, before))

    def put_memory(self) -> int:
        """A process's: page tables with a page of arguments, and a tree of two areas."""
        memory, areas = self.heap(128), [self.heap(64) for _ in range(2)]
        leaf = self.heap(512) + 255 & ~255
        tables = Tables(self.memory, "x86-4", self.tables.end + 0x80000)
        arguments = b"\0".join([*COMMAND_LINE[:2], b""])
        page = 3 * MIB
        self.memory[page : page + len(arguments)] = arguments
        tables.map(0x7FFF_0000_0000, page)
        ends = 0x7FFF_0000_0000, 0x7FFF_0000_0000 + len(arguments), 0x7FFF_0000_1000
        self.put(
            memory,
            struct.pack("<9Q", tables.base - IMAGE_AT + IMAGE, *ends, leaf | 1 << 3 | 2, 0x1000, 0x1000, 0x3000, 0),
        )
        for number, (start, end) in enumerate(((0x1000, 0x2000), (0x7FFF_0000_0000, 0x7FFF_0000_1000))):
            self.put(areas[number], struct.pack("<6Q", start, end, 0x73 - 2 * number, 0, 0, 0))
        self.word(leaf + 8, 0xFFF)
        self.word(leaf + 16, 0x1FFF)
        self.word(leaf + 24, 0x7FFE_FFFF_FFFF)
        self.word(leaf + 32, 0x7FFF_0000_0FFF)
        self.put(leaf + 128, struct.pack("<7Q", 0, areas[0], 0, areas[1], 0, 0, areas[0]))  # the last is left over
        self.user_tables = tables
        return memory

    # -------------------------------------------------------------------------------------------------------- log --

    def put_log(self) -> None:
        """A ring of 8 records of which the last three are there, and begin anew: texts of 256 bytes in all."""
        count, size, first = 8, 256, 1021
        descriptors, infos, texts = bytearray(count * 24), bytearray(count * 32), bytearray(size)
        at = 1024 * size - 40
        for number, line in enumerate(LINES, first):
            index, text = number % count, line.encode()
            begin, end = at, at + 8 + -(-len(text) // 8) * 8
            if (end - 1) // size != begin // size:
                end = begin // size * size + size + end - begin
                begin_at = 0
            else:
                begin_at = begin % size
            texts[begin_at : begin_at + 8 + len(text)] = struct.pack("<Q", number) + text
            descriptors[24 * index : 24 * index + 24] = struct.pack("<QQQ", 2 << 62 | number, begin, end)
            info = struct.pack("<QQHBBI", number, 1_234_567_891 + number, len(text), 0, (number - first) << 5, 0)
            infos[32 * index : 32 * index + 24] = info
            at = end
        ring = self.data(bytes(128))
        self.put(ring, struct.pack("<IIQQQQ", 3, 0, self.data(bytes(descriptors)), self.data(bytes(infos)), 0, 0))
        self.put(ring + 24, struct.pack("<QQ", first + len(LINES) - 1, first))
        self.put(ring + 48, struct.pack("<IIQQQ", 8, 0, self.data(bytes(texts)), 0, 0))
        self.log_ring = ring
        self.data(struct.pack("<Q", ring), "prb")


TASK = 128
"""Bytes of a task."""


def types(info_size: int = 32, name_size: int = 16) -> Btf:
    """The types of what is made here; a guest may tell other sizes."""
    btf = Btf()
    word, half = btf.integer("long unsigned int", 8), btf.integer("int", 4, signed=True)
    short, character, pointer = btf.integer("unsigned int", 4), btf.integer("char", 1), btf.pointer()
    link = btf.struct("list_head", 16, {"next": (pointer, 0), "prev": (pointer, 8)})
    name = btf.array(character, half, name_size)
    numbers = {"pid": (half, 32), "tgid": (half, 36), "__state": (short, 40), "exit_state": (half, 44)}
    pointers = {"mm": (pointer, 56), "real_parent": (pointer, 64), "signal": (pointer, 72), "cred": (pointer, 80)}
    inner = btf.struct("", 8, {"flags": (short, 0)}, kind=5)
    members = {"tasks": (link, 0), "comm": (name, 16), **numbers, "": (inner, 48), **pointers}
    btf.struct("task_struct", TASK, {**members, "thread_node": (link, 88), "worker_private": (pointer, 104)})
    btf.struct("signal_struct", 64, {"thread_head": (link, 0)})
    kuid = btf.add(8, "kuid_t", btf.struct("", 4, {"val": (short, 0)}))
    btf.struct("cred", 64, {"euid": (kuid, 0)})
    tree = btf.struct("maple_tree", 8, {"ma_root": (pointer, 0)})
    names = ("arg_start", "arg_end", "env_end")
    tail = {"mm_mt": (tree, 32), "start_brk": (word, 40), "brk": (word, 48), "start_stack": (word, 56)}
    btf.struct("mm_struct", 72, {"pgd": (pointer, 0), **{n: (word, 8 + 8 * i) for i, n in enumerate(names)}, **tail})
    members_of_area = ("vm_start", "vm_end", "vm_flags", "vm_file", "vm_pgoff", "vm_ops")
    btf.struct("vm_area_struct", 48, {n: (word, 8 * i) for i, n in enumerate(members_of_area)})
    pivots, slots = btf.array(word, half, 15), btf.array(pointer, half, 16)
    btf.struct("maple_range_64", 256, {"parent": (pointer, 0), "pivot": (pivots, 8), "slot": (slots, 128)})
    btf.add(6, "color", 4, [btf._name("red"), 0, btf._name("none"), 0xFFFFFFFF], 2)
    _log_types(btf, word, short, pointer, info_size)
    return btf


def _log_types(btf: Btf, word: int, short: int, pointer: int, info_size: int) -> None:
    names = {"count_bits": (short, 0), "descs": (pointer, 8), "infos": (pointer, 16)}
    ring = btf.struct("prb_desc_ring", 48, {**names, "head_id": (word, 24), "tail_id": (word, 32)})
    texts = btf.struct("prb_data_ring", 32, {"size_bits": (short, 0), "data": (pointer, 8)})
    btf.struct("printk_ringbuffer", 88, {"desc_ring": (ring, 0), "text_data_ring": (texts, 48)})
    place = btf.struct("prb_data_blk_lpos", 16, {"begin": (word, 0), "next": (word, 8)})
    btf.struct("prb_desc", 24, {"state_var": (word, 0), "text_blk_lpos": (place, 8)})
    btf.struct("printk_info", info_size, {"seq": (word, 0), "ts_nsec": (word, 8), "text_len": (short, 16)})
