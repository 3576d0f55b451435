# SPDX-License-Identifier: Apache-2.0
"""volatility's own command line on a machine. What it would search for in the memory is told to it instead."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from volatility3 import cli
from volatility3.framework import interfaces

from libmicrovmi_py.linux.kernel import Kernel
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.tools.volatility import layers, machines
from libmicrovmi_py.tools.volatility.plugins import microvmi_handler
from libmicrovmi_py.tools.volatility.symbolfile import symbol_file

HANDLER = microvmi_handler.MachineHandler
"""It is there as long as somebody names it: volatility looks for the classes that there are."""


class CommandLine(cli.CommandLine):
    """As volatility has it, on a machine."""

    CLI_NAME = "microvmi vol VM"

    def __init__(self, url: str, known: Mapping[str, object]) -> None:
        super().__init__()
        self._url, self._known = url, known

    def populate_config(self, context: Any, configurables_list: Any, args: Any, plugin_config_path: str) -> None:
        """What the user said, and what we know."""
        super().populate_config(context, configurables_list, args, plugin_config_path)
        context.config["automagic.LayerStacker.single_location"] = self._url
        context.config.merge(plugin_config_path, interfaces.configuration.HierarchicalDict(self._known))


def run(machine: Microvmi, known: Mapping[str, object], words: Sequence[str]) -> None:
    """Run volatility with the words of its command line; it may end by ``SystemExit``.

    ``known`` is what it need not search, or empty.
    """
    before = sys.argv
    sys.argv = ["vol", *words]
    try:
        CommandLine(machines.share(machine), known).run()
    finally:
        sys.argv = before


def known(machine: Microvmi, kernel: Kernel) -> dict[str, object]:
    """volatility's configuration of a plugin: the layers, where the kernel is, its symbol file.

    Raises as :func:`~libmicrovmi_py.tools.volatility.symbolfile.symbol_file`.
    """
    url, tables = machines.share(machine), kernel.space.tables
    kind = layers.LAYERS[tables.paging]
    machines.tell_tables(url, tables)
    layer = {
        "class": f"{layers.__name__}.{kind.__name__}",
        "page_map_offset": tables.upper_base or tables.base,
        "kernel_virtual_offset": kernel.kaslr_offset,
        "kernel_banner": kernel.banner,
        "memory_layer.class": f"{layers.__name__}.MachineLayer",
        "memory_layer.location": url,
    }
    return {
        **{f"{place}.{key}": value for place in ("kernel.layer_name", "primary") for key, value in layer.items()},
        "kernel.class": "volatility3.framework.contexts.Module",
        "kernel.offset": kernel.kaslr_offset,
        "kernel.symbol_table_name.class": "volatility3.framework.symbols.linux.LinuxKernelIntermedSymbols",
        "kernel.symbol_table_name.isf_url": symbol_file(kernel).as_uri(),
        "kernel.symbol_table_name.symbol_mask": (1 << kind._maxvirtaddr) - 1,
    }
