# SPDX-License-Identifier: Apache-2.0
"""The part of the whole object that is about images of memory."""

from __future__ import annotations

from libmicrovmi_py.declare import TYPE_CHECKING
from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.errors import NotSupportedError
from libmicrovmi_py.transport.fds import StandardStreamsHeld

if TYPE_CHECKING:
    from libmicrovmi_py.drivers.imageinfo import ImageInfo


class Images:
    """What ``Microvmi`` has for them."""

    driver: Driver

    if TYPE_CHECKING:

        def _check_open(self) -> None: ...

    @property
    def image_info(self) -> ImageInfo:
        """What is known about the image that was opened. Raises ``NotSupportedError`` for a machine that is none."""
        self._check_open()
        with StandardStreamsHeld():
            from libmicrovmi_py.drivers.imageinfo import SupportsImageInfo  # of whom asks nothing, nobody needs it

            if isinstance(self.driver, SupportsImageInfo):
                return self.driver.image_info()
        raise NotSupportedError(f"this is no image of memory: it was opened by the {self.driver.name} driver")
