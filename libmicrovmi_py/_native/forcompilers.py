# SPDX-License-Identifier: Apache-2.0
"""The texts by which compilers find an installed library: one for pkg-config, two for CMake."""

from __future__ import annotations

import os

from libmicrovmi_py.version import __version__

UNSPEAKABLE = '"$();\n'
"""What a folder's name must not have: pkg-config or CMake have no way to tell it."""

_PKG_CONFIG = """\
prefix={prefix}
libdir={libdir}
includedir={includedir}

Name: libmicrovmi
Description: Look into running virtual machines, and at dumps of them, from outside
Version: {version}
Libs: -L"${{libdir}}" -lmicrovmi
Cflags: -I"${{includedir}}"
"""

_CONFIG = """\
# SPDX-License-Identifier: Apache-2.0
# find_package(libmicrovmi) defines libmicrovmi::libmicrovmi. All paths are told from this file's own, so the whole
# may be moved; that one is resolved first, for systems where /lib is a link to /usr/lib.
get_filename_component(_libmicrovmi_here "${{CMAKE_CURRENT_LIST_DIR}}" REALPATH)
get_filename_component(_libmicrovmi_library "${{_libmicrovmi_here}}/{library}" ABSOLUTE)
get_filename_component(_libmicrovmi_include "${{_libmicrovmi_here}}/{include}" ABSOLUTE)
foreach(_libmicrovmi_file "${{_libmicrovmi_library}}" "${{_libmicrovmi_include}}/libmicrovmi.h")
    if(NOT EXISTS "${{_libmicrovmi_file}}")
        set(libmicrovmi_FOUND FALSE)
        set(libmicrovmi_NOT_FOUND_MESSAGE "${{_libmicrovmi_file}} is not there: install libmicrovmi anew")
    endif()
endforeach()
foreach(_libmicrovmi_component ${{libmicrovmi_FIND_COMPONENTS}})
    if(libmicrovmi_FIND_REQUIRED_${{_libmicrovmi_component}})
        set(libmicrovmi_FOUND FALSE)
        set(libmicrovmi_NOT_FOUND_MESSAGE "libmicrovmi has no components, so no ${{_libmicrovmi_component}}")
    endif()
endforeach()
if(NOT DEFINED libmicrovmi_FOUND OR libmicrovmi_FOUND)
    if(NOT TARGET libmicrovmi::libmicrovmi)
        add_library(libmicrovmi::libmicrovmi SHARED IMPORTED)
        set_target_properties(libmicrovmi::libmicrovmi PROPERTIES
            IMPORTED_LOCATION "${{_libmicrovmi_library}}"
            IMPORTED_SONAME "libmicrovmi.so"
            INTERFACE_INCLUDE_DIRECTORIES "${{_libmicrovmi_include}}")
    endif()
endif()
unset(_libmicrovmi_here)
unset(_libmicrovmi_library)
unset(_libmicrovmi_include)
"""

_VERSION = """\
# SPDX-License-Identifier: Apache-2.0
# Whoever asks for a version gets this one or a later one: what was released stays as it is (docs/abi.md).
set(PACKAGE_VERSION "{version}")
if(PACKAGE_FIND_VERSION_RANGE)
    set(_libmicrovmi_wanted "${{PACKAGE_FIND_VERSION_MIN}}")
else()
    set(_libmicrovmi_wanted "${{PACKAGE_FIND_VERSION}}")
endif()
if(PACKAGE_VERSION VERSION_LESS _libmicrovmi_wanted)
    set(PACKAGE_VERSION_COMPATIBLE FALSE)
else()
    set(PACKAGE_VERSION_COMPATIBLE TRUE)
    if(PACKAGE_VERSION VERSION_EQUAL _libmicrovmi_wanted)
        set(PACKAGE_VERSION_EXACT TRUE)
    endif()
endif()
if(PACKAGE_FIND_VERSION_RANGE AND PACKAGE_VERSION VERSION_GREATER PACKAGE_FIND_VERSION_MAX)
    set(PACKAGE_VERSION_COMPATIBLE FALSE)
endif()
if(PACKAGE_FIND_VERSION_RANGE_MAX STREQUAL "EXCLUDE" AND PACKAGE_VERSION VERSION_EQUAL PACKAGE_FIND_VERSION_MAX)
    set(PACKAGE_VERSION_COMPATIBLE FALSE)
endif()
if(CMAKE_SIZEOF_VOID_P AND NOT CMAKE_SIZEOF_VOID_P EQUAL 8)
    set(PACKAGE_VERSION_UNSUITABLE TRUE)
endif()
unset(_libmicrovmi_wanted)
"""


def texts(prefix: str, libdir: str, includedir: str) -> dict[str, str]:
    """The content of each file by its path."""
    cmake = f"{libdir}/cmake/libmicrovmi"
    below = {
        "library": os.path.relpath(f"{libdir}/libmicrovmi.so", cmake),
        "include": os.path.relpath(includedir, cmake),
    }
    return {
        f"{libdir}/pkgconfig/libmicrovmi.pc": _PKG_CONFIG.format(
            prefix=_plain(prefix),
            libdir=_plain(_within(libdir, prefix)),
            includedir=_plain(_within(includedir, prefix)),
            version=__version__,
        ),
        f"{cmake}/libmicrovmi-config.cmake": _CONFIG.format(**below),
        f"{cmake}/libmicrovmi-config-version.cmake": _VERSION.format(version=__version__),
    }


def _within(folder: str, prefix: str) -> str:
    """A folder as told from the prefix, so that another prefix moves it as well; as it is if it is elsewhere."""
    return "${prefix}" + folder[len(prefix) :] if folder.startswith(prefix.rstrip("/") + "/") else folder


def _plain(folder: str) -> str:
    """A folder as pkg-config reads it, to which ``#`` begins a comment."""
    return folder.replace("#", "\\#")
