# SPDX-License-Identifier: Apache-2.0
"""Bugs of files that are made while they are read, and of their file system."""

from mutants.mutant import Mutant

LAYOUT, ELF = "libmicrovmi_py/export/layout.py", "libmicrovmi_py/export/elf.py"
NOTES, VIRTUAL = "libmicrovmi_py/export/notes.py", "libmicrovmi_py/export/virtual.py"
MOUNT = "libmicrovmi_py/tools/mount"
LAYOUTS, FORMATS = ("tests/export/test_layout.py",), ("tests/export/test_formats.py",)
SERVER, TREE = ("tests/tools/mount/test_mount_server.py",), ("tests/tools/mount/test_mount_tree.py",)
REAL, PROCESSES = ("tests/tools/mount/test_mount_real.py",), ("tests/tools/mount/test_mount_processes.py",)

MUTANTS = (
    Mutant(LAYOUT, "                _fill_with_zeros(part)", "                pass", "gaps hold old bytes", LAYOUTS),
    Mutant(LAYOUT, "self.segments[index].end <= offset", "self.segments[index].end < offset", "no end", LAYOUTS),
    Mutant(
        ELF, "if count >= _PN_XNUM else 0\n    place", "if count > _PN_XNUM else 0\n    place", "a wrong count", FORMATS
    ),
    Mutant(NOTES, '"cr3" in state', '"rip" in state', "page tables at 0 are told of", FORMATS),
    Mutant(VIRTUAL, "bool(told) and all(", "all(", "addresses that nothing is mapped at", FORMATS),
    Mutant(VIRTUAL, "end - begin != last - 1 - first", "False", "a text in pieces is told as one", FORMATS),
    Mutant(f"{MOUNT}/server.py", "if tree.fixed else 0", "", "names of a live guest are kept", SERVER),
    Mutant(
        f"{MOUNT}/server.py", "            if err.errno != errno.ENODEV:", "            if True:", "a reason", SERVER
    ),
    Mutant(f"{MOUNT}/wire.py", "length == len(message)", "True", "nonsense is answered", SERVER),
    Mutant(
        f"{MOUNT}/tree.py",
        "        if not self.fixed:\n            with",
        "        if False:\n            with",
        "old",
        TREE,
    ),
    Mutant(
        f"{MOUNT}/files.py",
        "if not done and size:",
        "if False:",
        "the end of a file at a hole",
        ("tests/live/test_mount.py",),
    ),
    Mutant(f"{MOUNT}/processes.py", "return escaped(", "return (", "terminals obey a guest", PROCESSES),
    Mutant(f"{MOUNT}/processes.py", " and str(int(name)) == name", "", "two names of a folder", PROCESSES),
    Mutant(
        f"{MOUNT}/mounting.py",
        "            if _is_over(device):",
        "            if False:",
        "another's mount goes",
        REAL,
    ),
    Mutant(f"{MOUNT}/mounting.py", "-u -q -z --", "-u -q --", "a mount stays while a file is open", REAL),
)
