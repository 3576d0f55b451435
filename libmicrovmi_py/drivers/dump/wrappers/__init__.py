# SPDX-License-Identifier: Apache-2.0
"""What dumps are wrapped in (compressed files, containers of evidence), a file each: nothing else names them.

A module says which files it wants to be asked about (``probing.py``: ``BEGINS``, ``ENDS``), and has

- ``probe(image) -> Probe | None``: what the file is, how sure that is, and the way out if it cannot be unpacked;
- ``unwrap(image) -> Image``: what is inside: a ``View`` of parts of the file, a ``Packed`` image of which pieces are
  unpacked when they are read, or what ``unpacked.whole`` made of it.
"""
