# SPDX-License-Identifier: Apache-2.0
"""The command `microvmi`, one file a subcommand."""
