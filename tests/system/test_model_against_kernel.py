"""The router models do what the kernel does: the same probes through both, and the verdicts agree, kind by kind.

Neither side is compared with an expectation here: only with the other. Each has its own proof elsewhere
(test_probing_kinds.py, test_lab_network.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from support.lab import require_lab

from p2pnode.core.address import Address
from p2pnode.simulations.netns import KINDS as LAB_KINDS
from p2pnode.simulations.netns import Lab, LabSettings
from p2pnode.simulations.netns.probes import LabProbeServer, probe_host
from p2pnode.simulations.netns.spaces import Space
from p2pnode.simulations.probing import ProbeServer, ProbeServers, ProbeSettings, Verdict, probe
from p2pnode.simulations.routers.kinds import KINDS, kind_named
from p2pnode.simulations.virtual import VirtualWorld, run_virtual
from p2pnode.simulations.virtual.router import Home, VirtualRouter

pytestmark = [pytest.mark.namespace, pytest.mark.slow]

DELAY_S, MAPPING_S = 0.01, 3.0
SERVERS = ProbeServers(("203.0.113.250", "198.51.100.250"), ips6=("2001:db8:fff0::1", "2001:db8:fff0::2"))
SETTINGS = ProbeSettings(wait_s=1.2, lifetime_max_s=6.0, lifetime_step_s=0.7)
COMPARED = (
    "udp", "nat", "mapping", "filtering", "allocation", "step", "hairpin", "hairpin_source", "inbound_refresh", "tcp",
    "tcp_blocked", "ipv6", "ipv6_filtering", "routers", "nat_pmp", "pcp", "upnp",
)  # fmt: skip


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A home of each kind, and the probe server beside them."""
    require_lab()
    with Lab(LabSettings(delay_s=DELAY_S, mapping_s=MAPPING_S)) as made:
        yield made


@pytest.fixture(scope="module")
def models() -> dict[str, Verdict]:
    """What probes find behind the models: one world after another, as they share this process's entropy."""
    return {name: model(name) for name in LAB_KINDS}


@pytest.fixture(scope="module")
def kernel(lab: Lab, models: dict[str, Verdict]) -> dict[str, Verdict]:
    """What probes find behind the kernel's routers."""
    hosts = {name: lab.home(name, name) for name in LAB_KINDS}
    space = Space(ipv6=True)
    lab.wire.connect(space, "probe", [*SERVERS.ips, *SERVERS.ips6], delay_s=DELAY_S, loss=0.0)
    server = LabProbeServer(space, SERVERS)

    def ask(name: str) -> Verdict:
        """A verdict that differs is asked for again with more patience: a busy machine answers late."""
        verdict = probe_host(hosts[name], SERVERS, SETTINGS)
        if disagreement(verdict, models[name]):
            verdict = probe_host(hosts[name], SERVERS, replace(SETTINGS, wait_s=4.0))
        return verdict

    try:
        warm_up = ProbeSettings(tcp=False, port_mapping=False, hairpin=False)
        probe_host(hosts["public"], SERVERS, warm_up)  # the links are up before anything counts
        with ThreadPoolExecutor(len(hosts)) as pool:
            return dict(zip(hosts, pool.map(ask, hosts), strict=True))
    finally:
        server.close()
        space.close()


def model(name: str) -> Verdict:
    """What the same probe finds behind the model of the same kind, with the same delays and lifetimes."""

    async def main(world: VirtualWorld) -> Verdict:
        await ProbeServer.open(world.host(*SERVERS.ips, *SERVERS.ips6), SERVERS)
        kind = kind_named(name).with_lifetime(MAPPING_S)
        home = Home.build(world, kind, "11.0.0.1", "11.0.0.2", prefix6="2001:db8:1::/64")
        return await probe(home.host(), SERVERS, SETTINGS)

    return run_virtual(main, delay=2 * DELAY_S, keep_trace=False, until=None)


def test_every_kind_of_the_laboratory_has_a_model() -> None:
    """And the other way round, but for the plain masquerade, which is compared below."""
    assert set(KINDS) - {"masquerade"} == set(LAB_KINDS)


@pytest.mark.parametrize("name", LAB_KINDS)
def test_model_and_kernel_agree(kernel: dict[str, Verdict], models: dict[str, Verdict], name: str) -> None:
    """All that a probe can find out is the same; lifetimes overlap."""
    theirs, ours = kernel[name], models[name]
    print(f"{name}\n  kernel {theirs.to_json()}\n  model  {ours.to_json()}")
    assert not disagreement(theirs, ours), name


