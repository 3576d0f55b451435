# SPDX-License-Identifier: Apache-2.0
"""What QEMU saves of a machine's devices, vCPUs among them, and what others save of KVM's and of Xen's: read by several
drivers."""
