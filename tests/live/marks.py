# SPDX-License-Identifier: Apache-2.0
"""Which guests a test runs on: decorators for tests with the fixture ``guest``.

All of them take configurations from the front of one list, as pytest puts tests together by the number of a parameter:
so every guest is booted once.
"""

from __future__ import annotations

import pytest

from .guest import CONFIGS


def _on_first(count: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("booted", CONFIGS[:count], indirect=True, ids=str)


on_every_guest = _on_first(len(CONFIGS))
on_every_kind_of_ram = _on_first(4)
on_shared_ram = _on_first(3)
on_a_ram_file = _on_first(1)
on_one_guest = _on_first(1)
