# SPDX-License-Identifier: Apache-2.0
"""What a Linux guest tells of itself in its memory: symbols, types, processes, its log. It knows no tool."""
