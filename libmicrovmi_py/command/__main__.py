# SPDX-License-Identifier: Apache-2.0
"""``python -m libmicrovmi_py.command``: the command ``microvmi``."""

from __future__ import annotations

import sys

from libmicrovmi_py.command.main import main

if __name__ == "__main__":
    sys.exit(main())
