# SPDX-License-Identifier: Apache-2.0
"""The header as compilers and ``libmicrovmi_py.header`` take it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cffi
import pytest
from needs import missing

from libmicrovmi_py.errors import InvalidArgumentError
from libmicrovmi_py.header import declarations, find_header, preprocess, read_header

HEADER = Path(__file__).resolve().parents[2] / "include" / "libmicrovmi.h"
PEDANTIC = ["-Wall", "-Wextra", "-pedantic", "-Werror", f"-I{HEADER.parent}"]
COMPILERS = {"cc": "c", "clang": "c", "c++": "c++", "clang++": "c++"}
STANDARDS = {"c": ("c99", "c11", "c17", "gnu99"), "c++": ("c++11", "c++17", "c++20")}
BUILDS = [
    (compiler, standard)
    for compiler, language in COMPILERS.items()
    if shutil.which(compiler)
    for standard in STANDARDS[language]
]

# A client as they were written for 0.4.0: unprefixed names, no driver type, PAGE_SIZE in array sizes.
CLIENT = r"""
#include <libmicrovmi.h>
#include <stdio.h>
#include <string.h>

static uint8_t page[PAGE_SIZE];
static uint8_t pages[1 << PAGE_SHIFT][2];
static const DriverType frozen[] = {KVM, Memflow, VirtualBox, Xen};

static DriverInitParamsFFI parameters(char *name, char *socket, char **arguments, uintptr_t count)
{
    struct DriverInitParamsFFI params;
    memset(&params, 0, sizeof(params));
    CommonInitParamsFFI common = {name};
    UnixSocket_Body body = {socket};
    params.common = common;
    params.kvm.tag = UnixSocket;
    params.kvm.unix_socket = body;
    params.memflow.connector_name = name;
    params.memflow.connector_args.tag = Default;
    params.memflow.connector_args.default_.args_arr = arguments;
    params.memflow.connector_args.default_.args_arr_len = count;
    return params;
}

static void look(void *driver)
{
    uint64_t last = 0, bytes_read = 0;
    Registers registers;
    if (!microvmi_pause(driver))
        return;
    if (microvmi_get_max_physical_addr(driver, &last))
        for (uint64_t at = 0; at <= last; at += PAGE_SIZE)
            if (microvmi_read_physical(driver, at, page, sizeof(page), &bytes_read))
                (void)microvmi_write_physical(driver, at, page, bytes_read);
    memset(&registers, 0, sizeof(registers));
    if (microvmi_read_registers(driver, 0, &registers) && registers.tag == X86) {
        SegmentReg cs = registers.x86.cs;
        SystemTableReg idt = registers.x86.idt;
        X86Registers *x86 = &registers.x86;
        printf("%lx %x %lx %d\n", (unsigned long)x86->rip, cs.selector, (unsigned long)idt.base, frozen[0] == KVM);
    }
    microvmi_resume(driver);
}

