# SPDX-License-Identifier: Apache-2.0
"""Tests against live QEMU guests; how to run them: docs/testing.md."""
