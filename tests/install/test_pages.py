# SPDX-License-Identifier: Apache-2.0
"""The manual pages of the C API have all that the header says, and are what groff takes."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from needs import missing

from libmicrovmi_py._native import headerpages, headertext

HEADER = Path(__file__).resolve().parents[2] / "include" / "libmicrovmi.h"


@pytest.fixture(scope="module")
def header() -> headertext.HeaderText:
    return headertext.read(HEADER)


@pytest.fixture(scope="module")
def pages(header: headertext.HeaderText) -> dict[str, str]:
    return headerpages.pages(header)


def words(text: str) -> Counter[str]:
    """The words of a text, whatever stands around them."""
    return Counter(re.findall(r"\w+", re.sub(r"\\f[BPI]|\\\(dq|^\.\w+", " ", text, flags=re.MULTILINE)))


def for_people(text: str) -> str:
    """The header without blocks of the preprocessor's, which no page is about."""
    blocks = re.split(r"\n\n+", text.split("*/", 1)[1])
    directives = re.compile(r"#(?!define MICROVMI_)|(/\* .* \*/\n)?#(if|define MICROVMI_VERSION)| \*/\n#")
    return "\n\n".join(re.sub(r"\n#(ifn?def|define LIB|include).*", "", b) for b in blocks if not directives.match(b))


def test_every_function_has_a_page_and_stands_in_the_overview(
    header: headertext.HeaderText, pages: dict[str, str]
) -> None:
    names = [item.name for item in header.functions()]
    exported = re.findall(r"^ {8}(\w+);$", (HEADER.parents[1] / "libmicrovmi_py/_native/exports.map").read_text(), re.M)
    assert sorted(names) == sorted(exported)
    assert set(pages) == {"libmicrovmi.3", *(f"{name}.3" for name in names)}
    listed = re.findall(r"^\.BR (\w+) \(3\)$", pages["libmicrovmi.3"], re.MULTILINE)
    assert listed == names


def test_no_word_of_a_comment_is_lost(header: headertext.HeaderText, pages: dict[str, str]) -> None:
    for item in header.functions():  # the word Errors is a title there
        lost = words(item.comment.replace("Errors: ", "") + item.code) - words(pages[f"{item.name}.3"])
        assert lost == Counter(), item.name
    overview = words(pages["libmicrovmi.3"])
    for section in header.sections:
        assert words(section.text) - overview == Counter(), section.title
        for item in section.items:
            if item.kind != "function":
                assert words(item.comment + item.code) - overview == Counter(), item.name
    for _, text in header.introduction:
        assert words(text) - overview == Counter()


def test_nothing_of_the_header_is_left_out(header: headertext.HeaderText) -> None:
    said = words(" ".join(title + " " + text for title, text in header.introduction))
    for section in header.sections:
        said += words(f"{section.title} {section.text} since {section.since}")
        for item in section.items:
            said += words(item.comment + " " + item.code)
    assert words(for_people(HEADER.read_text())) - said == Counter()


def test_groff_has_nothing_to_say(pages: dict[str, str], tmp_path: Path) -> None:
    groff = shutil.which("groff") or missing("no groff; to enable: sudo apt-get install groff-base")
    for name, text in pages.items():
        (tmp_path / name).write_text(text)
    command = [groff, "-man", "-Tutf8", "-ww", "-z", *sorted(str(tmp_path / name) for name in pages)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_parameter_and_a_table_and_an_error_have_their_places(pages: dict[str, str]) -> None:
    page = pages["microvmi_open.3"]
    assert ".TP\n.I uri\nUTF\\-8, one of\n.nf\n  vmi://DRIVER/?key=value&key=value   DRIVER: qemu" in page
    assert "\\fBvoid *microvmi_open(const char *uri, const char **error);\\fP\n" in page
    assert ".SH ERRORS\nThey are told by microvmi_last_error_code(): as microvmi_init()" in page
    assert "microvmi_open \\- open a virtual machine that a text names\n" in page


def test_a_line_is_no_request_and_a_word_is_no_parameter(tmp_path: Path) -> None:
    path = tmp_path / "h.h"
    path.write_text(
        "/* SPDX */\n/*\n * lib - it. all\n */\n\n/* ===\n * ALL (since 1.2.3)\n * === */\n\n"
        '/*\n * .do it: "now" \\ -1\n * so: that is prose\n *\n * a, b:  two\n */\nvoid f(int a, int b);\n'
    )
    page = headerpages.pages(headertext.read(path))["f.3"]
    assert ".SH DESCRIPTION\n\\&.do it: \\(dqnow\\(dq \\e \\-1 so: that is prose\n.PP\n.TP\n.I a, b\ntwo\n" in page
    assert ".SH HISTORY\nSince 1.2.3.\n" in page


def test_a_declaration_that_is_not_known_is_no_silent_loss(tmp_path: Path) -> None:
    path = tmp_path / "h.h"
    path.write_text("/* SPDX */\n/* lib */\n\n/* ===\n * ALL\n * === */\n\nextern int counter;\n")
    with pytest.raises(ValueError, match="extern int counter"):
        headertext.read(path)
