"""TLS links as `status` and `peers -v` show them: whose, through a proxy, bytes; whole nodes in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import msgspec
import pytest
from support.api import FakeChat
from support.connect_proxy import ConnectProxy
from support.street import ONE_WAY_S, reach, street

from p2pnode import Node
from p2pnode.api import types as t
from p2pnode.api.metrics import metrics_text
from p2pnode.api.node_routes import get_status, list_peers
from p2pnode.api.service import Service
from p2pnode.chat import ChatStore
from p2pnode.cli.link_text import link_line, links_line, links_table
from p2pnode.simulations.routers.kinds import kind_named
from p2pnode.simulations.virtual import VirtualWorld, run_virtual
from p2pnode.simulations.virtual.router import Home


async def asked(node: Node) -> tuple[t.Status, t.Peers]:
    """What the API answers, as a client reads it."""
    store = await ChatStore.open(None)
    service = Service(node, cast("Any", FakeChat(cast("Any", node), store)))
    status, peers = await get_status(service, None), await list_peers(service, None)
    await store.close()
    return (
        msgspec.json.decode(msgspec.json.encode(status), type=t.Status),
        msgspec.json.decode(msgspec.json.encode(peers), type=t.Peers),
    )


def test_both_ends_of_each_link_are_told() -> None:
    """Ours to public nodes, theirs at those nodes, the punched one at both peers; the session names the one it uses."""

    async def main(world: VirtualWorld) -> None:
        async with street(world) as there:
            a, b = await there.home_of("udp-blocked"), await there.home_of("udp-blocked")
            await asyncio.sleep(5)
            await reach(world, a, b)
            relayed = (await asked(a))[1].peers[0]
            assert relayed.path == "relay"
            assert relayed.link is not None
            assert relayed.link.kind == "ours"
            await asyncio.sleep(10)
            await a.session(b.peer_id).ping()  # type: ignore[union-attr]

            public = {str(node.peer_id): str(node.addresses()[0]) for node in there.public}
            for node, other in ((a, b), (b, a)):
                status, peers = await asked(node)
                ours = [link for link in peers.links if link.kind == "ours"]
                assert ours
                assert {link.peer: link.address for link in ours}.items() <= public.items()
                [punched] = [link for link in peers.links if link.kind == "punched"]
                assert punched.peer == str(other.peer_id)
                assert peers.peers[0].link is not None
                assert peers.peers[0].link.address == punched.address
                assert not any(link.proxy or link.dropped for link in peers.links)
                assert all(link.bytes_sent > 0 and link.bytes_received > 0 for link in peers.links)
                assert status.links.ours == len(ours)
                assert (status.links.theirs, status.links.punched, status.links.proxied) == (0, 1, 0)
                assert status.links.bytes_sent == sum(link.bytes_sent for link in peers.links)
                assert f'p2pnode_tls_links{{kind="ours"}} {len(ours)}\n' in metrics_text(node)
            theirs = [link for node in there.public for link in (await asked(node))[1].links]
            assert {link.kind for link in theirs} == {"theirs"}
            assert {link.address.partition(":")[0] for link in theirs} == {"11.20.0.1", "11.21.0.1"}

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False)


def test_a_link_through_a_proxy_says_so() -> None:
    """Address and key are those of the node behind the proxy."""

    async def main(world: VirtualWorld) -> None:
        async with street(world, tls_port=443) as there:
            await ConnectProxy.open(world.host("9.200.0.1"), "alice:secret")
            home = Home.build(world, replace(kind_named("tcp-443"), tcp_ports=(3128,)), "11.9.0.1", "11.9.0.2")
            a = await there.start(home.host(), proxy="http://alice:secret@9.200.0.1:3128")
            status, peers = await asked(a)
            assert {link.address for link in peers.links} == {f"9.{n}.0.1:443" for n in range(3)}
            assert {link.peer for link in peers.links} == {str(node.peer_id) for node in there.public[:3]}
            assert all(link.proxy for link in peers.links)
            assert status.links.proxied == status.links.ours == 3

    run_virtual(main, delay=ONE_WAY_S, keep_trace=False)


LINK = t.LinkInfo(
    kind="ours", peer="12D3KooW", address="203.0.113.9:443", proxy=True, age_s=61.0, bytes_sent=81_000,
    bytes_received=0, dropped=0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ((0, 0, 0, 0), "none"),
        ((3, 0, 0, 3), "3 to public nodes, 3 through a proxy: 2.0 kB"),
        ((0, 12, 1, 0), "12 of others to us, 1 punched: 2.0 kB"),
    ],
)
def test_status_counts_links(counts: tuple[int, int, int, int], text: str) -> None:
    ours, theirs, punched, proxied = counts
    summary = t.LinkSummary(
        ours=ours, theirs=theirs, punched=punched, proxied=proxied, bytes_sent=1_000, bytes_received=1_000
    )
    assert links_line(summary) == text


def test_peers_lists_links() -> None:
    """A line of the session's own, and the table of all; who has not proven himself is a dash."""
    assert link_line(LINK) == "by TLS to 203.0.113.9:443 through the proxy: 81.0 kB sent, 0 B received"
    lines = links_table([LINK, msgspec.structs.replace(LINK, kind="theirs", peer=None, proxy=False)])
    assert lines[0].split() == ["TLS", "LINK", "PEER", "ADDRESS", "PROXY", "OPEN", "SENT", "RECEIVED"]
    assert lines[1].split()[:4] == ["ours", "12D3KooW", "203.0.113.9:443", "yes"]
    assert lines[2].split()[:4] == ["theirs", "-", "203.0.113.9:443", "no"]
