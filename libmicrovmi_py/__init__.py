# SPDX-License-Identifier: Apache-2.0
"""Virtual machine introspection: physical memory, registers and run state of a virtual machine, from outside."""

from libmicrovmi_py.version import __version__

__all__ = ["__version__"]
