# SPDX-License-Identifier: Apache-2.0
"""How kinds of events come about on QEMU: one file each, found by ``finding.py``."""
