# SPDX-License-Identifier: Apache-2.0
"""What ``microvmi`` does: a file a subcommand. Nothing else names them."""
