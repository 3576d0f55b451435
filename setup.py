# SPDX-License-Identifier: Apache-2.0
"""The one thing that pyproject.toml cannot tell: that a wheel of this holds what is compiled."""

from setuptools import Distribution, setup


class Compiled(Distribution):
    """The Makefile compiles, setuptools does not; a wheel is for one Python and one kind of machine all the same."""

    def has_ext_modules(self) -> bool:
        return True


setup(distclass=Compiled)
