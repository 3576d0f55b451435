# SPDX-License-Identifier: Apache-2.0
"""What volatility imports by itself, with ``vol -p`` and the path of this folder."""
