# SPDX-License-Identifier: Apache-2.0
"""The one exception tree, each class with the code that the C API reports for it, and what errors and log lines say.

The numbers are those of ``enum microvmi_error`` in ``include/libmicrovmi.h``; a test compares the two. Errors and log
lines tell names, paths and answers of others, and end up on terminals and in files of one line an entry: what could
move a cursor, end a line or turn the text around is escaped, here and nowhere else.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from libmicrovmi_py.declare import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import logging

    from libmicrovmi_py.paging import Translation

_LONGEST = 16384
"""Characters of an error's text or a log line; a path has 4096 at the most."""

_DIRECTIONS = "\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""What separates lines or changes the direction of text."""


def escaped(text: str) -> str:
    """``text`` as one line that is safe to print, cut if it is longer than any that makes sense."""
    return harmless(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...")


def harmless(text: str, kept: str = "") -> str:
    """All of ``text``, with what is unsafe in it escaped, but for the characters of ``kept``."""
    if text.isprintable():
        return text
    return "".join(
        item.encode("unicode_escape").decode() if _is_unsafe(item) and item not in kept else item for item in text
    )


def shortened(whole: str, size: int) -> str:
    """The beginning of a text that takes at most ``size`` bytes, cut at a whole character."""
    return whole.encode("utf-8", "backslashreplace")[:size].decode("utf-8", "ignore")


def is_control(character: str) -> bool:
    """Whether it moves a cursor, or does other things that are no text."""
    return character < " " or "\x7f" <= character <= "\x9f"


def _is_unsafe(character: str) -> bool:
    """Control characters, those that are no part of a line, and bytes that are no UTF-8."""
    return is_control(character) or character in _DIRECTIONS or "\ud800" <= character <= "\udfff"


def told(err: BaseException) -> str:
    """What an exception says, as one line; as the lines that it has if it is a ``NoDriverError``.

    A driver of somebody else may raise one that has no text.
    """
    try:
        text = str(err)
    except Exception:
        return "its text cannot be told"
    return "\n".join(map(escaped, text.split("\n"))) if isinstance(err, NoDriverError) else escaped(text)


class Logger:
    """The logger of a module, whose lines are each one line.

    The ``logging`` module is not imported for it: nobody who did not import it has asked for lines.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._found: logging.Logger | None = None

    def debug(self, text: str, *args: object, exc_info: BaseException | None = None) -> None:
        """A line for those who look for a fault."""
        self._tell("debug", text, *args, exc_info=exc_info)

    def info(self, text: str, *args: object) -> None:
        """A line about what went well."""
        self._tell("info", text, *args)

    def warning(self, text: str, *args: object) -> None:
        """A line about what was left out."""
        self._tell("warning", text, *args)

    def error(self, text: str, *args: object) -> None:
        """A line about what could not be done."""
        self._tell("error", text, *args)

    def _tell(self, level: str, text: str, *args: object, **more: object) -> None:
        if (found := self._found or self._look()) is not None:
            getattr(found, level)(text, *args, stacklevel=3, **more)

    def _look(self) -> logging.Logger | None:
        module = sys.modules.get("logging")
        if module is None or getattr(module.__spec__, "_initializing", False):
            return None  # another thread is still importing it: nobody can have asked for lines yet
        package = module.getLogger(__package__)
        if not package.handlers:
            package.addHandler(module.NullHandler())
        self._found = module.getLogger(self._name)
        self._found.addFilter(_as_one_line)
        return self._found


def logger(name: str) -> Logger:
    """The logger of the module of that name."""
    return Logger(name)


def _as_one_line(record: logging.LogRecord) -> bool:
    record.msg, record.args = escaped(record.getMessage()), None
    return True


class MicrovmiError(Exception):
    """Anything this library raises on purpose. ``code`` is the C API's number for it.

    ``machine_found`` says that it is about a machine that exists: one of the name that was asked for.
    """

    code: ClassVar[int] = 14
    machine_found: bool = False

    def __init__(self, *args: object) -> None:
        super().__init__(*(escaped(item) if isinstance(item, str) else item for item in args))


@contextmanager
def about_a_machine() -> Iterator[None]:
    """Mark the errors of a ``with`` block as being about a machine that was found."""
    try:
        yield
    except MicrovmiError as err:
        err.machine_found = True
        raise


def listed(items: Sequence[str], most: int = 8, separator: str = ", ") -> str:
    """Items in a line, the first ``most`` of them and how many more there are; ``none`` for none."""
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return separator.join([*items[:most], *more]) or "none"


class InvalidArgumentError(MicrovmiError, ValueError):
    """An argument, a parameter or a URI that makes no sense."""

    code = 1


class InvalidContextError(MicrovmiError):
    """A context that is not live: never opened, or already destroyed or closed."""

    code = 2


def was_closed(when: str = "") -> InvalidContextError:
    """What a use of a machine ends with that was closed before, or ``when``: meanwhile."""
    return InvalidContextError(f"the machine was closed {when}".rstrip())


class NoDriverError(MicrovmiError):
    """No driver could open the machine; the text holds one line a driver with its reason."""

    code = 3

    def __init__(self, headline: str, *reasons: str) -> None:
        Exception.__init__(self, "\n".join(map(escaped, (headline, *reasons))))


class DriverUnavailableError(MicrovmiError):
    """The hypervisor, its library or its control channel is not there, or somebody else holds it."""

    code = 4


class NotSupportedError(MicrovmiError):
    """This driver cannot do that."""

    code = 5


class AccessError(MicrovmiError, OSError):
    """A memory access that failed.

    ``address`` is the address at which it stopped, guest-physical or virtual as the access was; ``requested`` and
    ``completed`` are byte counts: the first ``completed`` bytes of the access are valid. An ``OSError``, so that ``io``
    treats it as one.
    """

    errno_: ClassVar[int] = errno.EIO

    def __init__(self, message: str, *, address: int = 0, requested: int = 0, completed: int = 0) -> None:
        super().__init__(self.errno_, message)
        self.address = address
        self.requested = requested
        self.completed = completed

    def __str__(self) -> str:
        return str(self.args[1])


class NotMappedError(AccessError):
    """No memory at that address.

    ``translation``: of an access by a virtual address, that of the address at which it stopped: one that failed, or
    that leads to a physical address which is no memory. ``None``: the access was by a physical address.
    """

    code = 6
    errno_ = errno.EFAULT
    translation: Translation | None = None


def not_mapped(address: int, size: int = 0, done: int = 0) -> NotMappedError:
    """What an access of ``size`` bytes at ``address`` ends with that met a hole after ``done`` bytes.

    Without a size it is about ``address`` alone: a driver that was asked for one frame does not know the whole access.
    """
    text = f"no memory at physical address {address + done:#x}"
    if size:
        text += f" ({done} of {size} bytes before it)"
    return NotMappedError(text, address=address + done, requested=size, completed=done)


class PermissionDeniedError(AccessError):
    """The operating system refused."""

    code = 7
    errno_ = errno.EACCES


class VmGoneError(AccessError):
    """The virtual machine ended."""

    code = 8
    errno_ = errno.ESRCH


class TimeoutExpiredError(MicrovmiError, TimeoutError):
    """No answer in time."""

    code = 9


class IoError(AccessError):
    """Any other failure of the operating system or of the hypervisor."""

    code = 10


class ReadOnlyError(AccessError):
    """That memory, or the whole machine, cannot be written."""

    code = 11
    errno_ = errno.EROFS


class ForkedError(MicrovmiError):
    """Used in a child after ``fork()``."""

    code = 12


class StartupError(MicrovmiError):
    """The library could not start."""

    code = 13


class CancelledError(MicrovmiError):
    """The caller ended it, by the function that is told how far it is."""

    code = 15
