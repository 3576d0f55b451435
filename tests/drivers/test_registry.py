# SPDX-License-Identifier: Apache-2.0
"""How drivers are found and tried, in the tree and from elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from libmicrovmi_py.drivers import registry
from libmicrovmi_py.errors import DriverUnavailableError, InvalidArgumentError, NoDriverError
from libmicrovmi_py.machine.microvmi import Microvmi
from libmicrovmi_py.model import DriverType
from libmicrovmi_py.params import Parameters

ROOT = Path(__file__).resolve().parents[2]

PLUGIN = """
from libmicrovmi_py.drivers.fake import FakeDriver

class Mine(FakeDriver):
    name = "mine"
    automatic = True

    @classmethod
    def open(cls, params):
        return cls({0: bytearray(b"mine" * 1024)})

DRIVER = Mine
"""


def test_drivers_are_tried_by_type_and_names_are_unique() -> None:
    drivers = list(registry.all_drivers())
    types = [driver.type for driver in drivers]
    names = [driver.name for driver in drivers]
    assert types == sorted(types)
    assert len(set(names)) == len(names)
    assert {"qemu", "dump", "fake"} <= set(names)


def test_the_fake_machine_is_never_taken_by_accident() -> None:
    with pytest.raises(NoDriverError) as caught:
        registry.open_driver(Parameters({"vm_name": "no-such-machine"}))
    assert "fake" not in str(caught.value)


def test_when_all_fail_every_reason_is_told() -> None:
    with pytest.raises(NoDriverError) as caught:
        registry.open_driver(Parameters({"vm_name": "no-such-machine"}))
    first, *reasons = str(caught.value).split("\n")
    assert first == "no suitable microvmi driver available"
    assert [reason.partition(": ")[0] for reason in reasons] == [
        driver.name for driver in registry.all_drivers() if driver.automatic
    ]


def test_a_parameter_that_no_driver_knows_is_an_error() -> None:
    with pytest.raises(InvalidArgumentError, match="no driver knows the parameter colour"):
        registry.open_driver(Parameters({"vm_name": "x", "colour": "red"}))


def test_an_unknown_driver_lists_the_known() -> None:
    with pytest.raises(DriverUnavailableError, match=r"no driver nope; there are: .*qemu"):
        Microvmi(driver="nope")


def test_a_named_driver_is_found_without_loading_the_others() -> None:
    code = (
        "import sys\nfrom libmicrovmi_py import Microvmi\nMicrovmi.open('vmi://fake/')\n"
        "print(sorted(name for name in sys.modules if name.count('.') == 2 and '.drivers.' in name))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    common = "base", "control", "fake", "guestmemory", "registry"
    assert done.stdout == str([f"libmicrovmi_py.drivers.{name}" for name in common]) + "\n"


def test_a_type_without_a_driver_is_told() -> None:
    with pytest.raises(InvalidArgumentError, match="PLUGIN"):
        registry.open_driver(Parameters(), DriverType.PLUGIN)


def test_a_type_names_its_driver(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(bytes(4096))
    driver = registry.open_driver(Parameters({"path": str(tmp_path / "image")}), DriverType.DUMP)
    assert driver.name == "dump"
    driver.close()


def run_with_plugins(directory: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MICROVMI_PLUGIN_PATH": str(directory), "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("layout", ["file", "folder"])
def test_a_driver_in_the_plugin_path_is_found(tmp_path: Path, layout: str) -> None:
    if layout == "file":
        (tmp_path / "mine.py").write_text(PLUGIN)
    else:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "inner.py").write_text(PLUGIN)
        (tmp_path / "mine" / "__init__.py").write_text("from .inner import Mine as DRIVER\n")
    code = "from libmicrovmi_py import Microvmi; print(Microvmi.open('vmi://mine/').read_physical(4, 8))"
    assert run_with_plugins(tmp_path, code).stdout == "b'minemine'\n"
    code = "from libmicrovmi_py import Microvmi; print(Microvmi('any name').driver.name)"
    assert run_with_plugins(tmp_path, code).stdout == "mine\n"


def test_a_plugin_that_does_not_load_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_module")
    (tmp_path / "awry.py").write_text("DRIVER = 5")
    (tmp_path / "mine.py").write_text(PLUGIN)
    code = (
        "import logging; logging.basicConfig(); from libmicrovmi_py import Microvmi; "
        "print(Microvmi.open('vmi://mine/').driver_type.name)"
    )
    done = run_with_plugins(tmp_path, code)
    assert done.stdout == "PLUGIN\n"
    assert "plugin broken is left out: No module named 'no_such_module'" in done.stderr
    assert "plugin awry is left out" in done.stderr


def test_an_entry_point_of_an_installed_package_is_found(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[libmicrovmi.drivers]\nmine = mine:DRIVER\n")
    code = f"import sys; sys.path.append({str(tmp_path)!r}); " + (
        "from libmicrovmi_py import Microvmi; print(Microvmi.open('vmi://mine/').driver.name)"
    )
    assert run_with_plugins(tmp_path / "none", code).stdout == "mine\n"
