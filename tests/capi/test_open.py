# SPDX-License-Identifier: Apache-2.0
"""Opening through C: parameters, texts, the environment, error texts, what a context tells about itself."""

from __future__ import annotations

import socket
import subprocess
import sys
from ctypes import POINTER, byref, c_char, c_uint, c_uint16, c_uint64, c_void_p, string_at
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

INVALID_ARGUMENT, NO_DRIVER, UNAVAILABLE = 1, 3, 4
ROOT = Path(__file__).resolve().parents[2]

MACHINES = """
from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.errors import DriverUnavailableError, InvalidArgumentError, about_a_machine
from libmicrovmi_py.params import Parameters

class Machines(Driver):
    name = "machines"

    @classmethod
    def open(cls, params):
        if params.vm_name not in ("mine", "broken"):
            raise InvalidArgumentError("no such machine")
        with about_a_machine():
            if params.vm_name == "broken":
                raise DriverUnavailableError("it does not answer")
        opened = FakeDriver.open(Parameters({}))
        opened.name = cls.name
        return opened

DRIVER = Machines
"""


def failed(lib: Any, call: Any, *arguments: Any) -> tuple[int, str]:
    """Call with an error pointer; the code and the text, which the pointer and the thread both tell."""
    error = POINTER(c_char)()
    assert call(*arguments, byref(error)) is None
    code, text = lib.microvmi_last_error_code(), lib.microvmi_last_error()
    assert string_at(error) == text
    lib.rs_cstring_free(error)
    return code, text.decode()


def test_init_with_nothing_tells_every_drivers_reason(lib: Any) -> None:
    code, text = failed(lib, lib.microvmi_init, None, None)
    assert code == NO_DRIVER
    assert text.startswith("no suitable microvmi driver available\n")
    assert "\nqemu: QEMU driver requires a VM name parameter" in text
    assert "\ndump: Dump driver requires a path" in text


def test_a_success_clears_the_error_pointer_and_the_error(lib: Any, tmp_path: Path) -> None:
    failed(lib, lib.microvmi_open, b"vmi://nope/")
    (tmp_path / "image").write_bytes(b"x" * 4096)
    error = POINTER(c_char)(c_char(b"x"))
    context = lib.microvmi_open(str(tmp_path / "image").encode(), byref(error))
    assert context
    assert not error
    assert (lib.microvmi_last_error(), lib.microvmi_last_error_code()) == (b"", 0)
    lib.microvmi_destroy(context)


def test_init_opens_by_name_and_by_type(lib: Any, stubs: ModuleType, tmp_path: Path) -> None:
    path = str(tmp_path / "image")
    Path(path).write_bytes(b"x" * 4096)
    params = stubs.DriverInitParamsFFI()
    params.common.vm_name = path.encode()
    for kind in (None, byref(c_uint(5))):
        context = lib.microvmi_init(kind, byref(params), None)
        assert context, lib.microvmi_last_error()
        assert lib.microvmi_get_driver_type(context) == 5
        assert lib.microvmi_get_driver_name(context) == b"dump"
        maximum = c_uint64()
        assert lib.microvmi_get_max_physical_addr(context, byref(maximum))
        assert maximum.value == 4096
        lib.microvmi_destroy(context)


@pytest.mark.parametrize(("number", "complaint"), [(99, "no driver type 99"), (-1, "no driver type -1"), (6, "PLUGIN")])
def test_a_driver_type_that_is_none_is_told(lib: Any, number: int, complaint: str) -> None:
    code, text = failed(lib, lib.microvmi_init, byref(c_uint(number & 0xFFFFFFFF)), None)
    assert code == INVALID_ARGUMENT
    assert complaint in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("uri", "code", "complaint"),
    [
        (b"", INVALID_ARGUMENT, "empty URI"),
        (None, INVALID_ARGUMENT, "uri is NULL"),
        (b"\xff\xfe", INVALID_ARGUMENT, "uri is not UTF-8"),
        (b"http://x/", INVALID_ARGUMENT, "not of the form vmi://"),
        (b"vmi://nope/", UNAVAILABLE, "there is no driver nope; there are: "),
        (b"vmi://fake/?size=1", INVALID_ARGUMENT, "size=0x1"),
        (b"vmi:///?colour=red", INVALID_ARGUMENT, "no driver knows the parameter colour"),
    ],
)
def test_bad_texts_are_one_line_errors(lib: Any, uri: bytes | None, code: int, complaint: str) -> None:
    told, text = failed(lib, lib.microvmi_open, uri)
    assert told == code
    assert complaint in text
    assert "\n" not in text


