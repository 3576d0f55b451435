# SPDX-License-Identifier: Apache-2.0
"""A machine as a folder of files: a FUSE file system that speaks the kernel's protocol, without a library for it."""
