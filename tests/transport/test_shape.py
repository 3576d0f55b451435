# SPDX-License-Identifier: Apache-2.0
"""Texts and answers of others: what they have to be to be taken for a number."""

from __future__ import annotations

import pytest

from libmicrovmi_py.transport.shape import decimal


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("4242", 4242), ("", None), ("-1", None), ("²", None), ("٣", None), ("9" * 5000, None), ("1 ", None)],
)
def test_a_number_is_a_few_ascii_digits(text: str, expected: int | None) -> None:
    assert decimal(text, 1 << 22) == expected
