# SPDX-License-Identifier: Apache-2.0
"""Classes declared by ``declare`` are what ``dataclasses`` and ``typing`` would have made of them."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import pickle
import pkgutil
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import libmicrovmi_py
from libmicrovmi_py import declare
from libmicrovmi_py.drivers import base
from libmicrovmi_py.drivers.fake import FakeDriver

ROOT = Path(__file__).resolve().parents[1]


class _Made:
    """A class by ours and by the standard module, of the same body."""

    def __init__(self, frozen: bool) -> None:
        self.frozen = frozen
        self.ours = self._class(declare.dataclass, declare.field)
        self.theirs = self._class(dataclasses.dataclass, dataclasses.field)

    def _class(self, dataclass: Any, field: Any) -> Any:
        @dataclass(frozen=self.frozen, slots=True)
        class Thing:
            """A thing."""

            first: int
            items: list[int] = field(default_factory=list)
            second: str = "two"
            note: int = field(compare=False, default_factory=int)
            token: object = field(default=None, compare=False, repr=False)
            common: typing.ClassVar[int] = 5

            @property
            def both(self) -> str:
                return f"{self.first}{self.second}"

        return Thing


@pytest.fixture(params=[False, True], ids=["plain", "frozen"])
def made(request: pytest.FixtureRequest) -> _Made:
    return _Made(request.param)


def test_objects_are_made_compared_and_shown_alike(made: _Made) -> None:
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]
    calls = [((1,), {}), ((1, [2]), {"second": "x"}), ((), {"first": 3, "note": 4})]
    for arguments, values in calls:
        ours, theirs = made.ours(*arguments, **values), made.theirs(*arguments, **values)
        assert repr(ours) == repr(theirs)
        assert (ours.first, ours.items, ours.second, ours.both) == (
            theirs.first,
            theirs.items,
            theirs.second,
            theirs.both,
        )
        assert ours == made.ours(*arguments, **values)
        assert ours == declare.replace(ours, note=77)
        assert ours != declare.replace(ours, first=78)
        assert ours != theirs
    assert made.ours(1).items is not made.ours(1).items
    assert made.ours.common == 5
    assert made.ours.__doc__ == made.theirs.__doc__


@pytest.mark.parametrize("arguments", [(), (1, [], "x", 0, 1, 2)])
def test_wrong_arguments_are_the_same_error(made: _Made, arguments: tuple[object, ...]) -> None:
    texts = []
    for kind in (made.ours, made.theirs):
        with pytest.raises(TypeError) as caught:
            kind(*arguments)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


def test_hashes_and_changes_are_allowed_alike(made: _Made) -> None:
    for kind in (made.ours, made.theirs):
        thing = kind(1, ())
        if made.frozen:
            assert hash(thing) == hash(kind(1, (), note=5))
            with pytest.raises(dataclasses.FrozenInstanceError, match="first"):
                thing.first = 2
            with pytest.raises(dataclasses.FrozenInstanceError, match="first"):
                del thing.first
        else:
            with pytest.raises(TypeError, match="unhashable"):
                hash(thing)
            thing.first = 2
            assert thing.first == 2
        with pytest.raises((AttributeError, TypeError)):
            thing.unknown = 1


def test_other_programs_may_ask_what_they_ask_of_dataclasses(made: _Made) -> None:
    ours, theirs, is_dataclass = made.ours, made.theirs, bool(dataclasses.is_dataclass(made.ours))
    assert is_dataclass
    assert [item.name for item in dataclasses.fields(ours)] == [item.name for item in dataclasses.fields(theirs)]
    assert [item.compare for item in dataclasses.fields(ours)] == [item.compare for item in dataclasses.fields(theirs)]
    assert dataclasses.asdict(ours(1, [2])) == dataclasses.asdict(theirs(1, [2]))
    assert dataclasses.replace(ours(1), second="x") == ours(1, second="x")
    assert ours.__match_args__ == theirs.__match_args__
    assert ours.__dataclass_params__.frozen == made.frozen
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
    assert copy.copy(ours(1, [2])) == ours(1, [2])
    deep = copy.deepcopy(before := ours(1, [2]))
    assert deep == before
    assert deep.items is not before.items


USERS = {"distributed", "drgn", "volatility3"}
"""What is not there where the library is tested by itself."""


def declared() -> Iterator[type]:
    for info in pkgutil.walk_packages(libmicrovmi_py.__path__, "libmicrovmi_py."):
        if not {"_capi", "_native", "__main__", "stubgen"} & set(info.name.split(".")):
            try:
                module = importlib.import_module(info.name)
            except ModuleNotFoundError as err:  # those that stand on a package of the user's own
                if (err.name or "").partition(".")[0] in USERS:
                    continue
                raise
            yield from (
                kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == info.name
            )


def test_two_threads_may_make_the_first_objects_of_a_class_at_once() -> None:
    """The second finds that what it was about to make is made."""

    @declare.dataclass(frozen=True, slots=True)
    class Pair:
        first: int
        second: int

    about_to = vars(Pair)["__init__"]
    pair = Pair(1, 2)
    assert vars(Pair)["__init__"] is not about_to, "made by the first thread"
    about_to.__get__(pair, Pair)(3, 4)
    assert (pair.first, pair.second) == (3, 4)


def test_every_declared_class_can_be_asked_for_its_fields() -> None:
    kinds = [kind for kind in declared() if dataclasses.is_dataclass(kind)]
    assert len(kinds) > 15
    for kind in kinds:
        assert tuple(item.name for item in dataclasses.fields(kind)) == kind.__match_args__  # type: ignore[attr-defined]
        assert list(inspect.signature(kind).parameters) == list(kind.__match_args__)  # type: ignore[attr-defined]


def test_public_values_travel_between_processes() -> None:
    values = [libmicrovmi_py.MemoryRange(1, 2), libmicrovmi_py.X86Registers(rax=7), libmicrovmi_py.Reply()]
    assert pickle.loads(pickle.dumps(values)) == values


class Named(declare.NamedTuple):
    """A pair."""

    first: int
    second: str = "two"

    @property
    def both(self) -> str:
        return f"{self.first}{self.second}"


def test_named_tuples_are_tuples_with_names() -> None:
    assert Named(1) == (1, "two")
    assert repr(Named(1, second="x")) == "Named(first=1, second='x')"
    assert (Named._fields, Named(3).both, Named.__doc__) == (("first", "second"), "3two", "A pair.")
    assert pickle.loads(pickle.dumps(Named(1)))._replace(first=4) == Named(4)


# What drivers look like: methods, properties, attributes of an instance, ``None`` in place of a method, inherited.
def shapes() -> dict[str, object]:
    class Reads:
        def read_frame(self, frame: int, offset: int, buffer: memoryview) -> None: ...

    class ReadsAndWrites(Reads):
        def write_frame(self, frame: int, offset: int, data: memoryview) -> None: ...

    class NoWrites(ReadsAndWrites):
        write_frame = None  # type: ignore[assignment]

    class Derived(base.SupportsVcpus):
        def vcpu_count(self) -> int:
            return 1

    return {
        "none": object(),
        "reads": Reads(),
        "both": ReadsAndWrites(),
        "none again": NoWrites(),
        "of the instance": SimpleNamespace(write_frame=print, write_range=print),
        "derived": Derived(),
        "fake": FakeDriver({0: bytearray(4096)}),
    }


PROTOCOLS = [kind for name, kind in vars(base).items() if name.startswith("Supports")]


def by_typing(protocol: type) -> type:
    """The same protocol, as ``typing`` makes it."""
    names = [name for kind in protocol.__mro__ for name in vars(kind) if not name.startswith("_")]
    body = {"__module__": __name__, **{name: lambda self: None for name in names}}
    kind: Any = type(typing.Protocol)
    same: type = typing.runtime_checkable(kind("Same", (typing.Protocol,), body))
    return same


@pytest.mark.parametrize("shape", shapes())
@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda kind: str(kind.__name__))
def test_protocols_are_had_or_lacked_as_typing_says(protocol: type, shape: str) -> None:
    thing = shapes()[shape]
    assert isinstance(thing, protocol) == isinstance(thing, by_typing(protocol))


def test_a_property_is_not_asked_for_to_see_that_it_is_there() -> None:
    class Asked:
        @property
        def max_addr(self) -> int:
            raise AssertionError

        def regions(self) -> tuple[()]:
            return ()

    assert isinstance(Asked(), base.SupportsRegions)


def test_lines_for_a_log_are_written_once_somebody_logs() -> None:
    """A program that imports logging late sees our lines; one that set up no handler sees none."""
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from libmicrovmi_py.errors import logger\n"
        "logger('libmicrovmi_py.x').warning('lost')\n"
        "assert 'logging' not in sys.modules\n"
        "import logging\n"
        "logger('libmicrovmi_py.x').warning('nobody set it up')\n"
        "logging.basicConfig(format='%(name)s %(funcName)s %(message)s')\n"
        "def here(): logger('libmicrovmi_py.x').warning('line %d\\n', 1)\n"
        "here()\n"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "libmicrovmi_py.x here line 1\\n\n")
