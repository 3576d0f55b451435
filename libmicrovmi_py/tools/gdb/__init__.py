# SPDX-License-Identifier: Apache-2.0
"""Debuggers: a server of gdb's remote protocol, and symbols that it can load of a Linux guest.

``packets`` frames the protocol, ``session`` answers it, ``serve`` waits for clients; ``registers``, ``memory`` and
``run`` are what it is about. ``launch`` starts the user's gdb. ``symbols`` writes what gdb reads as a symbol file.
"""
