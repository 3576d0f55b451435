# SPDX-License-Identifier: Apache-2.0
"""Bugs of what builds, installs and runs the tests on other systems."""

from __future__ import annotations

from mutants.mutant import Mutant

DEB = "tests/install/test_deb.py"
DIST = "tests/install/test_dist.py"
MAKE = "tests/install/test_make.py"
SYSTEMS = "tests/systems/test_systems.py"
RESULTS = "tests/systems/test_results.py"
PAGES = "tests/transport/test_host_pages.py"
COMPILERS = "tests/install/test_compilers.py"
UNINSTALL = "tests/install/test_uninstall.py"

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
        "quoted = '$(subst ','\\'',$(1))'",
        "quoted = $(1)",
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
        "pyproject.toml",
        '"microvmi-caller", ',
        "",
        "a wheel without the program that calls it for other Pythons",
        (f"{DIST}::test_a_wheel_has_the_program_that_calls_it_for_other_pythons",),
    ),
    Mutant(
        "libmicrovmi_py/stubgen/elsewhere.py",
        ' or "free-threading" in ours',
        "",
        "a Python without a GIL takes a library for its own that was built for one with it",
        ("tests/capi/test_elsewhere.py::test_a_python_of_another_version_or_without_a_gil_has_calls_made",),
    ),
    Mutant(
        "setup.py",
        "        return True",
        "        return False",
        "a wheel says that it has no compiled code",
        (f"{DIST}::test_a_wheel_is_for_one_python_and_one_kind_of_machine",),
    ),
    Mutant(
        "libmicrovmi_py/_native/home.c",
        "if (python == NULL && prefix[0] != '\\0')",
        "if (python == NULL && 0)",
        "a wheel starts the Python of the machine that it was built on",
        (f"{DIST}::test_a_wheel_uses_the_python_that_its_environment_is_of",),
    ),
    Mutant(
        "libmicrovmi_py/_native/home.c",
        "!mvi_home_is_of_build(libpython) && mvi_home_beside(libpython, home)",
        "0",
        "a libpython of one Python runs with the standard library of another",
        (f"{DIST}::test_a_wheel_uses_the_python_that_its_environment_is_of",),
    ),
    Mutant(
        "Makefile",
        '$(shell "$(PY)" $(NATIVE)/pythonflags.py 2> /dev/null)',
        "",
        "pip install -e . of another Python leaves the library of an earlier one",
        (f"{MAKE}::test_another_python_s_library_is_built_anew",),
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
        "tests/systems/settings.py",
        "if self.emulated and not self.emulator.exists():",
        "if False:",
        "without qemu-user debootstrap of AArch64 fails in its second stage, with no word of why",
        (f"{SYSTEMS}::test_without_an_emulator_the_command_is_told",),
    ),
    Mutant(
        "tests/systems/results.py",
        "return row.system, minor, row.compiler.split()[0],",
        "return row.system, minor, row.compiler,",
        "a line of systems.md for every version of a compiler, however old",
        (f"{RESULTS}::test_a_run_replaces_the_one_that_it_repeats_alone",),
    ),
    Mutant(
        "tests/systems/results.py",
        'row.counts.get("deselected", 0)',
        "0",
        "the page does not say that tests were left out",
        (f"{RESULTS}::test_a_line_has_what_ran_where_and_how_it_ended",),
    ),
    Mutant(
        "libmicrovmi_py/transport/mapping.py",
        "block = blocks if blocks % mmap.PAGESIZE == 0 else mmap.PAGESIZE",
        "block = blocks",
        "no memory in files is mapped on hosts with pages of 64 KiB",
        (f"{PAGES}::test_a_part_of_a_file_is_mapped_from_the_page_that_it_is_in",),
    ),
    Mutant(
        "libmicrovmi_py/transport/procmem.py",
        'self._open_beside("pagemap") if mmap.PAGESIZE == PAGE_SIZE else None',
        'self._open_beside("pagemap")',
        "memory reads as zero on hosts with pages of 64 KiB",
        (f"{PAGES}::test_no_page_is_taken_for_untouched_where_pages_are_counted_otherwise",),
    ),
    Mutant(
        "tests/systems/commands.py",
        ', "env", "--default-signal=HUP,INT,QUIT")',
        ")",
        "under nohup the examples' tests of signals fail on every system",
        (f"{SYSTEMS}::test_signals_that_we_ignore_are_not_ignored_by_what_we_run",),
    ),
    Mutant(
        "libmicrovmi_py/_native/forcompilers.py",
        'Libs: -L"${{libdir}}"',
        "Libs: -L${{libdir}}",
        "pkg-config tells a folder with spaces as several",
        (f"{COMPILERS}::test_pkg_config_tells_a_folder_of_any_name",),
    ),
    Mutant(
        "libmicrovmi_py/_native/readable.py",
        "(path.absolute(), path.resolve())",
        "(path.absolute(),)",
        "a Python behind a link into /root is no reason to warn",
        (f"{UNINSTALL}::test_what_others_may_not_pass_or_read_is_found",),
    ),
    Mutant(
        "libmicrovmi_py/_native/readable.py",
        "    if closed(libdir) is not None:\n",
        "    if False:\n",
        "who installs into his own home is warned of his own Python",
        (f"{UNINSTALL}::test_a_python_that_others_cannot_use_is_warned_of",),
    ),
    Mutant(
        ".ci/debian/rules",
        "\trm $(PRIVATE)/.laid\n",
        "",
        "make uninstall takes away what a package has laid down",
        (f"{DEB}::test_all_that_is_installed_is_in_one_package",),
    ),
    Mutant(
        ".ci/debian/control",
        "Depends: ${libpython:Depends}, ",
        "Depends: ",
        "a package whose library has no Python to start",
        (f"{DEB}::test_the_library_depends_on_the_python_that_it_starts",),
    ),
)
