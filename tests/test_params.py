# SPDX-License-Identifier: Apache-2.0
"""The text form of parameters."""

from __future__ import annotations

import pytest

from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.params import Parameters


@pytest.mark.parametrize(
    ("uri", "driver", "values"),
    [
        ("vmi:///?vm_name=debian", None, {"vm_name": "debian"}),
        ("vmi://qemu/?vm_name=a%20b%26c", "qemu", {"vm_name": "a b&c"}),
        ("vmi://QEMU?vm_name=x&timeout=2", "qemu", {"vm_name": "x", "timeout": "2"}),
        ("vmi://fake", "fake", {}),
        ("vmi:///?vm_name=x&kvm_unix_socket=", None, {"vm_name": "x"}),
        ("/a path/with spaces?&=", "dump", {"path": "/a path/with spaces?&="}),
        ("./image.raw", "dump", {"path": "./image.raw"}),
        ("image.raw", None, {"vm_name": "image.raw"}),
        ("vmi:///?vm_name=%C3%A9", None, {"vm_name": "é"}),
        ("vmi:///windows%2010", None, {"vm_name": "windows 10"}),
        ("vmi://qemu/debian?timeout=2", "qemu", {"vm_name": "debian", "timeout": "2"}),
        ("file:///a/b%20c%3F.raw", "dump", {"path": "/a/b c?.raw"}),
        ("file://localhost/image.raw", "dump", {"path": "/image.raw"}),
        (
            "vmi:///?memflow_connector_name=x&memflow_connector_args=a=1&memflow_connector_args=b=2,c=3",
            None,
            {"memflow_connector_name": "x", "memflow_connector_args": "a=1,b=2,c=3"},
        ),
    ],
)
def test_texts_that_name_a_machine(uri: str, driver: str | None, values: dict[str, str]) -> None:
    params = Parameters.from_uri(uri)
    assert params.driver == driver
    assert dict(params) == values


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "http://x/",
        "vmi://d/path/b?a=1",
        "vmi://d/name?vm_name=name",
        "vmi:///%ff",
        "file://host/a",
        "file:///a?b",
        "file:///a?",
        "file:///a#b",
        "file://",
        "vmi://d/?a",
        "vmi://d/?a=1&a=2",
        "vmi://d/?a=%ff",
        "vmi://d/?a=1#f",
        "vmi://[/",
    ],
)
def test_texts_that_name_none_are_one_line_errors(uri: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Parameters.from_uri(uri)
    assert "\n" not in str(caught.value)
    assert uri in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "vmi://fake/\n",
        "vmi://fa\nke/",
        "vmi://fake/?vm_name=a%0Ab",
        "vmi://fake/?vm_name=a%00b",
        "vmi://fake/?a%0Ab=c",
        "vmi://fake/?vm_name=%1B[31mred",
        "vmi://fake/?vm_name=%C2%85",
        "an\nimage",
        "http://" + "x" * 70000,
        "vmi://fake/?" + "x" * 70000,
        "vmi://fake/?vm_name=" + "x" * 70000,
        "vmi://fake/?" + "x" * 70000 + "=1",
        "vmi://" + "x" * 70000 + "/?vm_name=x",
        "vmi://[" + "x" * 70000,
        "x" * 70000,
    ],
    ids=range(15),
)
def test_texts_that_cannot_be_told_in_a_line_are_refused_in_one(uri: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Parameters.from_uri(uri)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_a_value_has_as_many_characters_as_a_path_may_have() -> None:
    assert len(Parameters({"path": "x" * 4096})["path"]) == 4096
    with pytest.raises(InvalidArgumentError, match="path is 4097 characters long: 4096 are the most"):
        Parameters({"path": "x" * 4097})


def test_a_name_may_have_a_tab_and_no_other_control_character() -> None:
    assert Parameters({"vm_name": "a\tb"}).vm_name == "a\tb"
    assert Parameters.from_uri("a\tb").vm_name == "a\tb"
    with pytest.raises(InvalidArgumentError, match="control characters"):
        Parameters({"vm_name": "a\vb"})


def test_numbers_and_seconds_are_checked() -> None:
    params = Parameters({"n": "0x10", "bad": "ten", "t": "0.5", "none": "0", "nan": "nan", "inf": "inf"})
    assert params.integer("n", 1) == 16
    assert params.integer("absent", 1) == 1
    assert params.seconds("t", 1) == 0.5
    assert params.seconds("absent", 7) == 7
    for key, read in (
        ("bad", params.integer),
        ("none", params.seconds),
        ("nan", params.seconds),
        ("inf", params.seconds),
    ):
        with pytest.raises(InvalidArgumentError, match=f"{key}="):
            read(key, 1)
