# SPDX-License-Identifier: Apache-2.0
"""gdb; in its place stands a program that every system has, and tests/live has the real one."""

from command.stand import Stand

STAND = Stand(
    words=("{vm}", "--no-symbols", "--gdb", "echo", "--", "-batch", "hello"),
    shows="^-q -ex target remote /.*/gdb -batch hello\n$",
    wrong=("{vm}", "--no-symbols", "--listen", "0.0.0.0:1"),
    says="is no address of loopback",
    lasting=("{watched}", "--no-symbols", "--listen", "{folder}/socket"),
    begun="^target remote /",
    no_json="it prints what gdb prints",
)
