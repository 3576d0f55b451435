# SPDX-License-Identifier: Apache-2.0
"""Upstream's Python names over this library, for programs that are not to be changed.

``upstream/`` is a folder for a module path: in it lies a package ``microvmi`` whose modules only name what stands here.
Nothing puts it there by itself (``microvmi upstream-path`` prints it), so a real ``microvmi`` is never hidden.
"""
