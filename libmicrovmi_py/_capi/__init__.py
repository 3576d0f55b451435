# SPDX-License-Identifier: Apache-2.0
"""The boundary to C: the only place that knows cffi. Imported by the library's start-up, never by Python programs."""
