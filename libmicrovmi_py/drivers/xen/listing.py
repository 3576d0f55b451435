# SPDX-License-Identifier: Apache-2.0
"""The domains that there are, with what Xen tells of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from libmicrovmi_py.declare import replace
from libmicrovmi_py.drivers.base import Driver, able_by_class
from libmicrovmi_py.drivers.xen import xenstore
from libmicrovmi_py.drivers.xen.driver import OpenDomain, check_kind
from libmicrovmi_py.drivers.xen.library import Libraries
from libmicrovmi_py.drivers.xen.xenctrl import Domain, Info
from libmicrovmi_py.errors import NotSupportedError, VmGoneError
from libmicrovmi_py.listed import ListedMachine, MachineState, uri_of
from libmicrovmi_py.model import PAGE_SIZE


def machines(kind: type[Driver], libraries: Libraries) -> Iterator[ListedMachine]:
    """Every domain that xenstore names, but dom0. Nothing is mapped and nobody paused.

    Raises ``DriverUnavailableError`` or ``PermissionDeniedError`` where Xen or xenstore cannot be asked.
    """
    with xenstore.connected(libraries) as store:
        names = store.names()
        uuids = {domid: store.uuid(domid) for domid in names}
    opened_by = uris(kind.name, names)
    for domid, name in sorted(names.items()):
        if domid == 0:
            continue
        plain = ListedMachine(kind.name, kind.type, name, opened_by[domid], uuid=uuids[domid])
        domain = Domain(libraries, domid, name)
        try:
            yield _told(plain, domain, domain.info())
        except VmGoneError:
            pass
        finally:
            domain.close()


def uris(driver: str, names: dict[int, str]) -> dict[int, str]:
    """What opens each: its name where no other has it; else its id, unless that is another one's name."""
    count = Counter(names.values())
    return {
        domid: (uri_of(driver, vm_name=name) if name and count[name] == 1 else "")
        or ("" if str(domid) in count else uri_of(driver, vm_name=str(domid)))
        for domid, name in names.items()
    }


def _told(plain: ListedMachine, domain: Domain, info: Info) -> ListedMachine:
    known = replace(
        plain,
        state=MachineState.PAUSED if info.paused else MachineState.RUNNING,
        memory=info.pages * PAGE_SIZE,
        vcpus=info.vcpus,
    )
    try:
        check_kind(domain, info)
    except NotSupportedError as err:
        return replace(known, reason=str(err))
    return replace(known, abilities=able_by_class(OpenDomain))