def test_a_text_is_a_path_with_a_slash_and_else_a_name_or_a_file(
    lib: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image").write_bytes(b"x" * 4096)
    for text in (b"./image", str(tmp_path / "image").encode(), b"image"):
        context = lib.microvmi_open(text, None)
        assert lib.microvmi_get_driver_name(context) == b"dump", text
        lib.microvmi_destroy(context)
    code, told = failed(lib, lib.microvmi_open, b"no-such-thing")
    assert code == NO_DRIVER
    assert "\nqemu: no QEMU machine has the name, process id or QMP socket 'no-such-thing'" in told
    assert (
        "there is no file no-such-thing here; an image is a path with a slash (./no-such-thing), a machine vmi:///?"
        in told
    )
    code, told = failed(lib, lib.microvmi_open, b"./no-such-thing")
    assert "qemu" not in told
    (tmp_path / "empty").write_bytes(b"")
    code, told = failed(lib, lib.microvmi_open, b"empty")
    assert code == NO_DRIVER
    assert "\nas a file: " in told


def test_a_machine_goes_before_a_file_of_its_name(tmp_path: Path, library_path: Path) -> None:
    """The machine is a plugin's, which is tried last of all drivers; where it has trouble, no file takes its place."""
    (tmp_path / "machines.py").write_text(MACHINES)
    for name in ("mine", "broken"):
        (tmp_path / name).write_bytes(b"x" * 4096)
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from libmicrovmi_py import Microvmi\n"
        "print(Microvmi.open('mine').driver.name)\n"
        "try: Microvmi.open('broken')\n"
        "except Exception as err: print(str(err).splitlines()[1])\n"
    )
    environment = {"MICROVMI_PLUGIN_PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["machines", "machines: it does not answer"], done.stderr


def test_a_text_that_is_nearly_right_is_answered_with_the_form_that_is(lib: Any) -> None:
    assert "the machine plain is vmi:///?vm_name=plain" in failed(lib, lib.microvmi_open, b"vmi://plain")[1]


@pytest.mark.parametrize("driver", [b"", b"qemu"])
def test_a_name_may_be_the_path_of_a_uri(lib: Any, driver: bytes) -> None:
    short = failed(lib, lib.microvmi_open, b"vmi://%s/no-such-machine" % driver)
    assert short == failed(lib, lib.microvmi_open, b"vmi://%s/?vm_name=no-such-machine" % driver)
    assert "no-such-machine" in short[1]


def test_a_file_uri_names_a_memory_image(lib: Any, tmp_path: Path) -> None:
    image = tmp_path / "an image"
    image.write_bytes(b"x" * 4096)
    context = lib.microvmi_open(b"file://" + str(image).replace(" ", "%20").encode(), None)
    assert lib.microvmi_get_driver_name(context) == b"dump"
    lib.microvmi_destroy(context)


def test_the_path_of_a_socket_is_answered_with_the_form_for_machines(lib: Any, tmp_path: Path) -> None:
    path = tmp_path / "q"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        code, told = failed(lib, lib.microvmi_open, str(path).encode())
    assert (code, f"{path} is a socket: " in told, f"vmi:///?vm_name={path}" in told) == (INVALID_ARGUMENT, True, True)


def test_one_context_more_than_there_can_be_is_refused(lib: Any) -> None:
    contexts = [lib.microvmi_open(b"vmi://fake/?size=0x1000", None) for _ in range(4096)]
    taken = [context for context in contexts if context]
    code, told = failed(lib, lib.microvmi_open, b"vmi://fake/?size=0x1000")
    for context in taken:
        lib.microvmi_destroy(context)
    assert len(taken) <= 4096
    assert (code, told) == (INVALID_ARGUMENT, "4096 contexts are open already: destroy some")


def test_the_environment_stands_in_for_missing_parameters(library_path: Path, stubs: ModuleType) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(stubs.__file__ or '').parent)!r}); import {stubs.__name__} as s\n"
        f"lib = s.load({str(library_path)!r}); p = s.DriverInitParamsFFI()\n"
        "for params in (None, p):\n"
        "    context = lib.microvmi_init(None, params, None)\n"
        "    print(lib.microvmi_get_driver_name(context), lib.microvmi_last_error_code())"
    )
    for uri, expected in (("vmi://fake/", "b'fake' 0"), ("vmi://nope/", "None 2"), ("", "None 2")):
        done = subprocess.run(
            [sys.executable, "-c", code], env={"MICROVMI_URI": uri}, capture_output=True, text=True, check=False
        )
        assert done.stdout.splitlines() == [expected, "None 2"], done.stderr


def test_an_empty_variable_is_none(library_path: Path, stubs: ModuleType) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(stubs.__file__ or '').parent)!r}); import {stubs.__name__} as s\n"
        f"lib = s.load({str(library_path)!r}); assert not lib.microvmi_init(None, None, None)\n"
        "print(lib.microvmi_last_error_code())"
    )
    told = [
        subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False).stdout
        for env in ({}, {"MICROVMI_URI": ""})
    ]
    assert told[0] == told[1] == f"{NO_DRIVER}\n"


def test_a_fake_machine_tells_its_registers(lib: Any, stubs: ModuleType) -> None:
    context = lib.microvmi_open(b"vmi://fake/?vcpus=2", None)
    registers, count = stubs.Registers(), c_uint16()
    assert lib.microvmi_get_vcpu_count(context, byref(count))
    assert count.value == 2
    assert lib.microvmi_read_registers(context, 1, byref(registers))
    assert (registers.tag, registers.x86.rip, registers.x86.cs.base) == (0, 0xFFF0, 0xFFFF0000)
    assert (registers.x86.apic_base, registers.x86.cs.selector, registers.x86.gdt.limit) == (0xFEE00900, 0xF000, 0xFFFF)
    before = bytes(registers)
    assert not lib.microvmi_read_registers(context, 2, byref(registers))
    assert lib.microvmi_last_error_code() == INVALID_ARGUMENT
    assert bytes(registers) == before
    lib.microvmi_destroy(context)


def test_the_driver_name_outlives_the_context(lib: Any) -> None:
    raw = lib.cdll["microvmi_get_driver_name"]  # a function object of its own, with its own result type
    raw.restype = POINTER(c_char)
    context = lib.microvmi_open(b"vmi://fake/", None)
    name = raw(c_void_p(context))
    lib.microvmi_destroy(context)
    assert string_at(name) == b"fake"
