# SPDX-License-Identifier: Apache-2.0
"""x86, 32 and 64 bits."""
