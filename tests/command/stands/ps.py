# SPDX-License-Identifier: Apache-2.0
"""ps."""

from command.stand import Stand

STAND = Stand(
    words=("{vm}",),
    shows=r"PID +PPID.*COMMAND\n +1 +0 .*\n",
    document=lambda tasks: [task["parent"] for task in tasks if task["pid"] == 1] == [0],
    wrong=("{dump}",),
    says="Linux",
    lasting=("{vm}", "--pause"),
    begun="the machine is paused while it is read",
    guest="linux",
)
