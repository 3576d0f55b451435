# SPDX-License-Identifier: Apache-2.0
"""What classes are declared with: what ``typing`` and ``dataclasses`` offer, at a tenth of their cost at the start.

``typing`` imports ``re``, ``dataclasses`` imports ``inspect``; both make objects and compile functions that no run of
ours uses. A program that looks into one machine and ends would wait for them longer than for anything else. For a type
checker these names are the originals. At run time annotations are texts, so that most of them mean nothing, and

- a dataclass has slots; its ``__init__`` is compiled when the first object is made. What other programs ask for
  (``dataclasses.fields``, ``replace``, ``asdict``) is made by that module when they do;
- a named tuple gets its methods from ``collections.namedtuple`` when they are first called;
- a protocol is checked by the names that a class has, not by calling anything.
"""

from __future__ import annotations

import abc
import collections
import functools
import operator
from collections.abc import Callable

TYPE_CHECKING = False

if TYPE_CHECKING:
    from dataclasses import dataclass, field, replace
    from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, runtime_checkable

__all__ = [
    "TYPE_CHECKING",
    "Any",
    "ClassVar",
    "NamedTuple",
    "Protocol",
    "TypeVar",
    "dataclass",
    "field",
    "replace",
    "runtime_checkable",
]

_NONE = object()
"""Stands for a default that there is not."""

# ---------------------------------------------------------------------------------------------- dataclasses -------


class _Field:
    """A field as it was written: with a default, a factory of defaults, or neither."""

    __slots__ = ("compare", "default", "factory", "repr")

    def __init__(
        self,
        default: object = _NONE,
        factory: Callable[[], Any] | None = None,
        *,
        compare: bool = True,
        repr: bool = True,
    ) -> None:
        self.default, self.factory = default, factory
        self.compare, self.repr = compare, repr

    def of_module(self, dataclasses: Any) -> Any:
        """The same of the ``dataclasses`` module."""
        given = {} if self.default is _NONE else {"default": self.default}
        made = {} if self.factory is None else {"default_factory": self.factory}
        return dataclasses.field(compare=self.compare, repr=self.repr, **given, **made)


class _Plan:
    """What a class was written with: the names of its fields, and the defaults of some."""

    def __init__(self, written: type, frozen: bool) -> None:
        self.annotations = {name: kind for name, kind in written.__annotations__.items() if not _is_of_class(kind)}
        self.names = tuple(self.annotations)
        told = {name: vars(written).get(name, _NONE) for name in self.names}
        self.fields = {name: value if isinstance(value, _Field) else _Field(value) for name, value in told.items()}
        self.frozen = frozen
        self.shown = [name for name, field_ in self.fields.items() if field_.repr]
        compared = [name for name, field_ in self.fields.items() if field_.compare]
        self.key: Callable[[Any], Any] = operator.attrgetter(*compared)

    def initializer(self, made: type) -> Callable[..., None]:
        """``__init__``, compiled."""
        space: dict[str, Any] = {"_none": _NONE}
        head, body = ["self"], []
        for name, told in self.fields.items():
            value = name
            if told.factory is not None:
                space[f"_make_{name}"] = told.factory
                value = f"_make_{name}() if {name} is _none else {name}"
                head.append(f"{name}=_none")
            elif told.default is _NONE:
                head.append(name)
            else:
                space[f"_default_{name}"] = told.default
                head.append(f"{name}=_default_{name}")
            space[f"_set_{name}"] = vars(made)[name].__set__
            body.append(f" _set_{name}(self, {value})" if self.frozen else f" self.{name} = {value}")
        exec(f"def __init__({', '.join(head)}):\n" + "\n".join(body), space)
        function: Callable[..., None] = space["__init__"]
        function.__qualname__, function.__module__ = f"{made.__qualname__}.__init__", made.__module__
        return function

    def twin(self, made: type) -> type:
        """The same class as the ``dataclasses`` module makes it."""
        import dataclasses

        values = {name: told.of_module(dataclasses) for name, told in self.fields.items()}
        body = {**values, "__annotations__": self.annotations, "__module__": made.__module__}
        return dataclasses.dataclass(frozen=self.frozen)(type(made.__name__, (), body))


def _is_of_class(annotation: str) -> bool:
    return annotation.partition("[")[0].endswith("ClassVar")


class _Late:
    """An attribute of a class that is made when somebody looks."""

    def __init__(self, name: str, make: Callable[[type], Any]) -> None:
        self._name, self._make = name, make

    def __get__(self, instance: object, made: type) -> Any:
        kinds = (*made.__mro__, *getattr(instance, "__mro__", ()))  # inspect takes a class for an instance
        owner = next((kind for kind in kinds if vars(kind).get(self._name) is self), None)
        if owner is None:  # another thread has made it since this one was found here
            value = next(vars(kind)[self._name] for kind in kinds if self._name in vars(kind))
        else:
            value = self._make(owner)
            setattr(owner, self._name, value)
        return value.__get__(instance, made) if hasattr(value, "__get__") else value


def _methods(plan: _Plan) -> dict[str, Any]:
    names, shown, key = plan.names, plan.shown, plan.key

    def __repr__(self: Any) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def __eq__(self: Any, other: object) -> Any:
        return key(self) == key(other) if type(other) is type(self) else NotImplemented

    def __replace__(self: Any, /, **changes: Any) -> Any:
        return type(self)(**{**{name: getattr(self, name) for name in names}, **changes})

    return {"__repr__": __repr__, "__eq__": __eq__, "__hash__": None, "__replace__": __replace__}


