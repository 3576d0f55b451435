# SPDX-License-Identifier: Apache-2.0
"""A script for drgn: all tasks, one a line; with the argument `stay` it stays until it is interrupted."""

import sys
import time

from drgn import get_default_prog
from drgn.helpers.linux import for_each_task

for task in for_each_task(get_default_prog()):
    print(task.pid.value_(), task.comm.string_().decode(), flush=True)
while "stay" in sys.argv:
    time.sleep(1)
