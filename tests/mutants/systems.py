# SPDX-License-Identifier: Apache-2.0
"""Bugs of what builds, installs and runs the tests on other systems."""

from __future__ import annotations

from mutants.mutant import Mutant

MAKE = "tests/install/test_make.py"
SYSTEMS = "tests/systems/test_systems.py"

MUTANTS = (
    Mutant(
        "Makefile",
        "build_embed.py $(BUILD)\n\t@touch $@\n",
        "build_embed.py $(BUILD)\n",
        "after a comment of the header changed, every make builds the library again",
        (f"{MAKE}::test_a_change_is_built_once_however_old_the_file_is",),
    ),
    Mutant(
        "Makefile",
        "@if cmp -s $@.new $@; then",
        "@if false; then",
        "every make builds the library again",
        (f"{MAKE}::test_nothing_is_done_when_nothing_has_changed",),
    ),
    Mutant(
        "Makefile",
        "$(NATIVE)/exports.map include/",
        "include/",
        "a changed list of exports is not built",
        (f"{MAKE}::test_a_change_is_built_once_however_old_the_file_is",),
    ),
    Mutant(
        "Makefile",
        'echo "$$FLAGS"; cksum $(INPUTS);',
        'echo "$$FLAGS" $$(stat -c %Y $(INPUTS)); cksum $(INPUTS);',
        "a touched file is built anew",
        (f"{MAKE}::test_nothing_is_done_when_nothing_has_changed",),
    ),
    Mutant(
        "Makefile",
        "xargs -d '\\n' cp",
        "xargs cp",
        "no build in a directory with spaces",
        (f"{MAKE}::test_nothing_is_done_when_nothing_has_changed",),
    ),
    Mutant(
        "Makefile",
        'cp -R $(PRIVATE) "$(DESTDIR)$(LIBDIR)/libmicrovmi"',
        "cp -R $(PRIVATE) $(DESTDIR)$(LIBDIR)/libmicrovmi",
        "no installation into a directory with spaces",
        (f"{MAKE}::test_a_path_with_spaces_is_installed_from_and_to",),
    ),
    Mutant(
        "Makefile",
        "CHOSEN := $(if $(filter file,$(origin PYTHON)),,$(PYTHON))",
        "CHOSEN :=",
        "a PYTHON that was chosen is silently not the one that is built for",
        (f"{MAKE}::test_a_python_that_is_chosen_replaces_that_of_an_earlier_build",),
    ),
    Mutant(
        "Makefile",
        "CHOSEN := $(if $(filter file,$(origin PYTHON)),,$(PYTHON))",
        "CHOSEN := $(PYTHON) of now",
        "sudo make install builds again, for another Python",
        (f"{MAKE}::test_a_python_that_is_chosen_replaces_that_of_an_earlier_build",),
    ),
    Mutant(
        ".ci/setup",
        "sys.version_info < (3, 10)",
        "sys.version_info < (3, 9)",
        "Python 3.9 fails late, with pages of text",
        (f"{MAKE}::test_a_python_that_is_too_old_is_told_in_one_line",),
    ),
    Mutant(
        "libmicrovmi_py/_native/wheel_backend.py",
        "sys.version_info < (3, 10)",
        "sys.version_info < (3, 9)",
        "pip with Python 3.9 fails with pages of text",
        (f"{MAKE}::test_pip_tells_a_python_that_is_too_old_in_one_line",),
    ),
    Mutant(
        "libmicrovmi_py/_native/wheel_backend.py",
        'SCRATCH = Path("build") / "wheel"',
        'SCRATCH = ROOT / "build" / "wheel"',
        "pip install fails in a directory with spaces",
        (f"{MAKE}::test_pip_installs_from_a_path_with_spaces",),
    ),
    Mutant(
        "libmicrovmi_py/transport/processes.py",
        "return denied(self.path(name)) if self.alive else",
        "return denied(self.path(name)) if True else",
        "an ordinary user is told to get rights on a machine that ended",
        ("tests/transport/test_host_memory.py::test_a_process_that_ended_is_gone_for_an_ordinary_user_too",),
    ),
    Mutant(
        "tests/live/packages.py",
        'KERNEL_PACKAGES = ("linux-image-", "linux-binary-")',
        'KERNEL_PACKAGES = ("linux-image-",)',
        "no live test runs on sid",
        ("tests/live/test_packages.py",),
    ),
    Mutant(
        "tests/live/packages.py",
        'f"vmlinuz-{inside.parent.name}" if inside.name == "vmlinuz" else inside.name',
        "inside.name",
        "the kernel is fetched again by every run",
        ("tests/live/test_packages.py",),
    ),
    Mutant(
        "pyproject.toml",
        'addopts = "-rfEXx',
        'addopts = "-ra',
        "without QEMU a page of lines about skipped tests",
        ("tests/live/test_lab.py::test_many_skipped_tests_are_told_in_one_line",),
    ),
    Mutant(
        "tests/systems/report.py",
        "return self.ended and self.demo",
        "return self.demo",
        "a run of the tests that broke off counts as passed",
        (f"{SYSTEMS}::test_a_run_is_good_only_when_all_of_it_passed",),
    ),
    Mutant(
        "tests/systems/report.py",
        'for word in ("failed", "error", "errors"))',
        'for word in ("failed",))',
        "tests that could not be set up count as passed",
        (f"{SYSTEMS}::test_a_run_is_good_only_when_all_of_it_passed",),
    ),
    Mutant(
        "tests/systems/settings.py",
        "if os.geteuid() != 0:",
        "if False:",
        "an ordinary user gets debootstrap's error instead of the command",
        (f"{SYSTEMS}::test_an_ordinary_user_is_told_what_it_takes",),
    ),
    Mutant(
        "tests/systems/commands.py",
        ', "env", "--default-signal=HUP,INT,QUIT")',
        ")",
        "under nohup the examples' tests of signals fail on every system",
        (f"{SYSTEMS}::test_signals_that_we_ignore_are_not_ignored_by_what_we_run",),
    ),
)
