# SPDX-License-Identifier: Apache-2.0
"""Event channels of all domains: whether the listener of a domain's events is still alive."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

from libmicrovmi_py.declare import NamedTuple
from libmicrovmi_py.drivers.xen.xenctrl import Domain

_STATUS = struct.Struct("<HxxIIIHxxI")
"""What Xen tells of a port: domain, port, state, vCPU, the domain at the other end, the port there."""

_CONNECTED = 2
_MOST_PORTS = 1 << 17


class _Port(NamedTuple):
    number: int
    xens: bool
    """Whether the hypervisor itself is at this end; it tells no more of such a port then."""
    connected: bool
    domid: int
    port: int


def left_behind(domain: Domain) -> bool:
    """Whether nobody is at the other end of one of the domain's channels to the hypervisor.

    Those are the channel of the listener to its events, if there is one, and those of its device model.
    """
    xens = {port.number for port in _ports(domain, domain.domid) if port.xens}
    if not xens:
        return False
    bound = {
        port.port
        for domid in domain.domains()
        for port in _ports(domain, domid)
        if port.connected and port.domid == domain.domid
    }
    return not xens <= bound


def _ports(domain: Domain, domid: int) -> Iterator[_Port]:
    """The ports of a domain. Xen says EINVAL behind the last."""
    status = domain.ffi.new("uint8_t[]", _STATUS.size)
    content = domain.ffi.buffer(status)
    for number in range(1, _MOST_PORTS):
        content[:] = _STATUS.pack(domid, number, 0, 0, 0, 0)
        refused = domain.lib.xc_evtchn_status(domain.handle, status) < 0
        if refused and domain.ffi.errno != errno.EACCES:
            return
        _, _, state, _, far, port = _STATUS.unpack(content)
        yield _Port(number, refused, not refused and state == _CONNECTED, far, port)