def _frozen_methods(plan: _Plan) -> dict[str, Any]:
    """What keeps an object as it is, and lets ``copy`` and ``pickle`` make another all the same."""
    names, key = plan.names, plan.key

    def __hash__(self: Any) -> int:
        return hash(key(self))

    def __setattr__(self: Any, name: str, value: object) -> None:
        raise _frozen_error(f"cannot assign to field {name!r}")

    def __delattr__(self: Any, name: str) -> None:
        raise _frozen_error(f"cannot delete field {name!r}")

    def __getstate__(self: Any) -> list[Any]:
        return [getattr(self, name) for name in names]

    def __setstate__(self: Any, state: list[Any]) -> None:
        for name, value in zip(names, state, strict=True):
            object.__setattr__(self, name, value)

    functions = (__hash__, __setattr__, __delattr__, __getstate__, __setstate__)
    return {function.__name__: function for function in functions}


def _frozen_error(text: str) -> Exception:
    from dataclasses import FrozenInstanceError

    return FrozenInstanceError(text)


_OWN = ("__dict__", "__weakref__")
_ASKED_FOR = ("__dataclass_fields__", "__dataclass_params__")


def _of_twin(plan: _Plan, name: str) -> Callable[[type], Any]:
    return lambda made: getattr(plan.twin(made), name)


# ------------------------------------------------------------------------------------- protocols, named tuples ----


_TUPLE_METHODS = ("__new__", "__repr__", "__getnewargs__", "_make", "_replace", "_asdict", "_field_defaults")


class _NamedTupleMeta(type):
    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
        if not bases:
            return super().__new__(cls, name, bases, body)
        names = tuple(body.get("__annotations__", ()))
        defaults = [body.pop(item) for item in names if item in body]
        getters = {item: collections._tuplegetter(index, "") for index, item in enumerate(names)}  # type: ignore[attr-defined]

        def of_twin(method: str) -> Callable[[type], Any]:
            return lambda made: vars(collections.namedtuple(made.__name__, names, defaults=defaults))[method]

        late = {method: _Late(method, of_twin(method)) for method in _TUPLE_METHODS}
        return type(
            name, (tuple,), {**getters, **late, "_fields": names, "__match_args__": names, "__slots__": (), **body}
        )


class _ProtocolMeta(abc.ABCMeta):
    """Of protocols, and of classes that derive from one: those are classes like others."""

    _members: frozenset[str]

    def __instancecheck__(cls, thing: object) -> bool:
        members = vars(cls).get("_members")
        if members is None:
            return super().__instancecheck__(thing)
        absent = _absent(members, type(thing))  # type: ignore[arg-type]
        return not absent or (None not in absent and absent <= getattr(thing, "__dict__", {}).keys())


@functools.lru_cache(maxsize=512)
def _absent(members: frozenset[str], kind: type) -> frozenset[str | None]:
    """The members that a class has not, and ``None`` if one of them is taken back by its being ``None``."""
    found = {name: next((vars(each)[name] for each in kind.__mro__ if name in vars(each)), kind) for name in members}
    return frozenset(name if value is kind else None for name, value in found.items() if value is None or value is kind)


if not TYPE_CHECKING:

    def field(*, default_factory: Callable[[], Any] | None = None, **known: Any) -> _Field:
        """``default``, or ``default_factory`` for one that is made for each object; ``compare`` and ``repr``."""
        return _Field(factory=default_factory, **known)

    def dataclass(*, slots: bool, frozen: bool = False) -> Callable[[type], type]:
        """As ``dataclasses.dataclass``; there are no classes without slots."""
        assert slots

        def make(written: type) -> type:
            plan = _Plan(written, frozen)
            body = {name: value for name, value in vars(written).items() if name not in (*plan.names, *_OWN)}
            made_here = {**_methods(plan), **(_frozen_methods(plan) if frozen else {})}
            late = {"__init__": plan.initializer, **{name: _of_twin(plan, name) for name in _ASKED_FOR}}
            made_here |= {name: _Late(name, function) for name, function in late.items()}
            made_here |= {"__slots__": plan.names, "__match_args__": plan.names, "__qualname__": written.__qualname__}
            return type(written)(written.__name__, written.__bases__, {**made_here, **body})

        return make

    def replace(thing: Any, /, **changes: Any) -> Any:
        """A copy of an object with other values in some fields."""
        return thing.__replace__(**changes)

    Any = ClassVar = None

    def TypeVar(name: str) -> None:
        """Nothing at run time."""

    class NamedTuple(metaclass=_NamedTupleMeta):
        """As ``typing.NamedTuple``."""

    class Protocol(metaclass=_ProtocolMeta):
        """As ``typing.Protocol``."""

    def runtime_checkable(protocol: type) -> type:
        """Let ``isinstance`` ask whether a class has what this protocol names."""
        bases = [kind for kind in protocol.__mro__ if isinstance(kind, _ProtocolMeta) and kind is not Protocol]
        protocol._members = frozenset(name for kind in bases for name in vars(kind) if not name.startswith("_"))
        return protocol