int main(int argc, char **argv)
{
    const char *error = NULL;
    KVMInitParamsFFI kvm;
    MemflowInitParamsFFI memflow;
    MemflowConnectorParamsFFI connector;
    Default_Body body;
    DriverInitParamsFFI params = parameters(argv[0], NULL, argv, (uintptr_t)argc);
    kvm = params.kvm;
    memflow = params.memflow;
    connector = memflow.connector_args;
    body = connector.default_;
    (void)kvm;
    (void)body;
    (void)pages;
    if (argc < 2)
        return 0;
    microvmi_envlogger_init();
    void *driver = microvmi_init(NULL, &params, &error);
    if (!driver) {
        fprintf(stderr, "%s\n", error);
        rs_cstring_free((char *)error);
        return 1;
    }
    look(driver);
    printf("%d\n", microvmi_get_driver_type(driver) == Xen);
    microvmi_destroy(driver);
    return 0;
}
"""


def check(source: str, compiler: str, standard: str, folder: Path) -> None:
    """Compile a source as strictly as a compiler can."""
    path = folder / ("alone.cpp" if COMPILERS[compiler] == "c++" else "alone.c")
    path.write_text(source)
    command = [compiler, f"-std={standard}", *PEDANTIC, "-fsyntax-only", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("compiler", "standard"), BUILDS)
class TestCompilers:
    def test_header_stands_alone_and_may_come_twice(self, compiler: str, standard: str, tmp_path: Path) -> None:
        check("#include <libmicrovmi.h>\n#include <libmicrovmi.h>\n", compiler, standard, tmp_path)

    def test_tags_and_typedefs_both_name_a_type(self, compiler: str, standard: str, tmp_path: Path) -> None:
        source = (
            "#include <libmicrovmi.h>\n"
            "struct Registers by_tag;\nRegisters *by_name = &by_tag;\n"
            "enum DriverType number;\nDriverType *other = &number;\n"
        )
        check(source, compiler, standard, tmp_path)

    def test_registers_of_every_architecture_have_names(self, compiler: str, standard: str, tmp_path: Path) -> None:
        source = (
            "#include <libmicrovmi.h>\n"
            "uint64_t rip(const struct Registers *registers);\n"
            "uint64_t rip(const struct Registers *registers)\n{\n"
            "    const microvmi_aarch64_registers *arm = &registers->aarch64;\n"
            "    const X86Registers *x86 = &registers->x86;\n"
            "    switch (registers->tag) {\n"
            "    case X86: return x86->rip + registers->x86.rax + registers->x86.cs.base;\n"
            "    case MICROVMI_REGISTERS_AARCH64: return arm->pc + registers->aarch64.x0;\n"
            "    default: return 0;\n    }\n}\n"
        )
        check(source, compiler, standard, tmp_path)

    def test_states_are_asked_by_number(self, compiler: str, standard: str, tmp_path: Path) -> None:
        source = (
            "#include <libmicrovmi.h>\n"
            "uint64_t lstar(void *vm);\n"
            "uint64_t lstar(void *vm)\n{\n"
            "    struct microvmi_vcpu_state state = MICROVMI_VCPU_STATE_INIT;\n"
            "    microvmi_vcpu_state wanted = MICROVMI_VCPU_STATE_INIT;\n"
            "    MICROVMI_SET_KNOWN(&wanted, MICROVMI_X86_TSC_AUX);\n"
            "    wanted.value[MICROVMI_X86_TSC_AUX] = 1;\n"
            "    if (!microvmi_write_vcpu_state(vm, 0, &wanted)) return 0;\n"
            "    if (!microvmi_read_vcpu_state(vm, 0, &state)) return 0;\n"
            "    return MICROVMI_IS_KNOWN(&state, MICROVMI_X86_LSTAR) ? state.value[MICROVMI_X86_LSTAR] : 1;\n}\n"
        )
        check(source, compiler, standard, tmp_path)

    @pytest.mark.parametrize("order", ["before", "after"])
    def test_system_headers_may_define_the_page_size(
        self, compiler: str, standard: str, order: str, tmp_path: Path
    ) -> None:
        lines = ["#include <limits.h>", "#include <sys/user.h>", "#include <libmicrovmi.h>"]
        if order == "after":
            lines = ["#define PAGE_SIZE 4096", "#define PAGE_SHIFT 12", "#include <libmicrovmi.h>"]
        check("\n".join([*lines, "char page[PAGE_SIZE];", ""]), compiler, standard, tmp_path)


@pytest.mark.parametrize("compiler", [name for name in ("cc", "clang") if shutil.which(name)])
def test_a_client_of_upstream_0_4_0_builds_and_links(compiler: str, library_path: Path, tmp_path: Path) -> None:
    source, program = tmp_path / "client.c", tmp_path / "client"
    source.write_text(CLIENT)
    folder = library_path.parent
    command = [compiler, "-std=gnu11", *PEDANTIC, str(source), "-o", str(program), f"-L{folder}", "-lmicrovmi"]
    subprocess.run(command, check=True)
    subprocess.run([program], env={"LD_LIBRARY_PATH": str(folder)}, check=True)


def test_compilers_of_both_languages_are_there() -> None:
    found = {COMPILERS[compiler] for compiler, _ in BUILDS}
    if "c++" not in found:
        missing("no C++ compiler, so the header was read by C ones only; to enable: apt-get install g++")
    assert found == {"c", "c++"}


def test_cffi_takes_the_declarations() -> None:
    ffi = cffi.FFI()
    ffi.cdef(declarations(HEADER))
    assert ffi.sizeof("struct Registers") == 408
    assert ffi.dlopen(None).PAGE_SIZE == 4096


def test_declarations_keep_line_numbers() -> None:
    original = read_header(HEADER).split("\n")
    plain = declarations(HEADER).split("\n")
    assert len(plain) == len(original)
    assert [line for line in plain if line.startswith("struct ")] == [
        line for line in original if line.startswith("struct ")
    ]


def test_declarations_hold_no_comment_and_no_directive_but_integers() -> None:
    text = declarations(HEADER)
    assert "/*" not in text
    assert "__" not in text
    assert "MICROVMI_UNNAMED" not in text
    macros = dict(line.split()[1:] for line in text.split("\n") if "#" in line)
    assert macros["PAGE_SHIFT"] == "12"
    assert set(macros) == {
        "PAGE_SHIFT",
        "PAGE_SIZE",
        "MICROVMI_ALL_VCPUS",
        "MICROVMI_VCPU_UNKNOWN",
        "MICROVMI_ADDRESS_UNKNOWN",
        *(f"MICROVMI_VERSION_{part}" for part in ("MAJOR", "MINOR", "PATCH")),
    }


def test_header_is_found_in_the_tree_and_where_it_is_said_to_be(tmp_path: Path) -> None:
    other = tmp_path / "other.h"
    other.write_text("int f(void);\n")
    assert find_header().read_bytes() == HEADER.read_bytes()
    assert find_header(other) == other


def test_module_needs_no_cffi() -> None:
    code = "import sys, libmicrovmi_py.header; sys.exit('cffi' in sys.modules or 'subprocess' in sys.modules)"
    root = os.fspath(HEADER.parents[1])
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("#define A 0x10\n", "#define A 16\n"),
        ("#define A 010u\n", "#define A 8\n"),
        ("#define A 1\n#define B ((A << 4) | 2)\n", "#define A 1\n#define B 18\n"),
        ("#define A -5\n", "#define A -5\n"),
        ("#define A 1 /* one\n line */ + 1\nint f(void);\n", "#define A 2\n\nint f(void);\n"),
        ("#define A \\\n 7\nint f(void);\n", "#define A 7\n\nint f(void);\n"),
        ('#define A "http://x" // text\n', "\n"),
        ("#define A(x) x\n#define B {0}\n#define C sizeof(int)\n", "\n\n\n"),
        ("#define A\nA int f(void);\n", "\n int f(void);\n"),
        ("#define A 1\n#undef A\n#ifdef A\nint f(void);\n#endif\n", "#define A 1\n\n\n\n\n"),
        ("#ifdef __cplusplus\nclass A;\n#else\nint f(void);\n#endif\n", "\n\n\nint f(void);\n\n"),
        ("#if defined(X) || !defined Y\nint f(void);\n#endif\n", "\nint f(void);\n\n"),
        (
            "#if 0\nint f(void);\n#elif 2 > 1 && X == 0\nint g(void);\n#else\nint h(void);\n#endif\n",
            "\n\n\nint g(void);\n\n\n\n",
        ),
        ("#if 0\n#if 1\nint f(void);\n#else\nint g(void);\n#endif\n#endif\n", "\n\n\n\n\n\n\n"),
        ("#pragma once\n#include <stdint.h>\n#\nint f(void);\n", "\n\n\nint f(void);\n"),
        ("/* #define A 1 */\n// #define B 1\nint f(void);\n", "\n\nint f(void);\n"),
    ],
)
def test_preprocessor_follows(text: str, left: str) -> None:
    assert preprocess(text) == left


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('\n#include "other.h"\n', 'x.h:2: #include "other.h": only system headers'),
        ("#if FOO(1)\n#endif\n", "x.h:1: cannot evaluate the condition 'FOO[(]1[)]'"),
        ("#if 1\nint f(void);\n", "x.h:3: the file ends inside an #if"),
        ("#endif\n", "x.h:1: #endif without #if"),
        ("#pragma pack(1)\n", "x.h:1: #pragma pack[(]1[)]: cannot be followed"),
        ("#error no such machine\n", "x.h:1: #error no such machine"),
        ("#warning odd\n", "x.h:1: #warning: not a directive"),
        ("#define 1\n", "x.h:1: #define 1: no name"),
    ],
)
def test_preprocessor_says_what_it_cannot_follow(text: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        preprocess(text, "x.h")


@pytest.mark.parametrize("libdir", ["lib", "lib/x86_64-linux-gnu"])
def test_the_header_beside_what_was_installed_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, libdir: str
) -> None:
    installed = tmp_path / "include" / "libmicrovmi.h"
    installed.parent.mkdir()
    installed.write_text("")
    monkeypatch.setattr("libmicrovmi_py.header.__file__", f"{tmp_path}/{libdir}/libmicrovmi/libmicrovmi_py/header.py")
    assert find_header() == installed


def test_unreadable_files_are_clear_errors(tmp_path: Path) -> None:
    binary = tmp_path / "binary.h"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidArgumentError, match=r"binary\.h: not UTF-8 text"):
        declarations(binary)
    with pytest.raises(InvalidArgumentError, match="cannot be read: Is a directory"):
        declarations(tmp_path)
    with pytest.raises(InvalidArgumentError, match=r"no header at .*gone\.h; give the path"):
        find_header(tmp_path / "gone.h")


WRAPPED = r"""
#include <libmicrovmi.hpp>
#include <libmicrovmi.hpp>
#include <cstring>

