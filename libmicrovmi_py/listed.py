# SPDX-License-Identifier: Apache-2.0
"""Machines that there are, as a driver lists them without opening them."""

from __future__ import annotations

import enum

from libmicrovmi_py.abilities import Ability
from libmicrovmi_py.declare import dataclass
from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.model import DriverType
from libmicrovmi_py.params import SCHEME, Parameters

LONGEST_URI = 511
"""Bytes: it has room in the C struct."""

NOTHING = Ability(0)


class MachineState(enum.IntEnum):
    """What a machine does; the numbers of ``enum microvmi_machine_state`` in the C header."""

    UNKNOWN = 0
    """Nobody who was asked could tell, or nobody could be asked without disturbing others."""
    RUNNING = 1
    PAUSED = 2
    """It stands, and can be let run."""
    OTHER = 3
    """It sleeps, is being saved, its process is stopped: as the reason says."""


@dataclass(frozen=True, slots=True)
class ListedMachine:
    """A machine that somebody could want to open.

    ``uri`` opens this very machine, as long as it is there and nothing is in the way; ``""``: nothing does.
    ``reason`` is why it cannot be opened at present, the text that opening it ends with, or what of it cannot be
    had. ``memory`` is bytes of RAM, 0 if that is not known, as are ``vcpus`` and ``process_id``. ``user_id`` is who
    runs it, ``None`` if that is not known. ``abilities`` are those of a machine that ``uri`` opens, as far as they
    can be told before, which ``MAP``, ``PAGE_ACCESS`` and ``EVENTS`` cannot; none for one that cannot be opened at
    present.

    A driver that could ask nobody tells one without a name and a process, with the reason.
    """

    driver: str
    driver_type: DriverType
    name: str = ""
    uri: str = ""
    reason: str = ""
    process_id: int = 0
    user_id: int | None = None
    state: MachineState = MachineState.UNKNOWN
    memory: int = 0
    vcpus: int = 0
    abilities: Ability = NOTHING
    uuid: str = ""


def uri_of(driver: str, **values: str) -> str:
    """The URI that is parsed to these parameters of a driver; ``""`` if there is none, or only a longer one.

    Names of machines are anybody's: those with control characters, or that are no text, have none.
    """
    from urllib.parse import quote_from_bytes  # large, and nobody but who lists machines needs it

    try:
        pairs = [f"{key}={quote_from_bytes(value.encode(), safe='/')}" for key, value in values.items()]
        uri = f"{SCHEME}://{driver}/?{'&'.join(pairs)}"
        uri = uri if values else f"{SCHEME}://{driver}/"
        same = len(uri) <= LONGEST_URI and dict(Parameters.from_uri(uri)) == values
    except (InvalidArgumentError, UnicodeEncodeError):
        return ""
    return uri if same else ""
