# SPDX-License-Identifier: Apache-2.0
"""drgn on a machine, with what a Linux kernel knows of its own types where there is no debug information."""
