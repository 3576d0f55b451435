# SPDX-License-Identifier: Apache-2.0
"""What of the documentation ``tests/live/test_shown.py`` does not run, and the tests that do.

Commands are named by how they begin, blocks by their page and language.
"""

from __future__ import annotations

from documentation.blocks import SHELLS, Block, Command

INSTALL = "tests/install/test_install.py::test_an_installed_library_works_from_anywhere_and_can_be_moved"
PIP = "tests/install/test_readme.py::test_the_commands_for_the_python_package_work"
SYSTEMS = "tests/systems/runs.py"
PACKAGES = "tests/documentation/test_blocks.py::test_packages_that_pages_name_are_those_of_the_tests"
BENCH = "tests/bench/test_bench.py::test_a_part_alone_is_printed_and_nothing_is_written"

COMMANDS = {
    "apt-get install ": PACKAGES,
    "sudo apt-get install ": PACKAGES,
    "make demo": SYSTEMS,
    "make test-systems ": "tests/systems/test_systems.py::test_the_pythons_that_were_asked_for_are_taken",
    "make test": SYSTEMS,
    "make bench": BENCH,
    "make install": INSTALL,
    "sudo make install": INSTALL,
    "make deb": "tests/install/test_deb.py",
    "make dist": "tests/install/test_dist.py::test_a_wheel_is_for_one_python_and_one_kind_of_machine",
    "sudo ldconfig": INSTALL,
    "python3 -m venv ~/vmi": PIP,
    "~/vmi/bin/python ": PIP,
    "build/venv/bin/python c_tests/bench/bench.py ": BENCH,
    "build/venv/bin/python -m pytest tests/contract ": "tests/contract/test_contract.py",
    "PYTHONPATH=$(microvmi upstream-path) ": (
        "tests/compat/test_upstream_names.py::test_a_program_of_upstream_s_runs_with_the_folder_on_its_path"
    ),
    "dask ": "tests/live/test_scan.py::test_a_worker_is_killed_in_the_middle_and_every_guest_is_scanned_once",
    "microvmi scan --scheduler ": (
        "tests/live/test_scan.py::test_a_worker_is_killed_in_the_middle_and_every_guest_is_scanned_once"
    ),
}
"""By how they begin, which test runs them."""

BLOCKS = {
    ("docs/drivers.md", "python"): "tests/contract/test_example.py",
}
"""By page and language, which test runs them."""

PAGES = {
    "docs/abi.md": "tests/install/test_compilers.py",
    "docs/debian.md": "tests/systems/debs.py",
    "docs/ffi.md": "tests/live/test_languages.py",
    "docs/python.md": "tests/install/test_readme.py",
}
"""By page, which test runs all of it."""

BY_HAND = {
    "docs/tools/leechcore.md": "it takes the network, upstream's plugin and MemProcFS, which are nobody's packages",
}
"""Pages whose commands are tried by hand, and why."""


def runs_command(command: Command) -> str:
    """The test that runs it, or why none does; empty if ``tests/live/test_shown.py`` is it."""
    if command.page in BY_HAND | PAGES:
        return (BY_HAND | PAGES)[command.page]
    return next((test for begin, test in COMMANDS.items() if f"{command.text} ".startswith(begin)), "")


def runs_block(block: Block) -> str:
    """The test that runs a block which is none of a shell; empty if ``tests/live/test_shown.py`` is it."""
    assert block.language not in SHELLS
    return PAGES.get(block.page) or BLOCKS.get((block.page, block.language), "")
