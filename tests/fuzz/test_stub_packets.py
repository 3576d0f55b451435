# SPDX-License-Identifier: Apache-2.0
"""What a debugger's stub sends with something changed: told as it is, passed over as it may be, or refused."""

from __future__ import annotations

from fuzz.mutator import SCALE, Mutator
from transport.stub_peer import OTHER, STOP, number, packet, peer

from libmicrovmi_py.errors import MicrovmiError
from libmicrovmi_py.transport.packets import Plan, Quiet, StubPackets

ROUNDS = 600
PLACE, MASK = 0xFFFF888000001000, 0x000F_FFFF_FFFF_F000
KNOWN = 0x1234_5000


def said(chance: Mutator) -> bytes:
    """Some stops, with the answers that belong to each."""
    packets: list[bytes] = []
    for _ in range(chance.randrange(1, 5)):
        value = chance.choice((KNOWN, KNOWN | 0xFFF, KNOWN + 0x1000))
        packets += [chance.choice((STOP, OTHER, b"T02thread:01;")), b"00" * chance.choice((1, 700)), number(value)]
    return b"".join(map(packet, packets))


def heard(client: StubPackets, plan: Plan) -> list[list[bytes]]:
    """All that is told, to the end or to what is no packet."""
    stops = []
    try:
        while (stop := client.stand(plan, 0)) is not None:
            stops.append(stop)
    except MicrovmiError:
        pass
    return stops


def test_changed_packets_are_told_or_refused() -> None:
    told = passed = 0
    for turn in range(ROUNDS * SCALE):
        chance = Mutator("stub", turn)
        data = said(chance)
        for _ in range(turn % 3):
            data = chance.data(data)
        plan = Plan(["g", "p1d"], "c", Quiet([PLACE], MASK), 1)
        plan.known[0] = KNOWN
        with peer(seconds=0) as (client, far):
            far.sendall(data)
            stops = heard(client, plan)
            assert plan.passed <= data.count(STOP)
            client.close()
            far.setblocking(True)
            sent = far.recv(1 << 16)
        assert sent.count(b"$c#63") == plan.passed
        told, passed = told + len(stops), passed + plan.passed
    assert min(told, passed) > ROUNDS // 10
