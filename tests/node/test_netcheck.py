"""What a node finds out about its network, behind every kind of router, with liars among those that help; in virtual
time, with whole nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from support.netcheck import checked
from support.router_verdicts import strictest
from support.virtual_nodes import network_of

from p2pnode import Address, Node
from p2pnode.core.network import TcpStream
from p2pnode.nat.stun import binding_response, parse_stun_untrusted
from p2pnode.netcheck_report import FamilyReport, NetcheckReport
from p2pnode.simulations.routers.kinds import KINDS, RouterKind
from p2pnode.simulations.routers.words import INDEPENDENT
from p2pnode.simulations.virtual import VirtualWorld, run_virtual
from p2pnode.simulations.virtual.links import LaneProfile, LinkProfile

ONE_WAY_S = 0.04
MAX_PACKETS = 80  # of one address family


def report_of(
    kind: RouterKind | str,
    *,
    helpers: int = 5,
    before: Callable[[list[Node]], None] | None = None,
    seed: int = 1,
    loss: float = 0.0,
    wait_s: float = 3.0,
) -> NetcheckReport:
    """Build a world, let a home join, and check; `before`: done to the helpers first."""

    async def main(world: VirtualWorld) -> NetcheckReport:
        async with checked(world, kind, helpers=helpers, settle_s=wait_s) as there:
            if before is not None:
                before(there.helpers)
            world.loss = loss
            report = await there.home.netcheck()
            world.loss = 0.0
            return report

    return run_virtual(main, seed=seed, delay=ONE_WAY_S, keep_trace=False)


def truth(kind: RouterKind) -> dict[str, object]:
    """What must be found of IPv4 where UDP passes."""
    outer = kind.carrier or kind
    hairpin = any(each.hairpin != "off" for each in (kind, kind.carrier) if each is not None)
    mapping = strictest(kind, "mapping")
    return {
        "nat": kind.translates,
        "public": "11.1.0.1",
        "mapping": mapping,
        "filtering": strictest(kind, "filtering"),
        "allocation": outer.ports if kind.ports == "preserving" else kind.ports,
        "step": kind.step if kind.ports == "sequential" else None,
        "hairpin": (hairpin and mapping == INDEPENDENT) if kind.translates else None,
        "firewall": None if kind.translates else False,
    }


def found(family: FamilyReport | None, wanted: dict[str, object]) -> dict[str, object]:
    assert family is not None
    return {name: getattr(family, name) for name in wanted}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_router_is_recognised(name: str) -> None:
    """Mapping, filtering, ports, hairpin, IPv6 and its firewall, UDP blocked, no internet; at a bounded cost."""
    kind = KINDS[name]
    report = report_of(kind)
    print(f"{name}: {report.packets} datagrams, {report.seconds:.1f} s; {[each.code for each in report.advice]}")
    assert report.seconds <= 10
    assert report.packets <= MAX_PACKETS * (1 if kind.ipv6 == "none" else 2)
    if not kind.line:
        assert (report.udp, report.internet) == (None, "no")
    elif not kind.udp:
        assert (report.udp, report.internet) == (False, "yes")
    else:
        assert (report.udp, report.internet) == (True, "yes")
        assert found(report.ipv4, truth(kind)) == truth(kind)
    if kind.ipv6 == "none":
        assert report.ipv6 is None
    else:
        assert report.ipv6 is not None
        assert (report.ipv6.nat, report.ipv6.mapping) == (False, INDEPENDENT)
        assert report.ipv6.firewall is (kind.ipv6 == "firewall")
        assert report.ipv6.filtering == (INDEPENDENT if kind.ipv6 == "open" else kind.ipv6_filtering)
    for family in (report.ipv4, report.ipv6):
        assert family is None or all(family.evidence[each] for each in ("mapping", "filtering", "allocation"))
    asked = {name: name in kind.port_mapping for name in ("nat-pmp", "pcp", "upnp")}
    assert report.portmap == asked
    assert report.evidence["portmap"]
    if kind.udp and kind.line:
        assert report.routers == (0 if not kind.translates else 1 if kind.port_mapping else None)
    codes = [each.code for each in report.advice]
    assert codes[0] == {
        "public": "nothing_to_do", "fullcone": "no_ipv6", "address-restricted": "no_ipv6", "symmetric": "symmetric_nat",
        "symmetric-sequential": "symmetric_nat", "cgnat-symmetric": "symmetric_nat", "udp-blocked": "udp_blocked",
        "tcp-443": "udp_blocked", "offline": "no_internet", "upnp": "no_ipv6",
    }.get(name, "strict_filter")  # fmt: skip


@pytest.mark.parametrize(
    "kind",
    [
        replace(KINDS["symmetric"], mapping="address-dependent"),
        replace(KINDS["symmetric-sequential"], step=2),
        replace(KINDS["symmetric-sequential"], mapping=INDEPENDENT),
        replace(KINDS["fullcone"], ports="random", hairpin="internal"),
        replace(KINDS["symmetric"], filtering=INDEPENDENT),
    ],
    ids=["by-address", "step-2", "independent-sequential", "inside-hairpin", "open-symmetric"],
)
def test_less_common_routers_are_recognised(kind: RouterKind) -> None:
    """Whatever is combined."""
    wanted = truth(kind)
    assert found(report_of(kind, seed=2).ipv4, wanted) == wanted


@pytest.mark.parametrize(("mtu", "largest"), [(1500, 1500), (1492, 1492), (1358, 1340), (1200, None)])
def test_largest_packet_is_found(mtu: int, largest: int | None) -> None:
    """Of the sizes that are tried, what passes the home's line; below all of them it is unknown."""

    async def main(world: VirtualWorld) -> NetcheckReport:
        async with checked(world, "port-restricted") as there:
            assert there.place.router is not None
            lane = LaneProfile(0.001)
            world.set_link(there.place.router, LinkProfile("line", up=lane, down=lane, mtu=mtu))
            return await there.home.netcheck()

    report = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    assert report.ipv4 is not None
    assert report.ipv4.mtu == largest
    assert report.ipv4.evidence["mtu"]