def disagreement(theirs: Verdict, ours: Verdict) -> dict[str, tuple[object, object]]:
    """Return what differs: field to (kernel, model). Ports and addresses may; lifetimes must overlap."""
    found = {
        field: (getattr(theirs, field), getattr(ours, field))
        for field in COMPARED
        if getattr(theirs, field) != getattr(ours, field)
    }
    if len(theirs.public_ips) != len(ours.public_ips):
        found["public_ips"] = (theirs.public_ips, ours.public_ips)
    one, other = theirs.lifetime_s, ours.lifetime_s
    if (one is None) is not (other is None) or (one and other and max(one[0], other[0]) > min(one[1], other[1])):
        found["lifetime_s"] = (one, other)
    return found


PORT, LONG_S = 5000, 120.0
VISITS = [(0, (0, 1, 2)), (1, (0, 1, 2)), (2, (3, 0, 1, 2))]
"""Which host goes to which destinations, in order. The third one begins with one that nobody else goes to."""


@pytest.mark.parametrize("name", ["port-restricted", "masquerade"])
def test_three_hosts_with_one_port(name: str) -> None:
    """Behind one router, from the same private port: as whom each is seen by each destination, in both worlds.

    The ports that are drawn differ; compared is which are the private one, and which are equal to each other.
    """
    require_lab()
    with Lab(LabSettings(delay_s=DELAY_S, mapping_s=LONG_S)) as lab:
        theirs, ours = kernel_views(lab, name), model_views(name)
    print(f"{name}: kernel {theirs}, model {ours}")
    assert shape(theirs) == shape(ours)
    shared = shape(ours)[2] == ["kept", "other 0", "other 0", "other 0"]
    assert shared is (name == "masquerade")


def shape(views: list[list[int]]) -> list[list[str]]:
    """Each host's ports: kept, or the how-manieth other one of this host."""
    found = []
    for ports in views:
        others = list(dict.fromkeys(port for port in ports if port != PORT))
        found.append(["kept" if port == PORT else f"other {others.index(port)}" for port in ports])
    return found


def kernel_views(lab: Lab, name: str) -> list[list[int]]:
    router = lab.router(f"three-{name}", "port-restricted")
    if name == "masquerade":
        router.space.nft(
            "table ip lab\ndelete table ip lab\ntable ip lab {\n"
            '  chain input { type filter hook input priority filter; iifname "wan0" ct state new drop; }\n'
            '  chain out { type nat hook postrouting priority srcnat; oifname "wan0" masquerade; }\n}\n'
        )
    remote = lab.public(f"remote-{name}")
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(remote.udp_socket(7000 + i)) for i in range(4)]
        seen = []
        for number, destinations in VISITS:
            made = stack.enter_context(lab.behind(router, f"three-{name}-{number}").udp_socket(PORT))
            seen.append(
                [view(made, servers[i], (remote.ip, 7000 + i), f"{number} to {i}".encode()) for i in destinations]
            )
        return seen


def view(made: socket.socket, server: socket.socket, to: tuple[str, int], question: bytes) -> int:
    """As which port a server sees a socket. The first packets of a new link may be lost; late ones are of others."""
    server.settimeout(1.0)
    for _ in range(10):
        made.sendto(question, to)
        with contextlib.suppress(TimeoutError):
            while True:
                data, source = server.recvfrom(100)
                if data == question:
                    return int(source[1])
    raise AssertionError("nothing arrives")


def model_views(name: str) -> list[list[int]]:
    async def main(world: VirtualWorld) -> list[list[int]]:
        router = VirtualRouter(world, kind_named(name).with_lifetime(LONG_S), "11.0.0.1")
        remote = world.host("203.0.113.9")
        seen: list[list[int]] = []
        for i in range(4):
            await remote.open_udp(Address("0.0.0.0", 7000 + i), lambda _data, source: seen[-1].append(source.port))
        for number, destinations in VISITS:
            made = await router.host(f"192.168.1.{10 + number}").open_udp(Address("0.0.0.0", PORT), lambda *_: None)
            seen.append([])
            for i in destinations:
                made.send(b"who am I?", Address("203.0.113.9", 7000 + i))
                await asyncio.sleep(0.1)
        return seen

    return run_virtual(main)
