# SPDX-License-Identifier: Apache-2.0
"""What a test needs and a machine may lack: a skip on a user's machine, a failure in CI, where nothing is skipped."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """End the test; ``reason`` tells what is missing and what would enable the test."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
