# SPDX-License-Identifier: Apache-2.0
"""The text of docs/benchmarks.md around its tables."""

from __future__ import annotations

INTRODUCTION = """<!-- SPDX-License-Identifier: Apache-2.0 -->
# Benchmarks

`make bench` measures what the library costs, beside the least that any program can pay for the same. It boots QEMU
guests (TCG, 512 MiB, stopped while their memory is measured), starts simulators of other hypervisors, writes this page
and the chart, and takes about two minutes. What counts is the ratio to the partner of the same run: nanoseconds depend
on the machine, and on what else it does.

![What a read costs, in multiples of the limit](benchmarks.svg)
"""

READING = """
## How it is measured

- All subjects are called in one process through a pointer of the same type, in turns of about 40 microseconds, another
  one first in each round. Cells are min / median, in nanoseconds per call where no unit is given. Before anything is
  timed, every subject's reads are compared with the memory itself; one that reads something else is left out.
- The limit for shared RAM, `memcpy`, is a C function of the same signature that does nothing but `memcpy()` from a
  mapping of the RAM file; for 8 bytes it is one that does a single load, whatever size it is given. For private RAM it
  is the cheaper of `pread()` on `/proc/PID/mem` and `process_vm_readv()`; from 64 KiB on and for the scattered pages it
  is `process_vm_readv()`.
- *hot* reads one address again and again, the others read random ones (8 bytes: aligned to 8, else to 4 KiB).
  *256 pages* are scattered pages in one `microvmi_read_physical_batch()`, one `process_vm_readv()`, or 256 calls where
  there is no such thing. *dump* is one reading of everything in pieces of 1 MiB, all of it touched before.
- The other promises are about pairs that take turns. *measured* is the median of the rounds' ratios, with the
  quartiles; beside it are both medians, and *quickest*, the ratio of the minima, which a busy machine spoils least. Of
  starts and of control the minima count. *within noise*: the limit lies between the quartiles, so another run may say
  otherwise. *The machine was busy*: the partner's median is more than three times its minimum.
- Drivers of frames run on the tests' simulators (`tests/drivers`): `virtualbox` on a libFDP and its shared memory,
  `kvm` on a libkvmi and its socket. Their partner is the library's own read function, called from C: for 1 MiB and 256
  pages as often as the library needs. *A libkvmi that answers at once* has its memory in the process, so that nothing
  but the way to it is measured; that of the two threads takes 10 us for a call.
- Beside another context's large reads, which go on without a pause, 8 bytes are read every 0.3 ms; the median read
  counts. In the Python program a Python thread does the large reads.
- The Python rows read the RAM file; their partners read the same bytes by `os.pread()`, by `ctypes.memmove()` or by
  slices of a mapping of it. The partner of control is a client of Python's that connects, sends the commands named and
  hangs up, and does so for each of our calls, as others are to have their turn at the monitor between them; that of
  kdump is zlib, for one page.
- kdump files from C: libkdumpfile (`apt-get install libkdumpfile10`) reads the same files in the same process, after
  all that both read was found to be the same; with two threads each has a clone of its own, as it wants it. Ours keeps
  no pages (`cache=0`) but for the row that says so, libkdumpfile 1024 of 16,384. The minima count.
- *The guest stands*: the registers of a guest that runs are read, and QEMU's events STOP and RESUME, which another
  monitor tells, say how long it stood for that.
- Virtual memory is read by tables of four levels, and 64 MiB of pages in no order, that are written into the RAM of a
  guest with firmware only. A *bare walk* is a C function that loads an entry a level and tests what it must to be
  right; of a whole kernel half it is one that makes the same list. Of private RAM a hot read of a machine that runs
  takes five pieces in one call, the bytes and each entry that led there; its partner is a call with one piece. The
  Python rows have physical reads of the same bytes, by the same classes, beside them; those of *frames* are of the
  driver `fake`, whose frames Python reads one by one: a word takes five, one for each level and its own.
- A start is a process's CPU time, that of the kernel included, from `exec` to its end.
- Idle guests are dumped before anything else reads them: by `mem-dump`, by a loop over all addresses, and by one that
  reads what `SEEK_DATA` finds; of three times, as of 20 openings, the quickest counts. Growth is that of the blocks of
  the RAM file. Holes that a loop reads are filled with zeros, so the loop over all addresses takes time by the size as
  well.
- With two threads, or one that spins, the median of 15 short rounds counts. What `memcpy` reaches in the same rounds
  stands beside it, as it tells what the processors had to give.
- This page is of one run. Figures near their limits can miss them in other runs and on busier machines: two threads
  above all, wherever `memcpy` in the same rounds misses them as well. The limits for "time per byte of data" (1.5) and
  for opening (1.2) are our own.

## How to run it

```
make bench
build/venv/bin/python c_tests/bench/bench.py --only frames --only latency       # parts, printed only; --help lists them
build/venv/bin/python c_tests/bench/bench.py --seconds 3                        # longer and calmer
build/venv/bin/python c_tests/bench/bench.py --peer other=/path/other.so        # and a library with the ABI of 0.4.0
build/venv/bin/python c_tests/bench/bench.py --image memory.raw --output /tmp   # a memory image, without QEMU
```

`--library` and `--package` measure another build. It needs what the [live tests](testing.md) need, and 5 GiB free in
`/dev/shm`. LeechCore is measured where it is installed (`pip install leechcorepyc`). With `--strict` it fails if a
promise does not hold or was not measured.
"""
