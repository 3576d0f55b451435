# SPDX-License-Identifier: Apache-2.0
"""From a C header to a typed ctypes module: ``python -m libmicrovmi_py.stubgen``, or :func:`generate`.

The header's text goes through ``libmicrovmi_py.header`` and cffi's parser (``parse``), every C type gets its spelling
in ctypes and in annotations (``spell``), comments become docstrings (``comments``), ``emit`` writes the module.
"""

from libmicrovmi_py.stubgen.emit import generate

__all__ = ["generate"]
