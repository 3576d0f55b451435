# SPDX-License-Identifier: Apache-2.0
"""Bridges to tools that people already use, a folder each. What they need is imported when they are asked for."""
