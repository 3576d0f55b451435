# SPDX-License-Identifier: Apache-2.0
"""How one dump is opened, and what is learnt about it on the way: shared by all files that belong to it."""

from __future__ import annotations

from libmicrovmi_py.declare import TYPE_CHECKING, NamedTuple
from libmicrovmi_py.errors import logger
from libmicrovmi_py.params import Parameters

if TYPE_CHECKING:
    from libmicrovmi_py.drivers.dump.image import File

_MOST = 64
"""So many lines are kept of what is missing: a file that is damaged everywhere needs no more."""

_log = logger(__name__)


class Options(NamedTuple):
    """What the caller said. ``hole`` and ``map`` are for raw memory alone, ``snapshot`` is for disks, ``parts`` for a
    dump that is split."""

    mapped: bool = True
    partial: bool = False
    unpack: str | None = None
    hole: str | None = None
    map: str | None = None
    snapshot: str | None = None
    parts: str | None = None
    keep_index: bool = False

    @classmethod
    def of(cls, params: Parameters) -> Options:
        """Raises ``InvalidArgumentError`` for values that cannot be."""
        return cls(
            params.yes("mapped", True),
            params.yes("partial", False),
            params.get("unpack"),
            params.get("hole"),
            params.get("map"),
            params.get("snapshot"),
            params.get("parts"),
            params.yes("index", False),
        )


class Opening:
    """The options, and the books of one opening.

    ``missing`` has a line for each thing that should be in the files and is not: only with ``partial`` there are any.
    ``said`` has a line for each thing that a user should know of how the dump was opened. ``wrappers`` has the names of
    those that were taken off, the outermost first. ``files`` are those that belong to it. ``split``: it has parts.
    """

    def __init__(self, options: Options | None = None) -> None:
        self.options = options if options is not None else Options()
        self.missing: list[str] = []
        self.said: list[str] = []
        self.wrappers: list[str] = []
        self.files: list[File] = []
        self.split = False

    def lacks(self, what: str) -> None:
        """Write down that ``what`` is missing."""
        if len(self.missing) < _MOST and what not in self.missing:
            self.missing.append(what)
            _log.warning("missing: %s", what)

    def say(self, what: str) -> None:
        """Write down what a user should know, and log it."""
        self.said.append(what)
        _log.warning("%s", what)

    @property
    def identity(self) -> str:
        """What no other dump has, as long as nobody writes to its files."""
        return " and ".join(file.identity for file in self.files if not file.made)

    def let_go(self, kept: int) -> None:
        """Release all files but the first ``kept``: the others were looked at, and do not belong to it by that."""
        for file in self.files[kept:]:
            file.mapping.close()
        del self.files[kept:]

    def close(self) -> None:
        """Release all files; an access under way in another thread ends normally."""
        self.let_go(0)
