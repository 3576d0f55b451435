# SPDX-License-Identifier: Apache-2.0
"""The version; the C header's ``MICROVMI_VERSION_*`` are the same, which a test compares."""

__version__ = "0.5.0"