/* 0, or the number of what is not as it should be. */
static int tried(microvmi::Failure *failure)
{
    microvmi::Machine none = microvmi::Machine::open("vmi://no-such-driver/", failure);
    if (none || failure->code != MICROVMI_ERROR_DRIVER_UNAVAILABLE || failure->text.find("no-such") > 100)
        return 1;
    microvmi::Machine vm = microvmi::Machine::open("vmi://fake/?size=0x10000&vcpus=2", failure);
    if (!vm || *failure || !failure->text.empty())
        return 2;
    microvmi::Machine moved(std::move(vm));
    if (vm || vm.get() != nullptr || !moved.pause(failure))
        return 3;
    vm = std::move(moved);
    char written[4] = {1, 2, 3, 4}, read[4] = {0};
    if (!vm.write_physical(0x1000, written, 4, failure) || !vm.read_physical(0x1000, read, 4, failure) ||
        std::memcmp(written, read, 4) != 0)
        return 4;
    if (vm.read_physical(0x10000, read, 4, failure) || failure->code != MICROVMI_ERROR_NOT_MAPPED)
        return 5;
    microvmi_address_space space = vm.address_space(0, failure);
    std::memset(read, 0, 4);
    if (!vm.read_virtual(space, 0x1000, read, 4, failure) || std::memcmp(written, read, 4) != 0)
        return 6;
    if (vm.vcpu_count(failure) != 2 || vm.memory_map(failure).size() != 1 || vm.memory_map(failure)[0].size != 0x10000)
        return 7;
    microvmi::Machine old = vm.snapshot(MICROVMI_SNAPSHOT_OPTIONS_INIT, failure);
    if (!old || !vm.write_virtual(space, 0x1001, "\5", 1, failure) || !old.read_physical(0x1001, read, 1, failure) ||
        read[0] != 2 || !vm.read_virtual_padded(space, 0x1001, read, 1, failure) || read[0] != 5)
        return 8;
    if (vm.registers(1, failure).tag != X86 || *failure || vm.registers(2, failure).x86.rip != 0 || !*failure)
        return 9;
    return vm.resume(failure) ? 0 : 10;
}

