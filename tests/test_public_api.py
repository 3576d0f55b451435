# SPDX-License-Identifier: Apache-2.0
"""The names that Python programs may rely on: a change here is a change of the contract."""

from __future__ import annotations

import inspect

import libmicrovmi_py
from libmicrovmi_py import Memory, Microvmi, PaddedMemory

NAMES = {
    *("PAGE_SHIFT", "PAGE_SIZE", "AccessError", "Driver", "DriverType", "DriverUnavailableError", "ForkedError"),
    "Aarch64Registers",
    *("InvalidArgumentError", "InvalidContextError", "IoError", "Memory", "MemoryKind", "MemoryRange", "Microvmi"),
    *("MicrovmiError", "NoDriverError", "NotMappedError", "NotSupportedError", "PaddedMemory", "Parameters"),
    *("PermissionDeniedError", "ReadOnlyError", "Registers", "SegmentReg", "StartupError", "SystemTableReg"),
    *("TimeoutExpiredError", "VcpuState", "VmGoneError", "X86Registers", "__version__", "release_all"),
    *("CancelledError", "SnapshotInfo", "SnapshotMethod"),
    *("ImageAccess", "ImageInfo"),
    *("ListedMachine", "MachineState", "list_vms"),
    *("AddressSpace", "PageRights", "PageTables", "Paging", "PagingControl", "Translation", "TranslationFailure"),
    *("ALL_VCPUS", "Event", "EventKind", "Intercept", "InterceptFlag", "PageAccess", "Reply", "ReplyAction", "Stands"),
    "UNKNOWN_VCPU",
}
MACHINE = {
    *("open", "from_parameters", "from_driver", "close", "pause", "resume", "max_addr", "memory_map", "vcpu_count"),
    "open_memory",
    *("read_physical", "read_physical_into", "read_physical_exactly_into", "read_physical_padded_into"),
    *("write_physical", "read_registers", "read_physical_batch", "map_physical", "physical", "write_registers"),
    *("get_page_access", "set_page_access", "toggle_intercept", "listen", "reply_event", "stop_listening"),
    *("abilities", "address_space", "flush_translations", "read_state", "read_states", "write_state"),
}
STREAM = {"max_addr", "seek", "tell", "readinto", "readall", "write", "readable", "writable", "seekable", "close"}


def public(thing: object) -> set[str]:
    return {name for name in vars(thing) if not name.startswith("_")}


def test_the_package_offers_these_names_and_no_other() -> None:
    assert set(libmicrovmi_py.__all__) == NAMES
    assert all(hasattr(libmicrovmi_py, name) for name in NAMES)


def test_a_machine_offers_these_methods_and_no_other() -> None:
    assert public(Microvmi) == MACHINE


def test_a_stream_offers_these_methods() -> None:
    for stream in (Memory, PaddedMemory):
        assert set(dir(stream)) >= STREAM


def test_everything_public_is_documented() -> None:
    for name in NAMES - {"__version__", "PAGE_SHIFT", "PAGE_SIZE", "Registers", "ALL_VCPUS", "UNKNOWN_VCPU"}:
        assert inspect.getdoc(getattr(libmicrovmi_py, name)), name
    for name in MACHINE:
        assert inspect.getdoc(getattr(Microvmi, name)), name
