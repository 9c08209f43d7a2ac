"""ICE behind modelled routers on the virtual network."""

from __future__ import annotations

import pytest
from support.virtual_nat import KINDS, IcePeer, Meeting, NatBox, meet

from p2pnode.core.errors import NoPathError
from p2pnode.simulations.virtual import VirtualNetwork, VirtualWorld, run_virtual

DELAY_S = 0.04
CELLS = [(a, b) for a in ("public", *KINDS) for b in ("public", *KINDS)]
IMPOSSIBLE = {("symmetric", "port-restricted"), ("port-restricted", "symmetric"), ("symmetric", "symmetric")}


async def servers_of(world: VirtualWorld) -> list[IcePeer]:
    return [await IcePeer.open(world.host(f"203.0.113.{number}")) for number in (1, 2)]


def network_of(world: VirtualWorld, kind: str, number: int) -> VirtualNetwork:
    if kind == "public":
        return world.host(f"198.51.100.{number}")
    return NatBox(world, f"198.51.100.{number}", kind).host(f"192.168.{number}.10")


async def meet_behind(world: VirtualWorld, a: str, b: str) -> Meeting:
    servers = await servers_of(world)
    caller = await IcePeer.open(network_of(world, a, 7))
    callee = await IcePeer.open(network_of(world, b, 8))
    return await meet(caller, callee, servers[:1])


@pytest.mark.parametrize(
    ("a", "b"),
    [
        pytest.param(
            a, b, id=f"{a}-{b}",
            marks=pytest.mark.xfail(strict=True, raises=NoPathError, reason="needs guessed ports")
            if (a, b) in IMPOSSIBLE
            else (),
        )
        for a, b in CELLS
    ],
)  # fmt: skip
def test_pair_behind_routers(a: str, b: str) -> None:
    """Each kind of router against each: one round trip after the answer, both sides agree."""

    async def main(world: VirtualWorld) -> None:
        meeting = await meet_behind(world, a, b)
        if meeting.errors:
            raise meeting.errors[0]
        after_answer = meeting.seconds - 0.16
        print(f"{a} x {b}: {meeting.seconds:.3f} s with offer and answer, {after_answer:.3f} s of checks")
        assert after_answer <= 0.2

    run_virtual(main, delay=DELAY_S)
