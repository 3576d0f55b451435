# SPDX-License-Identifier: Apache-2.0
"""The whole memory of a machine at a glance: what each frame seems to hold, as PNG, SVG and a page to look into."""
