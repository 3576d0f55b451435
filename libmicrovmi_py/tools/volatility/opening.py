# SPDX-License-Identifier: Apache-2.0
"""What volatility's handler opens: a machine's memory as a file, with the symbol file of its kernel beside it."""

from __future__ import annotations

import io
import logging

from volatility3 import symbols
from volatility3.framework.automagic import symbol_cache

from libmicrovmi_py.errors import MicrovmiError, told
from libmicrovmi_py.linux.kernel import Kernel
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.memory import PaddedMemory
from libmicrovmi_py.tools.volatility.machines import is_open, machine_of
from libmicrovmi_py.tools.volatility.symbolfile import symbol_file


def file_of(url: str) -> io.RawIOBase:
    """A new file over the machine of a URL: volatility closes those that it got. What does not exist is zeros."""
    if not is_open(url):
        _offer_symbols(machine_of(url))
    machine = machine_of(url)
    return PaddedMemory(machine.driver, machine.physical)


def _offer_symbols(machine: Microvmi) -> None:
    """Have volatility find the symbol file of a Linux guest among its own."""
    try:
        path = symbol_file(Kernel.find(machine))
    except MicrovmiError as err:
        logging.getLogger("volatility3.microvmi").info("no symbol file was made: %s", told(err))
        return
    symbols.__path__ = [*symbols.__path__, str(path.parent)]
    symbol_cache.load_cache_manager().update()
