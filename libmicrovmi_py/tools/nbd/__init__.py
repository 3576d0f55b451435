# SPDX-License-Identifier: Apache-2.0
"""The memory of a machine over NBD: nbdkit, a program of the user's, with a plugin of ours."""
