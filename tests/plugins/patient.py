# SPDX-License-Identifier: Apache-2.0
"""A made-up machine in whose process Python hands its lock over by itself only after a minute."""

from __future__ import annotations

import sys

from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.params import Parameters


class PatientDriver(FakeDriver):
    """Who waits for Python beside a thread that works has it when that thread gives it, and not before."""

    name = "patient"
    automatic = False

    @classmethod
    def open(cls, params: Parameters) -> FakeDriver:
        sys.setswitchinterval(60)
        return super().open(params)


DRIVER = PatientDriver
