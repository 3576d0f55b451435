# SPDX-License-Identifier: Apache-2.0
"""The whole object on top of a driver, whether it runs, what it is stopped at, and leaving it as it was found."""
