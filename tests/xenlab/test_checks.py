# SPDX-License-Identifier: Apache-2.0
"""Every check that runs in dom0 is a test here; the first one waits for Xen's start as well."""

from __future__ import annotations

import pytest

from .conftest import results
from .lab import Lab
from .overlay import checks


@pytest.mark.parametrize("check", checks())
def test_in_dom0(lab: Lab, check: str) -> None:
    result = results[check] = lab.result(check)
    for line in result.text:
        print(line)
    if result.reason:
        pytest.fail(f"{check}: {result.reason}", pytrace=False)
