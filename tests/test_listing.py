# SPDX-License-Identifier: Apache-2.0
"""Lists of machines: of which drivers, what becomes of a driver that fails or tells nonsense, and URIs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from libmicrovmi_py import DriverUnavailableError, MachineState, Microvmi, list_vms
from libmicrovmi_py.listed import LONGEST_URI, uri_of
from libmicrovmi_py.params import Parameters

ROOT = Path(__file__).resolve().parents[1]

PLUGIN = """
from libmicrovmi_py.drivers.base import Driver
from libmicrovmi_py.drivers.fake import FakeDriver
from libmicrovmi_py.errors import DriverUnavailableError
from libmicrovmi_py.listed import ListedMachine, MachineState
from libmicrovmi_py.model import DriverType

class {name}(FakeDriver):
    name = "{name}"
    automatic = True

    @classmethod
    def machines(cls):
        one = ListedMachine("liar", DriverType.XEN, "one", "vmi://fake/", memory=4096)
        yield one
        {body}

DRIVER = {name}
"""

BODIES = {
    "well": "yield one",
    "unavailable": "raise DriverUnavailableError('its server does not answer: start it')",
    "broken": "raise ZeroDivisionError('oops')",
    "nonsense": "yield 7",
    "no_text": "yield ListedMachine('x', DriverType.QEMU, name=5)",
    "too_much": "yield ListedMachine('x', DriverType.QEMU, memory=1 << 70)",
    "control": "yield ListedMachine('x', DriverType.QEMU, name='a\\nb\\x1b[2J', reason='c\\nd', uri='vmi://x/?\\n')",
    "long": "yield ListedMachine('x', DriverType.QEMU, name='\\u00e9' * 5000, uri='vmi://x/?a=' + 'b' * 600)",
    "endless": "while True: yield one",
}


def listed_by(tmp_path: Path, body: str, code: str = "print(*list_vms(%r), sep=chr(10))") -> tuple[str, str]:
    """What a program prints, and logs, that lists the machines of a plugin."""
    (tmp_path / f"{body}.py").write_text(PLUGIN.format(name=body, body=BODIES[body]))
    program = (
        f"import logging; logging.basicConfig(level='WARNING')\nfrom libmicrovmi_py import list_vms\n{code % body}"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "MICROVMI_PLUGIN_PATH": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, done.stderr


def test_a_plugin_s_machines_are_listed_under_its_own_name(tmp_path: Path) -> None:
    lines = listed_by(tmp_path, "well")[0].splitlines()
    assert len(lines) == 2
    assert all("driver='well', driver_type=<DriverType.PLUGIN: 6>, name='one'" in line for line in lines)
    assert "name='one'" in listed_by(tmp_path, "well", "%r; print(*list_vms())")[0]


def test_a_driver_that_can_ask_nobody_is_a_line_of_its_reason(tmp_path: Path) -> None:
    _, last = listed_by(tmp_path, "unavailable")[0].splitlines()
    assert "name='', uri='', reason='its server does not answer: start it'" in last


@pytest.mark.parametrize("body", ["broken", "nonsense"])
def test_a_plugin_that_fails_is_a_warning_and_no_more(tmp_path: Path, body: str) -> None:
    lines, log = listed_by(tmp_path, body)
    assert len(lines.splitlines()) == 1
    assert f"machines of the driver {body} are left out" in log
    assert listed_by(tmp_path, body, "%r; print(len([m for m in list_vms() if m.name == 'one']))")[0] == "1\n"


@pytest.mark.parametrize("body", ["no_text", "too_much"])
def test_what_cannot_be_told_in_c_is_a_line_of_reason(tmp_path: Path, body: str) -> None:
    _, last = listed_by(tmp_path, body)[0].splitlines()
    assert f"reason='a machine that the driver {body} lists is " in last


def test_texts_of_others_are_one_line_each(tmp_path: Path) -> None:
    _, last = listed_by(tmp_path, "control")[0].splitlines()
    assert r"name='a\\nb\\x1b[2J', uri='', reason='c\\nd'" in last


def test_what_is_too_long_is_cut_at_a_character_and_a_uri_not_at_all(tmp_path: Path) -> None:
    code = "m = list_vms(%r)[1]; print(len(m.name), len(m.name.encode()), repr(m.uri))"
    assert listed_by(tmp_path, "long", code)[0] == "63 126 ''\n"


def test_a_plugin_that_does_not_end_is_cut_off(tmp_path: Path) -> None:
    assert listed_by(tmp_path, "endless", "print(len(list_vms(%r)))")[0] == "65536\n"


def test_the_fake_machine_is_listed_when_it_is_named_only() -> None:
    (fake,) = list_vms("fake")
    assert not [machine for machine in list_vms() if machine.driver == "fake"]
    with Microvmi.open(fake.uri) as machine:
        assert machine.max_addr == fake.memory
        assert machine.vcpu_count() == fake.vcpus
        assert fake.state is MachineState.RUNNING


@pytest.mark.parametrize("driver", ["dump", "memflow"])
def test_drivers_without_machines_to_tell_tell_none(driver: str) -> None:
    assert list_vms(driver) == []


def test_a_driver_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(DriverUnavailableError, match="there is no driver nonesuch"):
        list_vms("nonesuch")


def test_nothing_that_lists_is_loaded_before() -> None:
    code = "import sys, libmicrovmi_py; print([name for name in sys.modules if 'list' in name and 'microvmi' in name])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("value", ["a b", "x&y=z", "#", "\u4e2d\u6587", "100%", "a/b?c", "tab\tin it", "+", ";"])
def test_a_uri_is_parsed_to_what_it_was_made_of(value: str) -> None:
    uri = uri_of("qemu", vm_name=value, started="12")
    assert uri.isascii()
    assert dict(Parameters.from_uri(uri)) == {"vm_name": value, "started": "12"}


@pytest.mark.parametrize("value", ["", "a\nb", "\x7f", "\udcff", "n" * LONGEST_URI, "\u4e2d" * 60, "a\0b"])
def test_what_no_uri_can_tell_has_none(value: str) -> None:
    assert uri_of("qemu", vm_name=value) == ""
