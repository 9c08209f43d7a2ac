"""Every kind of router is what it is called: probed in virtual time, with packets only."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.router_verdicts import differences, expected

from p2pnode.simulations.probing import ProbeServer, ProbeServers, ProbeSettings, Verdict, probe
from p2pnode.simulations.routers.kinds import KINDS, RouterKind, kind_named
from p2pnode.simulations.routers.words import ADDRESS, INDEPENDENT
from p2pnode.simulations.virtual import VirtualWorld, run_virtual
from p2pnode.simulations.virtual.router import Home

SERVERS = ProbeServers(("203.0.113.1", "203.0.113.2"), ips6=("2001:db8::1", "2001:db8::2"))
ROUND_TRIP_S = 0.042


def verdict_of(kind: RouterKind, settings: ProbeSettings | None = None, *, seed: int = 1, loss: float = 0.0) -> Verdict:
    """Probe a home of this kind in a world of its own, 40 ms from the servers there and back."""

    async def main(world: VirtualWorld) -> Verdict:
        server = await ProbeServer.open(world.host(*SERVERS.ips, *SERVERS.ips6), SERVERS)
        home = Home.build(world, kind, "198.51.100.1", "198.51.100.2", prefix6="2001:db8:1::/64")
        world.loss = loss
        verdict = await probe(home.host(), SERVERS, settings)
        server.close()
        return verdict

    return run_virtual(main, seed=seed, delay=0.02, keep_trace=False, until=None)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_what_it_is_called(name: str) -> None:
    """Mapping, filtering, ports, hairpin, TCP, IPv6, refresh and port-mapping protocols; lifetimes to a round trip."""
    kind = KINDS[name]
    verdict = verdict_of(kind, ProbeSettings(lifetime_max_s=100.0, lifetime_step_s=0.2))
    assert not differences(verdict, expected(kind))
    print(f"{name}: {verdict.to_json()}")
    if not verdict.udp:
        assert verdict.lifetime_s is None
        return
    assert verdict.lifetime_s is not None
    low, high = verdict.lifetime_s
    if kind.translates:
        assert low <= kind.udp_lifetime_s <= high
        assert high - low <= 0.2 + 3 * ROUND_TRIP_S
    else:
        assert (low, high) == (100.0, float("inf"))


@pytest.mark.parametrize("seed", range(5))
def test_verdict_does_not_depend_on_chance(seed: int) -> None:
    """Another seed, other random ports: the same verdict for the kinds that draw lots."""
    for name in ("symmetric", "symmetric-sequential", "cgnat", "cgnat-symmetric"):
        wanted = {**expected(KINDS[name]), "inbound_refresh": None}  # not asked here
        assert not differences(verdict_of(KINDS[name], seed=seed), wanted)


@pytest.mark.parametrize("lifetime", [5.0, 30.0, 120.0, 300.0])
@pytest.mark.parametrize("inbound", [True, False])
def test_lifetime_and_refresh_are_found(lifetime: float, inbound: bool) -> None:
    """By a handful of rounds, whatever keeps mappings alive; what lives longer than was tried is said to be open."""
    kind = replace(KINDS["symmetric"], inbound_refresh=inbound, udp_lifetime_s=lifetime)
    verdict = verdict_of(kind, ProbeSettings(lifetime_max_s=200.0, lifetime_step_s=0.5))
    assert verdict.lifetime_s is not None
    low, high = verdict.lifetime_s
    assert low <= lifetime <= high
    if lifetime > 200:
        assert (low, high, verdict.inbound_refresh) == (200.0, float("inf"), None)
        assert verdict.to_json()["lifetime_s"] == [200.0, None]
    else:
        assert high - low <= 0.7
        assert verdict.inbound_refresh is inbound


@pytest.mark.parametrize("step", [1, 2, 4, 8])
def test_sequences_of_ports_are_found(step: int) -> None:
    """With their step, also where one mapping serves all destinations."""
    for mapping in (INDEPENDENT, "address-and-port-dependent"):
        kind = replace(KINDS["symmetric-sequential"], step=step, mapping=mapping)
        verdict = verdict_of(kind)
        assert (verdict.mapping, verdict.allocation, verdict.step) == (mapping, "sequential", step)


def test_less_common_routers_are_told_apart() -> None:
    """Mapping by address, a hairpin with the inside address, arbitrary pooling, an open or laxer IPv6."""
    assert verdict_of(replace(KINDS["symmetric"], mapping=ADDRESS)).mapping == ADDRESS
    inside = verdict_of(replace(KINDS["fullcone"], hairpin="internal"))
    assert (inside.hairpin, inside.hairpin_source) == (True, "internal")
    assert verdict_of(KINDS["hairpin"]).hairpin_source == "external"
    pooled = verdict_of(replace(KINDS["symmetric"], pool=2, pooling="arbitrary"))
    assert sorted(pooled.public_ips) == ["198.51.100.1", "198.51.100.2"]
    assert verdict_of(replace(KINDS["ipv6-firewall"], ipv6="open")).ipv6 == "open"
    assert verdict_of(replace(KINDS["ipv6-firewall"], ipv6_filtering=ADDRESS)).ipv6_filtering == ADDRESS


def test_two_routers_in_a_row_show_by_what_the_inner_one_says() -> None:
    """UPnP names an outside address that is not how the world sees us."""
    assert verdict_of(KINDS["upnp"]).routers == 1
    assert verdict_of(replace(KINDS["upnp"], carrier=KINDS["cgnat"].carrier)).routers == 2
    assert verdict_of(KINDS["cgnat"]).routers is None
    assert verdict_of(KINDS["public"]).routers == 0
    for protocol in ("nat-pmp", "upnp"):
        kind = replace(KINDS["upnp"], port_mapping=frozenset((protocol,)), carrier=KINDS["cgnat"].carrier)
        verdict = verdict_of(kind)
        assert (verdict.routers, verdict.nat_pmp, verdict.pcp) == (2, protocol == "nat-pmp", False)
        assert verdict.upnp is (protocol == "upnp")


def test_unasked_is_unknown() -> None:
    """What is switched off, or cannot be asked, is unknown and not guessed."""
    settings = ProbeSettings(hairpin=False, tcp=False, port_mapping=False)
    verdict = verdict_of(kind_named("upnp"), settings)
    assert (verdict.hairpin, verdict.tcp, verdict.upnp, verdict.lifetime_s) == (None, None, None, None)
    assert verdict.mapping == INDEPENDENT


@pytest.mark.slow
def test_some_loss_is_survived() -> None:
    """With 10 % lost each way three tries in 3 s find the same in nine of ten runs at least."""
    kind = KINDS["address-restricted"]
    wanted = {name: expected(kind)[name] for name in ("udp", "nat", "mapping", "filtering", "allocation")}
    good = sum(not differences(verdict_of(kind, seed=seed, loss=0.1), wanted) for seed in range(20))
    print(f"{good} of 20 verdicts right at 10 % loss")
    assert good >= 18


def test_no_answer_at_all() -> None:
    """A host without a network, and a server that is not there: unknown, and no exception."""

    async def main(world: VirtualWorld) -> tuple[Verdict, Verdict]:
        alone = await probe(world.host(), SERVERS)
        return alone, await probe(world.host("198.51.100.9"), SERVERS)

    alone, far = run_virtual(main)
    assert (alone.own, alone.udp, alone.mapping) == (None, False, "unknown")
    assert (far.udp, far.mapping, far.tcp) == (False, "unknown", ())