static int listened(microvmi::Failure *failure)
{
    microvmi::Machine vm = microvmi::Machine::open("vmi://fake/", failure);
    microvmi_intercept cr3 = MICROVMI_INTERCEPT_INIT;
    cr3.kind = MICROVMI_EVENT_CR;
    cr3.number = 3;
    {
        microvmi::Intercept on(vm, cr3, failure);
        std::uint64_t id;
        {
            microvmi::Event event(vm, 10000, failure);
            if (*failure || event->number != 3)
                return 21;
            id = event->id;
        }
        microvmi_event open = MICROVMI_EVENT_INIT;
        open.id = id;
        if (microvmi_reply_event(vm.get(), &open, nullptr))
            return 22; /* it was left unanswered */
        microvmi::Event second(vm, 10000, failure);
        microvmi_reply deny = MICROVMI_REPLY_INIT;
        deny.action = MICROVMI_REPLY_DENY;
        if (!second.reply(deny, failure) || second.reply(deny, failure))
            return 23;
    }
    microvmi::Event none(vm, 0, failure);
    return *failure ? 0 : 24; /* the intercept was left on */
}

int main()
{
    microvmi::Failure failure;
    int wrong = tried(&failure);
    if (wrong == 0)
        wrong = listened(&failure);
#ifdef __cpp_exceptions
    try {
        microvmi::Machine::open("vmi://no-such-driver/");
        return 31;
    } catch (const microvmi::Error &error) {
        if (error.code != MICROVMI_ERROR_DRIVER_UNAVAILABLE || std::strstr(error.what(), "no-such-driver") == nullptr)
            return 32;
    }
#endif
    return wrong;
}
"""


@pytest.mark.parametrize("without", [[], ["-fno-exceptions", "-fno-rtti"]], ids=["exceptions", "none"])
@pytest.mark.parametrize("standard", ["c++11", "c++20"])
def test_the_header_for_cpp_gives_back_and_tells(
    standard: str, without: list[str], tmp_path: Path, library_path: Path
) -> None:
    source = tmp_path / "wrapped.cpp"
    source.write_text(WRAPPED)
    strict = [*PEDANTIC, "-Wshadow", "-Wold-style-cast", f"-std={standard}", *without]
    link = [f"-L{library_path.parent}", f"-Wl,-rpath,{library_path.parent}", "-lmicrovmi"]
    for compiler in (name for name, language in COMPILERS.items() if language == "c++" and shutil.which(name)):
        command = [compiler, *strict, "-o", str(tmp_path / "wrapped"), str(source), *link]
        assert subprocess.run(command, capture_output=True, text=True, check=False).stderr == ""
        done = subprocess.run([tmp_path / "wrapped"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
