# SPDX-License-Identifier: Apache-2.0
"""Events of an unpatched QEMU, by its stub for debuggers, which is open as long as something is intercepted."""
