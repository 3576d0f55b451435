# SPDX-License-Identifier: Apache-2.0
"""A domain that ends while its frames are mapped: the next call says so, and nothing of it is left."""

from __future__ import annotations

import subprocess
import time

import layout

from libmicrovmi_py import Microvmi
from libmicrovmi_py.errors import VmGoneError


def domains() -> int:
    """How many there are beside dom0, dying ones included."""
    return len(subprocess.run(["xl", "list"], capture_output=True, text=True, timeout=30).stdout.splitlines()) - 2


machine = Microvmi("tiny", driver="xen", cache=0)
machine.pause()
text = machine.read_physical(layout.PAGE_ADDRESS, 24)
subprocess.run(["xl", "destroy", "tiny"], check=True, timeout=30)
assert domains() == 1, "the mapping holds nothing"
time.sleep(0.2)
try:
    machine.read_physical(layout.PAGE_ADDRESS, 24)
except VmGoneError as err:
    print(err)
else:
    raise AssertionError("memory of a domain that ended was read")
end = time.monotonic() + 10
while domains() and time.monotonic() < end:
    time.sleep(0.1)
assert domains() == 0, "something of the domain is left"
try:
    machine.close()
except VmGoneError as err:
    print(err)
