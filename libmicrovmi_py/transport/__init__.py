# SPDX-License-Identifier: Apache-2.0
"""Ways to reach a hypervisor: bytes in, bytes out, no notion of a virtual machine."""
