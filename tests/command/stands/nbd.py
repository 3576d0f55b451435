# SPDX-License-Identifier: Apache-2.0
"""nbd."""

from command.stand import Stand

STAND = Stand(
    words=("{vm}", "--run", "true"),
    shows=r"nbd\+unix:///\?socket=/.*/socket\n",
    document=lambda told: (told["uri"][:9], told["memory"], told["view"]) == ("nbd+unix:", 0x40000, "snapshot"),
    wrong=("{vm}", "--socket", "/nosuch/socket"),
    says="nbdkit does not serve: .*/nosuch/socket",
    lasting=("{watched}", "--pause"),
    begun=r"nbd\+unix",
    needs=("nbdkit", "nbdkit nbdkit-plugin-python"),
)
