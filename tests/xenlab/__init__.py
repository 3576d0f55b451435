# SPDX-License-Identifier: Apache-2.0
"""A real Xen under QEMU: the library's C programs and Python code run in dom0 and look into real domains."""
