# SPDX-License-Identifier: Apache-2.0
"""Virtual memory of drivers that read frame by frame: the walks are batched over the pages of an access."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from libmicrovmi_py.declare import TYPE_CHECKING, Any, NamedTuple
from libmicrovmi_py.errors import AccessError, NotMappedError
from libmicrovmi_py.memory.batch import Request, Result, checked, read_one
from libmicrovmi_py.memory.frames import FRAMES_A_TRIP, FrameMemory, clear
from libmicrovmi_py.memory.translation import (
    Space,
    behind_everything,
    check_virtual,
    new_translation,
    virtual_error,
)
from libmicrovmi_py.memory.walks import Walks
from libmicrovmi_py.model import PAGE_SIZE
from libmicrovmi_py.transport.native import give_way, native

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_END = 1 << 64


class _Run(NamedTuple):
    """A part of an access that lies in one piece of physical memory, or nowhere; offsets in the access.

    ``walks`` and ``number`` tell the walk to its first address; ``None``: it is behind the last one.
    """

    begin: int
    end: int
    physical: int | None
    walks: Walks | None
    number: int

    @property
    def error(self) -> AccessError | None:
        """What the walk ended with, other than that there is nothing."""
        return None if self.walks is None else self.walks.error(self.number)


_Read = tuple["memoryview | None", Result]
"""What became of a run, and where its bytes are; ``None``: where the caller wants them."""


class FrameVirtual:
    """By virtual address, as ``VirtualMemory``."""

    def __init__(self, frames: FrameMemory, space: Space) -> None:
        self._frames = frames
        self._space = space

    def read(self, address: int, size: int) -> bytes:
        """All of it, or an error."""
        content = bytearray(size)
        self.read_exactly_into(address, memoryview(content))
        return bytes(content)

    def read_some(self, address: int, size: int) -> bytes:
        """What there is up to the first byte that there is not; an error if that is the first."""
        content = bytearray(size)
        done, error = self._read(address, memoryview(content), 0)
        if error is not None and not (done and isinstance(error, NotMappedError)):
            raise error
        return bytes(content[:done])

    def read_into(self, address: int, buffer: memoryview) -> int:
        """As ``PhysicalMemory.read_into``."""
        done, error = self._read(address, buffer, 0)
        if error is not None and not isinstance(error, NotMappedError):
            raise error
        return done

    def read_exactly_into(self, address: int, buffer: memoryview, ready: int = 0) -> None:
        """As ``PhysicalMemory.read_exactly_into``, when ``ready`` bytes of it were read already."""
        _, error = self._read(address, buffer, ready)
        if error is not None:
            raise error

    def _read(self, address: int, buffer: memoryview, ready: int) -> tuple[int, AccessError | None]:
        """How much there is from the start, and why it is not all."""
        check_virtual(address)
        done = ready or self._read_here(address, buffer)
        plan = self._plan(address, done, len(buffer))
        if not done and _in_frame(address, buffer):
            walks = self._walk((address,))
            if self._read_in_frame(walks.physical[0], buffer):
                return len(buffer), None
            plan = iter([_runs(address, walks, range(1), len(buffer))])
        for runs in plan:
            done, error = self._put_together(address, buffer, runs, self._read_runs(runs, buffer))
            if error is not None:
                return done, error
            give_way()
        return done, None

    def _read_in_frame(self, physical: int | None, buffer: memoryview) -> bool:
        """The most frequent read, of what lies in one frame; false if there is anything to tell of it."""
        if physical is None:
            return False
        try:
            self._frames.read_within(physical, buffer)
        except AccessError:
            return False
        give_way()
        return True

    def _read_here(self, address: int, buffer: memoryview) -> int:
        """How much C reads by itself, from the start."""
        table = self._frames.table()
        if table is None or not buffer:
            return 0
        ffi, lib = native()
        done, target = ffi.new("uint64_t *"), ffi.from_buffer("uint8_t[]", buffer, require_writable=True)
        pointers = table.pointer, self._space.pointer
        lib.mvi_virtual_read(*pointers, False, address, target, len(buffer), done, new_translation())
        return int(done[0])

    def _read_runs(self, runs: Sequence[_Run], buffer: memoryview) -> Iterator[_Read]:
        """Read, in one trip, what is in front of the first run that lies nowhere."""
        return self._read_there(list(itertools.takewhile(lambda run: run.physical is not None, runs)), buffer)

    def _read_there(self, runs: Iterable[_Run], buffer: memoryview) -> Iterator[_Read]:
        """Read, in one trip, those of the runs that lie somewhere.

        What is behind a failure is not for the caller: several runs go through buffers of ours.
        """
        there = [(run, run.physical) for run in runs if run.physical is not None]
        if len(there) == 1:
            run, physical = there[0]
            return iter([(None, read_one(self._frames.read_into, (physical, buffer[run.begin : run.end])))])
        views = [_room(run) for run, _ in there]
        requests = [(physical, view) for (_, physical), view in zip(there, views, strict=True)]
        return iter(zip(views, self._frames.read_batch(requests), strict=True))

    def _put_together(
        self, address: int, buffer: memoryview, runs: Iterable[_Run], read: Iterator[_Read]
    ) -> tuple[int, AccessError | None]:
        """Hand out what was read of each run up to the first that is not whole; as :meth:`_read`."""
        done = 0
        for run in runs:
            if run.physical is None:
                return run.begin, self._stopped(run, 0, run.error, address, len(buffer))
            view, result = next(read)
            done = run.begin + result.done
            if view is not None:
                buffer[run.begin : done] = view[: result.done]
            if result.error is not None:
                return done, self._stopped(run, result.done, result.error, address, len(buffer))
        return done, None

    def _stopped(self, run: _Run, done: int, err: AccessError | None, address: int, size: int) -> AccessError:
        """The error of an access that stopped ``done`` bytes behind the begin of a run."""
        whole = run.begin + done
        if err is None or isinstance(err, NotMappedError):
            return virtual_error(NotMappedError.code, address, size, whole, self._row(run, done, address + whole))
        return type(err)(str(err), address=address + whole, requested=size, completed=whole)

    # ------------------------------------------------------------------------------------------------------- walks

    def _walk(self, addresses: Sequence[int]) -> Walks:
        return Walks(self._space, self._frames, addresses)

    def _row(self, run: _Run, done: int, address: int) -> Any:
        """C's translation of an address that is ``done`` bytes behind the begin of a run."""
        if run.walks is None:
            return behind_everything()
        return run.walks.row(run.number) if done == 0 else self._walk([address]).row(0)

    def _plan(self, address: int, begin: int, size: int) -> Iterator[list[_Run]]:
        """The runs of an access from an offset on, by as many pages as are walked together."""
        end, step = min(size, _END - address), self._space.step
        while begin < end:
            starts = self._starts(address + begin, address + end)
            walks = self._walk(starts)
            begin = min(end, max((starts[-1] // step + 1) * step, walks.reach(len(starts) - 1)) - address)
            yield _runs(address, walks, range(len(starts)), begin)
        if behind := _behind(address, size):
            yield behind

    def _starts(self, address: int, end: int) -> list[int]:
        """An address, and where the pages behind it begin, up to an end."""
        step = self._space.step
        first = address // step * step + step
        return [address, *range(first, min(end, first + (FRAMES_A_TRIP - 1) * step), step)]

    def translate(self, address: int) -> Any:
        """As ``DirectVirtual.translate``."""
        check_virtual(address)
        walks = self._walk([address])
        if (err := walks.error(0)) is not None:
            raise self._stopped(_Run(0, 0, None, walks, 0), 0, err, address, 0)
        return walks.row(0)

    # ---------------------------------------------------------------------------------------------- padded, many

    def read_padded_into(self, address: int, buffer: memoryview, ready: int = 0) -> None:
        """As ``PhysicalMemory.read_padded_into``, when ``ready`` bytes of it were read already."""
        check_virtual(address)
        done = ready or self._read_here(address, buffer)
        for runs in self._plan(address, done, len(buffer)):
            read = self._read_there(runs, buffer)
            for run in runs:
                self._pad(run, address, buffer, (None, Result(0, run.error)) if run.physical is None else next(read))
            give_way()

    def _pad(self, run: _Run, address: int, buffer: memoryview, read: _Read) -> None:
        """Fill a run with what was read of it."""
        view, (content, (done, err)) = buffer[run.begin : run.end], read
        if content is not None:
            view[:done] = content[:done]
        if run.physical is None and err is None:
            clear(view)
        elif run.physical is not None and isinstance(err, NotMappedError):
            try:
                self._frames.read_padded_into(run.physical, view)
            except AccessError as another:
                raise self._stopped(run, another.completed, another, address, len(buffer)) from another
        elif err is not None:
            raise self._stopped(run, done, err, address, len(buffer))

    def read_batch(self, requests: Iterable[tuple[int, WriteableBuffer]]) -> list[Result]:
        """As ``PhysicalMemory.read_batch``: the pages of as many requests as one trip takes are walked together."""
        results: list[Result] = []
        group: list[Request] = []
        pages = 0
        for request in checked(requests, check_virtual):
            more = len(request[1]) // self._space.step + 2
            if group and pages + more > FRAMES_A_TRIP:
                results += self._read_group(group)
                group, pages = [], 0
            group.append(request)
            pages += more
        return results + self._read_group(group)

    def _read_group(self, group: Sequence[Request]) -> list[Result]:
        if len(group) < 2:
            return [Result(*self._read(address, view, 0)) for address, view in group]
        starts = [self._starts_of(address, view) for address, view in group]
        walks, first = self._walk([at for item in starts for at in item]), 0
        plans = []
        for (address, view), item in zip(group, starts, strict=True):
            own, first = range(first, first + len(item)), first + len(item)
            if _in_frame(address, view):
                plans.append([_Run(0, len(view), walks.physical[own.start], walks, own.start)])
            else:
                plans.append(_runs(address, walks, own, min(len(view), _END - address)) + _behind(address, len(view)))
        return self._read_plans(group, plans)

    def _starts_of(self, address: int, view: memoryview) -> Sequence[int]:
        if _in_frame(address, view):
            return (address,)
        return self._starts(address, min(address + len(view), _END)) if view else ()

    def _read_plans(self, group: Sequence[Request], plans: Sequence[Sequence[_Run]]) -> list[Result]:
        """Read what is planned of each request, in one trip for all."""
        wanted = [
            [(run.physical, view if len(plan) == 1 else _room(run)) for run in plan if run.physical is not None]
            for plan, (_, view) in zip(plans, group, strict=True)
        ]
        results = iter(self._frames.read_batch([piece for pieces in wanted for piece in pieces]))
        return [
            self._result(request, plan, pieces, list(itertools.islice(results, len(pieces))))
            for request, plan, pieces in zip(group, plans, wanted, strict=True)
        ]

    def _result(
        self, request: Request, plan: Sequence[_Run], pieces: Sequence[Request], results: Sequence[Result]
    ) -> Result:
        if len(plan) == len(results) == 1 and results[0].error is None:  # the most frequent one
            return results[0]
        rooms = [None if len(plan) == 1 else room for _, room in pieces]
        return Result(*self._put_together(*request, plan, iter(list(zip(rooms, results, strict=True)))))

    # ------------------------------------------------------------------------------------------------------ writes

    def write_from(self, address: int, data: memoryview) -> None:
        """As ``PhysicalMemory.write_from``: everything is translated and checked before anything is written."""
        check_virtual(address)
        runs = [run for some in self._plan(address, 0, len(data)) for run in some]
        for run in runs:
            if run.physical is None:
                raise self._refused(run, 0, run.error, address, len(data))
        check, write = functools.partial(self._frames.check_write, part=True), self._frames.write_from
        for run in runs if len(runs) > 1 else ():
            self._on_run(run, address, data, check, writes=False)
        for run in runs:
            self._on_run(run, address, data, write, writes=True)

    def _on_run(
        self, run: _Run, address: int, data: memoryview, do: Callable[[int, memoryview], object], *, writes: bool
    ) -> None:
        """Do something with the part of a write that is a run; an error tells of the whole."""
        physical = run.physical or 0
        try:
            do(physical, data[run.begin : run.end])
        except AccessError as err:
            error = self._refused(run, max(err.address - physical, 0), err, address, len(data))
            if writes and (run.begin or err.completed):
                error.completed = run.begin + err.completed
            raise error from err

    def _refused(self, run: _Run, done: int, err: AccessError | None, address: int, size: int) -> AccessError:
        """The error of a write of which nothing was done, as it stopped ``done`` bytes behind the begin of a run."""
        error = self._stopped(run, done, err, address, size)
        error.completed = 0
        return error


def _in_frame(address: int, view: memoryview) -> bool:
    """Whether an access is of one frame, whatever the tables are: no page is smaller."""
    return 0 < len(view) <= PAGE_SIZE - address % PAGE_SIZE


def _room(run: _Run) -> memoryview:
    return memoryview(bytearray(run.end - run.begin))


def _runs(address: int, walks: Walks, own: range, stop: int) -> list[_Run]:
    """An access by its pages, whose walks are ``own``, up to an offset; neighbours in physical memory are one run."""
    runs: list[_Run] = []
    follows = -1
    for index in own:
        physical, begin = walks.physical[index], walks.virtual[index] - address
        end = walks.virtual[index + 1] - address if index + 1 < own.stop else stop
        if physical is not None and physical == follows:
            runs[-1] = runs[-1]._replace(end=end)
        else:
            runs.append(_Run(begin, end, physical, walks, index))
        follows = -1 if physical is None else physical + end - begin
    return runs


def _behind(address: int, size: int) -> list[_Run]:
    """What of an access lies behind the last address."""
    end = _END - address
    return [_Run(end, size, None, None, 0)] if end < size else []
