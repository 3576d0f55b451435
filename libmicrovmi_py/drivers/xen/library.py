# SPDX-License-Identifier: Apache-2.0
"""Xen's libraries: what is called of them, and where they are."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

from libmicrovmi_py.declare import Any, NamedTuple
from libmicrovmi_py.environment import variable
from libmicrovmi_py.transport.foreign import Foreign, load
from libmicrovmi_py.transport.shape import decimal

CONTROL = """
struct xc_interface_core *xc_interface_open(void *log, void *builder_log, unsigned flags);
int xc_interface_close(struct xc_interface_core *xc);
int xc_domain_getinfolist(struct xc_interface_core *xc, uint32_t first, unsigned count, void *info);
int xc_domain_maximum_gpfn(struct xc_interface_core *xc, uint32_t domid, unsigned long *gfn);
int xc_domain_pause(struct xc_interface_core *xc, uint32_t domid);
int xc_domain_unpause(struct xc_interface_core *xc, uint32_t domid);
int xc_domain_hvm_getcontext(struct xc_interface_core *xc, uint32_t domid, uint8_t *records, uint32_t size);
int xc_domain_hvm_setcontext(struct xc_interface_core *xc, uint32_t domid, uint8_t *records, uint32_t size);
int xc_domain_debug_control(struct xc_interface_core *xc, uint32_t domid, uint32_t operation, uint32_t vcpu);
int xc_hvm_inject_trap(struct xc_interface_core *xc, uint32_t domid, int vcpu, uint8_t vector, uint8_t type,
                       uint32_t error, uint8_t length, uint64_t cr2);
int xc_get_mem_access(struct xc_interface_core *xc, uint32_t domid, uint64_t gfn, int *access);
int xc_set_mem_access(struct xc_interface_core *xc, uint32_t domid, int access, uint64_t first, uint32_t count);
int xc_evtchn_status(struct xc_interface_core *xc, void *status);
int xc_vm_event_get_version(struct xc_interface_core *xc);
void *xc_monitor_enable(struct xc_interface_core *xc, uint32_t domid, uint32_t *port);
int xc_monitor_disable(struct xc_interface_core *xc, uint32_t domid);
int xc_monitor_get_capabilities(struct xc_interface_core *xc, uint32_t domid, uint32_t *bits);
int xc_monitor_write_ctrlreg(struct xc_interface_core *xc, uint32_t domid, uint16_t index, bool enable, bool sync,
                             uint64_t mask, bool changes_only);
int xc_monitor_mov_to_msr(struct xc_interface_core *xc, uint32_t domid, uint32_t msr, bool enable, bool changes_only);
int xc_monitor_singlestep(struct xc_interface_core *xc, uint32_t domid, bool enable);
int xc_monitor_software_breakpoint(struct xc_interface_core *xc, uint32_t domid, bool enable);
"""

STORE = """
struct xs_handle *xs_open(unsigned long flags);
void xs_close(struct xs_handle *store);
char **xs_directory(struct xs_handle *store, uint32_t transaction, const char *path, unsigned *count);
void *xs_read(struct xs_handle *store, uint32_t transaction, const char *path, unsigned *length);
"""

MEMORY = """
struct xenforeignmemory_handle *xenforeignmemory_open(void *log, unsigned flags);
int xenforeignmemory_close(struct xenforeignmemory_handle *handle);
void *xenforeignmemory_map(struct xenforeignmemory_handle *handle, uint32_t domid, int protection, size_t pages,
                           const unsigned long *frames, int *errors);
int xenforeignmemory_unmap(struct xenforeignmemory_handle *handle, void *address, size_t pages);
"""

CHANNELS = """
struct xenevtchn_handle *xenevtchn_open(void *log, unsigned flags);
int xenevtchn_close(struct xenevtchn_handle *handle);
int xenevtchn_fd(struct xenevtchn_handle *handle);
int xenevtchn_bind_interdomain(struct xenevtchn_handle *handle, uint32_t domid, uint32_t port);
int xenevtchn_unbind(struct xenevtchn_handle *handle, uint32_t port);
int xenevtchn_notify(struct xenevtchn_handle *handle, uint32_t port);
int xenevtchn_pending(struct xenevtchn_handle *handle);
int xenevtchn_unmask(struct xenevtchn_handle *handle, uint32_t port);
"""

LOG = "void *xtl_createlogger_stdiostream(void *file, int least, unsigned flags);"
_NOTHING = 10
"""A level above every message's: the libraries print nothing."""

LIBC = "extern void *stderr; void free(void *pointer);"


class Libraries(NamedTuple):
    """All that the driver calls, and a log that keeps quiet, to be handed to what opens something."""

    control: Foreign
    store: Foreign
    memory: Foreign
    channels: Foreign
    libc: Foreign
    log: Any


@functools.cache
def load_all() -> Libraries:
    """Load the libraries. Raises ``DriverUnavailableError`` that names the one that is not there."""
    libc = load(("libc.so.6",), LIBC)
    log = load(("libxentoollog.so.1",), LOG)
    return Libraries(
        control=load(tuple(control_names()), CONTROL),
        store=load(("libxenstore.so.4", "libxenstore.so.3.0"), STORE),
        memory=load(("libxenforeignmemory.so.1",), MEMORY),
        channels=load(("libxenevtchn.so.1",), CHANNELS),
        libc=libc,
        log=log.lib.xtl_createlogger_stdiostream(libc.lib.stderr, _NOTHING, 0),
    )


def control_names(version: Path = Path("/sys/hypervisor/version"), folders: tuple[str, ...] = ()) -> list[str]:
    """File names for libxenctrl, which speaks to one version of Xen only: of the running one, then what else is there.

    ``folders`` are looked into besides those of the loader.
    """
    names = []
    try:
        major, minor = ((version / part).read_text().strip() for part in ("major", "minor"))
        names.append(f"libxenctrl.so.{major}.{minor}")
    except OSError:
        pass
    names += (str(path) for path in _installed(folders) if path.name not in names)
    return names or ["libxenctrl.so"]


def _installed(folders: tuple[str, ...]) -> Iterator[Path]:
    """Every libxenctrl that is in the loader's usual folders, the newest version first."""
    own = f"lib/{os.uname().machine}-linux-gnu"
    usual = (f"/usr/{own}", "/usr/lib64", "/usr/lib", "/usr/local/lib", f"/{own}")
    named = tuple(item for item in variable("LD_LIBRARY_PATH").split(":") if item)
    for folder in dict.fromkeys((*folders, *named, *usual)):
        yield from sorted(Path(folder).glob("libxenctrl.so.4.*"), key=_minor, reverse=True)


def _minor(path: Path) -> int:
    digits = path.name.split(".")[3]
    return decimal(digits, 1 << 31) or 0
