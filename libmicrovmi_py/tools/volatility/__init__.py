# SPDX-License-Identifier: Apache-2.0
"""volatility3 on a machine: its handler of ``vmi://``, layers that read through us, a symbol file out of the guest."""
