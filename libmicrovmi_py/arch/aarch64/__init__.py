# SPDX-License-Identifier: Apache-2.0
"""The 64-bit state of Arm's processors."""
