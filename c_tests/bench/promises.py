# SPDX-License-Identifier: Apache-2.0
"""What the project promises about what a run measured, and whether it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from results import LOOPS, OURS, PREAD, Pair, Results, duration

NO_LIMIT = "no limit yet"
NOISE = "within noise"
BUSY = "the machine was busy"


class Claim(NamedTuple):
    """A promise: what is measured, its limit, whether it holds (None: not measured), and what else to know.

    A figure without a limit holds as soon as it was measured.
    """

    text: str
    limit: str
    measured: str
    holds: bool | None
    note: str = ""


RATIOS = {
    ("shared", "8 B hot"): 1.6,
    ("shared", "8 B random"): 1.6,
    ("shared", "4 KiB random"): 1.1,
    ("shared", "64 KiB"): 1.05,
    ("shared", "1 MiB"): 1.05,
    ("shared", "256 pages"): 1.1,
    ("shared", "dump"): 1 / 0.95,
    ("private", "8 B hot"): 1.1,
    ("private", "8 B random"): 1.1,
    ("private", "4 KiB random"): 1.1,
    ("private", "64 KiB"): 1.05,
    ("private", "1 MiB"): 1.05,
    ("private", "256 pages"): 1.1,
}
"""How much of the limit a read may cost."""


class Row(NamedTuple):
    """A pair, and what is promised about it.

    At most ``most`` times the partner and ``extra`` nanoseconds, or at least ``least`` times, or at most ``longest``
    nanoseconds. ``quickest``: the minima are compared, not the rounds.
    """

    text: str
    pair: str
    partner: str
    most: float | None = None
    extra: float = 0
    least: float | None = None
    longest: float | None = None
    quickest: bool = False

    def limit(self) -> str:
        """In words."""
        if self.longest is not None:
            return f"<= {self.longest / 1e6:g} ms"
        if self.least is not None:
            return f">= {self.least:g} x {self.partner}"
        extra = f" + {self.extra / 1e3:g} us" if self.extra else ""
        return NO_LIMIT if self.most is None else f"<= {self.most:g} x {self.partner}{extra}"

    def bound(self, pair: Pair) -> float | None:
        """The limit as a ratio to the partner."""
        if self.longest is not None:
            return self.longest / pair.partner
        return self.least if self.most is None else self.most + self.extra / pair.partner

    def claim(self, pair: Pair | None) -> Claim:
        """The row of the table."""
        if pair is None:
            return Claim(self.text, self.limit(), "-", None)
        value, bound = self._value(pair), self.bound(pair)
        holds = bound is None or (value >= bound if self.least is not None else value <= bound)
        measured = f"{ratio(value)} x ({ratio(pair.low)} - {ratio(pair.high)})"
        return Claim(self.text, self.limit(), measured, holds, self._note(pair, bound))

    def _value(self, pair: Pair) -> float:
        if self.longest is not None:
            return pair.ours / pair.partner
        return pair.quickest if self.quickest else pair.middle

    def _note(self, pair: Pair, bound: float | None) -> str:
        told = nanoseconds if self.least is None else rate
        parts = [f"{told(pair.ours)}, {self.partner}: {told(pair.partner)}"]
        if not self.quickest and self.least is None:
            parts.append(f"quickest: {ratio(pair.quickest)} x")
        parts += noise(bound, pair.low, pair.high)
        return "; ".join([*parts, BUSY] if self.least is None and pair.busy else parts)


def ratio(value: float) -> str:
    """A ratio with two digits behind the point, or with those that mean something."""
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def nanoseconds(value: float) -> str:
    """A duration that always has a unit."""
    text = duration(value)
    return text if text.endswith("s") else f"{text} ns"


def rate(value: float) -> str:
    """So many of something a second."""
    return f"{value:,.0f} a second"


def noise(bound: float | None, low: float, high: float) -> list[str]:
    """What to say of a figure whose limit lies between its quartiles."""
    return [NOISE] if bound is not None and low <= bound <= high else []


KEPT = [Row("private RAM, paused by the context: 8 B hot", "private kept page", PREAD, 0.05)]

FRAMES = [
    Row("fake, from C: 8 B", "fake 8 B", "an empty call into Python", 8),
    *(
        row
        for name, text, call in (
            ("virtualbox", "virtualbox", "FDP_ReadPhysicalMemory"),
            ("kvm", "kvm", "kvmi_read_physical"),
            ("kvm, no socket", "kvm, a libkvmi that answers at once", "kvmi_read_physical"),
        )
        for row in (
            Row(f"{text}, from C: 8 B", f"{name} 8 B", call, 1.5, 200),
            Row(f"{text}, from C: 1 MiB", f"{name} 1 MiB", call, 1.3),
            Row(f"{text}, from C: 256 pages", f"{name} 256 pages", call),
        )
    ),
    Row("kvm, two threads on two machines, 4 KiB reads", "kvm two threads", "kvmi_read_physical", least=0.9),
    *(
        Row(f"fake, 8 B beside another context's 16 MiB: {text}", f"latency {host}", "alone", longest=3e5)
        for host, text in (("C", "a C program"), ("Python", "a Python program"))
    ),
]

PYTHON = [
    Row("Python: readinto of 1 MiB", "Python readinto of 1 MiB", "memmove", 1.1),
    Row("Python: readinto of 4 KiB", "Python readinto of 4 KiB", "memmove", 1.05),
    Row("Python: read of 1 MiB", "Python read of 1 MiB", "os.pread", 1.3),
    Row("Python: read_physical of 1 MiB", "Python read_physical of 1 MiB", "os.pread", 1.3),
    Row("Python: seek and read of 8 B", "Python seek and read of 8 B", "os.lseek and os.read", 1.5),
    Row("Python: 256 pages by read_physical_batch", "Python 256 pages", "slices of a mmap", 1.5),
]

START = [
    Row(f"process start to the first byte of {text}", name, "python -I -S -c pass, CPU time", most, quickest=True)
    for text, name, most in (("an image", "start image", 4), ("a guest", "start guest", 12))
]

ALL_REGISTERS = "connect, info registers -a"

CONTROL = [
    Row(f"QEMU: {text}", f"control {text}", commands, most, quickest=True)
    for text, commands, most in (
        ("pause and resume", "connect, stop; connect, cont", 3),
        ("read_registers", "connect, info registers", 3),
        ("vCPU count", "connect, query-cpus-fast", 2),
        ("open by name", "connect, query-status, info mtree -f", 8),
        ("open in a crowd", "without 1,000 more processes", 2),
        ("list in a crowd", "each process's program and command line", 5),
        ("all registers of 64 vCPUs", ALL_REGISTERS, 4),
    )
]
STANDS = [Row("QEMU: the guest stands for them", "control stands", "for xen-save-devices-state", 1.3, quickest=True)]

SNAPSHOTS = [
    Row(f"snapshot, {name} with {data} of data: it stands", f"snapshot {name}", "a bare copy", 1.3, quickest=True)
    for name, data in (("private 512 MiB", "300 MiB"), ("shared 512 MiB", "300 MiB"), ("private 4 GiB", "1 GiB"))
]
SNAPSHOTS += [
    Row(f"the same in the background, {name}: it stands", f"background {name}", "a bare copy", 0.5, quickest=True)
    for name in ("private 512 MiB", "private 4 GiB")
]

VIRTUAL = [
    Row(f"{kind} RAM, virtual: {text}", f"{kind} virtual {pair}", partner, most)
    for kind, text, pair, partner, most in (
        ("shared", "8 B hot", "hot", "a physical read and 1.3 bare walks", 1),
        ("shared", "8 B hot, paused by the context", "hot kept", "a physical read and 0.3 of one, 1.5 ns at least", 1),
        ("shared", "8 B random in 8 MiB, paused by the context", "random", "physical reads", 2),
        ("private", "8 B hot", "running", "process_vm_readv of one piece", 2.4),
        ("private", "8 B hot, paused by the context", "paused", PREAD, 1.15),
        *((kind, "256 pages", "256 pages", "the physical batch", 1.5) for kind in ("shared", "private")),
        *((kind, "all of a kernel half, by entry", "map", "a bare walk", 1.5) for kind in ("shared", "private")),
    )
]

SPACES = [
    Row("Python: read_virtual of 8 B", "Python read_virtual of 8 B", "read_physical"),
    Row("Python: seek and read of 8 B, virtual", "Python seek and read of 8 B, virtual", "seek and read, physical"),
    Row("Python: 256 virtual pages by read_batch", "Python 256 virtual pages", "read_physical_batch", 1.5),
    Row("Python, frames: read_virtual of 8 B", "Python, frames: read_virtual of 8 B", "read_physical", 7),
    Row("Python, frames: 256 virtual pages", "Python, frames: 256 virtual pages", "read_physical_batch", 3),
]

EVENTS = [
    Row(f"QEMU: {text}", f"events {name}", partner, most)
    for text, name, partner, most in (
        ("a change of CR3, from C", "changes of CR3, from C", "a bare loop at the stub", 2),
        ("a change of CR3, from Python", "changes of CR3, from Python", "a bare loop at the stub", 4),
        ("a change of CR3", "changes of CR3, watched", "every write by a breakpoint", 1 / 8),
        ("a breakpoint with registers and a step", "breakpoint", "a bare loop at the stub", 1 / 0.8),
    )
]

KDUMP = [Row(f"kdump, zlib: {text}", f"kdump {text}", "zlib of a page") for text in ("8 B", "4 KiB", "open")]

PACKED = [
    Row(f"kdump, zlib, from C: {text}", f"libkdumpfile {pair}", partner, most, quickest=True)
    for text, pair, partner, most in (
        ("open 1 GiB with 64 MiB of data in 5,000 pieces", "open", "libkdumpfile", 1.5),
        ("8 B", "8 B", "libkdumpfile", 1.2),
        ("4 KiB", "4 KiB", "libkdumpfile", 1.2),
        ("8 B of a page that is kept", "kept page", "libkdumpfile", 0.5),
        ("all memory, by two threads", "dump", "libkdumpfile", 1),
        ("open 64 GiB with the same data", "open large", "1 GiB with it", 3),
    )
]

LOOKUP = [Row("8 B random among 10,000 regions", "lookup among 10,000", "among 2", 2)]

DIFF = [Row("diff of two copies of 4 GiB, of which 512 MiB is data", "diff", "memcmp of the data", 1 / 0.8)]


def claims(results: Results) -> Iterator[Claim]:
    """Every promise, in the order of the documentation."""
    yield from _ratio_claims(results)
    yield from _rows(results, [*KEPT, *VIRTUAL])
    yield from _thread_claims(results)
    yield from _rows(results, [*FRAMES, *PYTHON, *SPACES, *START])
    yield from _sparse_claims(results)
    yield from _rows(results, [*LOOKUP, *DIFF, *CONTROL, *STANDS, *SNAPSHOTS, *EVENTS, *KDUMP, *PACKED])


def _rows(results: Results, rows: list[Row]) -> Iterator[Claim]:
    return (row.claim(results.pairs.get(row.pair)) for row in rows)


def _ratio_claims(results: Results) -> Iterator[Claim]:
    for (kind, column), most in RATIOS.items():
        found, limit = results.ratio(kind, OURS, column), results.limit(kind, column)
        name, note = (limit[0], _beside(results, kind, column, most)) if limit and found else ("the limit", "")
        if column == "dump":
            measured = f"{1 / found:.2f} x" if found else "-"
            text = f"{kind} RAM: bandwidth of a whole dump"
            yield Claim(text, f">= 0.95 x {name}", measured, _holds(found, most), note)
        else:
            measured = f"{found:.2f} x" if found else "-"
            yield Claim(f"{kind} RAM: {column}", f"<= {most:g} x {name}", measured, _holds(found, most), note)


def _beside(results: Results, kind: str, column: str, most: float) -> str:
    limit = results.limit(kind, column)
    assert limit is not None
    ours = results.cells[kind, OURS, column]
    spread = results.spreads.get((kind, limit[0], column))
    parts = [f"{nanoseconds(ours.median)}, {limit[0]}: {nanoseconds(limit[1].median)}"]
    return "; ".join(parts + (noise(most, *spread) if spread else []))


def _holds(value: float | None, most: float) -> bool | None:
    return None if value is None else value <= most


def _most(results: Results, text: str, name: str, most: float, form: str, note: str = "") -> Claim:
    value = results.numbers.get(name)
    measured = "-" if value is None else form.format(value)
    return Claim(text, f"<= {form.format(most)}", measured, _holds(value, most), note)


def _thread_claims(results: Results) -> Iterator[Claim]:
    numbers = results.numbers
    gain = numbers.get("shared gain ours")
    yield Claim(
        "two threads on one context, 4 KiB reads",
        ">= 1.9 x one thread",
        "-" if gain is None else f"{gain:.2f} x",
        _reaches(gain, 1.9),
        _beside_memcpy(numbers, "shared gain", 1.9, lambda value: f"{value:.2f} x"),
    )
    kept = numbers.get("kept ours")
    yield Claim(
        "the same beside a spinning Python thread",
        "< 10 % lost",
        "-" if kept is None else _lost(kept),
        _reaches(kept, 0.9),
        _beside_memcpy(numbers, "kept", 0.9, _lost),
    )


def _reaches(value: float | None, least: float) -> bool | None:
    return None if value is None else value >= least


def _lost(kept: float) -> str:
    return f"{100 * (1 - kept):.1f} %"


def _beside_memcpy(numbers: dict[str, float], name: str, bound: float, told: Callable[[float], str]) -> str:
    parts = [f"memcpy: {told(numbers[f'{name} memcpy'])}"] if f"{name} memcpy" in numbers else []
    low, high = (numbers.get(f"{name} ours {part}") for part in ("low", "high"))
    return "; ".join(parts + (noise(bound, low, high) if low is not None and high is not None else []))


def _other(numbers: dict[str, float], name: str, form: str) -> str:
    return form.format(numbers[name]) if name in numbers else ""


def _sparse_claims(results: Results) -> Iterator[Claim]:
    for name, text in (("mem-dump", "mem-dump"), ("loops", "reading loops")):
        yield _most(results, f"idle 4 GiB guest, {text}: growth of its RAM file", f"growth {name} 4 GiB", 2, "{:.2f} %")
    data = _other(results.numbers, "data ratio", "{:.2f} x the data")
    for name in ("mem-dump", LOOPS[1]):
        text = f"idle 4 GiB guest, {name}: time per byte of data"
        note = _other(results.numbers, f"time ratio {name}", f"{{:.2f}} x the time for {data}")
        yield _most(results, text, f"time per data {name}", 1.5, "{:.2f} x 512 MiB's", note)
    yield _most(results, "opening a guest of 64 GiB", "open ratio", 1.2, "{:.2f} x one of 512 MiB")
