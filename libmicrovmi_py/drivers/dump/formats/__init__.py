# SPDX-License-Identifier: Apache-2.0
"""Formats of dumps, a file each: nothing else names them.

A module says which files it wants to be asked about (``probing.py``: ``BEGINS``, ``ENDS``, ``HOLDS``), and has

- ``probe(image) -> Probe | None``: what the file is, how sure that is, and the way out if it cannot be read;
- ``read(image) -> Contents``: the memory in it, vCPUs, and what else it tells.

``read`` raises ``image.damaged(...)`` for a file that contradicts itself, ``image.refused(...)`` for one that this
version cannot read, and calls ``image.amiss(...)`` or ``image.clipped(...)`` for what is missing while the rest can be
read: an error, but with ``partial=on``. Nothing that a file says is believed before it was compared with the image's
size.
"""
