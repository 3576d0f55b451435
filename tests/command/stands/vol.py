# SPDX-License-Identifier: Apache-2.0
"""vol."""

from command.stand import Stand

STAND = Stand(
    words=("{vm}", "-q", "-r", "json", "linux.pslist.PsList"),
    shows=r'"COMM": "init"',
    tells=r"(Volatility 3 Framework [0-9.]+)?",
    wrong=("/nosuch", "linux.pslist.PsList"),
    says="/nosuch: .*No such file",
    lasting=("{vm}", "-q", "linux.pslist.PsList"),
    begun="Volatility 3 Framework",
    no_json="volatility has renderers of its own: -r json",
    guest="linux",
    extra="volatility3",
)