def test_a_login_page_is_recognised() -> None:
    """UDP does not pass, and HTTP to a node is answered by a redirection to somebody else."""

    async def main(world: VirtualWorld) -> NetcheckReport:
        async with checked(world, "udp-blocked") as there:
            for helper in there.helpers[:2]:
                network = network_of(helper)
                await network.listen_tcp(Address("0.0.0.0", 80), lambda stream: tasks.add(portal(stream)))
            return await there.home.netcheck()

    tasks: set[object] = set()

    def portal(stream: TcpStream) -> object:
        async def answer() -> None:
            await stream.read(1000)
            await stream.write(b"HTTP/1.1 302 Found\r\nLocation: http://login.hotel.example/\r\n\r\n")
            stream.close()

        return asyncio.ensure_future(answer())

    report = run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
    assert (report.udp, report.internet) == (None, "captive-portal")
    assert "login.hotel.example" in report.evidence["udp"]
    assert report.advice[0].code == "captive_portal"


def test_two_routers_in_a_row_show_where_the_inner_one_speaks() -> None:
    """What it calls its outside address is not how the world sees us; without a router nobody is asked."""
    for protocol in ("nat-pmp", "upnp"):
        kind = replace(KINDS["upnp"], port_mapping=frozenset((protocol,)), carrier=KINDS["cgnat"].carrier)
        report = report_of(kind)
        assert report.routers == 2
        assert report.portmap == {name: name == protocol for name in ("nat-pmp", "pcp", "upnp")}
        assert "double_nat" in [each.code for each in report.advice]


def test_with_one_other_node_only_it_is_unknown() -> None:
    """One node's word is not enough for anything but that UDP passes."""
    for name in ("fullcone", "symmetric", "public"):
        report = report_of(name, helpers=1)
        assert report.udp is True
        assert report.ipv4 is not None
        words = (report.ipv4.mapping, report.ipv4.allocation, report.ipv4.public, report.ipv4.nat)
        assert words == ("unknown", "unknown", None, None)
        assert report.ipv4.filtering == "unknown"
        assert report.ipv4.hairpin is None
        assert "two" in report.ipv4.evidence["mapping"]
        assert report.advice[0].code == "too_few_nodes"


@pytest.mark.parametrize("name", ["fullcone", "address-restricted", "port-restricted", "symmetric", "public"])
def test_with_two_other_nodes_it_is_known(name: str) -> None:
    """Two that agree are enough."""
    wanted = truth(KINDS[name])
    assert found(report_of(name, helpers=2).ipv4, wanted) == wanted


def lie(helper: Node, port: Callable[[Address], int]) -> None:
    """Tell everybody another port than is seen; agree to probes, and send nothing."""

    def answer(data: bytes, source: Address) -> bytes:
        return binding_response(parse_stun_untrusted(data).transaction_id, Address(source.ip, port(source)))

    helper.reaching._stun.answer_untrusted = answer  # type: ignore[method-assign]
    helper.dht.probing.answer = answer
    helper.dht._engine.probes.open_fresh = lambda _frame, _to, opened: opened(61_000)


LIES: dict[str, Callable[[Address], int]] = {
    "always-the-same": lambda _source: 5555,
    "always-another": lambda source: 1024 + (source.port * 7919) % 60_000,
    "the-next": lambda source: source.port % 60_000 + 1025,
}


@pytest.mark.parametrize("name", ["fullcone", "address-restricted", "symmetric"])
@pytest.mark.parametrize("how", LIES)
def test_a_liar_among_five_helpers_changes_no_verdict(name: str, how: str) -> None:
    """Asked first, or only how it sees us."""
    wanted = truth(KINDS[name])
    for number in (0, 4):
        report = report_of(name, before=lambda nodes, n=number: lie(nodes[n], LIES[how]))  # type: ignore[misc]
        assert found(report.ipv4, wanted) == wanted, number


@pytest.mark.parametrize("name", ["fullcone", "symmetric"])
@pytest.mark.parametrize("how", ["always-the-same", "always-another"])
def test_two_liars_among_five_make_nothing_false(name: str, how: str) -> None:
    """At worst something is unknown."""

    def both(nodes: list[Node]) -> None:
        lie(nodes[0], LIES[how])
        lie(nodes[1], LIES[how])

    wanted = truth(KINDS[name])
    family = report_of(name, before=both).ipv4
    for field, value in wanted.items():
        assert getattr(family, field) in (value, "unknown", None), field


def test_loss_makes_nothing_false() -> None:
    """At 10 % loss each way: right in most runs, and else unknown."""
    right = total = 0
    for name in ("fullcone", "address-restricted", "symmetric"):
        wanted = truth(KINDS[name])
        for seed in range(2):
            family = report_of(name, seed=seed, loss=0.1).ipv4
            for field in ("mapping", "filtering", "allocation"):
                total += 1
                right += getattr(family, field) == wanted[field]
    print(f"{right} of {total} verdicts right at 10 % loss")
    assert right >= 0.9 * total


def test_who_asks_while_it_runs_gets_the_same_report() -> None:
    """One check at a time; a node that stops says so."""

    async def main(world: VirtualWorld) -> None:
        async with checked(world, "port-restricted") as there:
            one, other = await asyncio.gather(there.home.netcheck(), there.home.netcheck())
            assert one is other
            assert (await there.home.netcheck()) is not one

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False)
