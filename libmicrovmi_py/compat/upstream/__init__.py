# SPDX-License-Identifier: Apache-2.0
"""A folder for a module path (``microvmi upstream-path``); see :mod:`libmicrovmi_py.compat`."""
