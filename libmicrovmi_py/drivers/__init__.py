# SPDX-License-Identifier: Apache-2.0
"""Drivers: one file or folder each, found by the registry. See ``base.py`` for the contract."""
