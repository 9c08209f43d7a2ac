"""A bootstrap node as a real process under a flood, on real sockets (security.md B1)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.flood import GARBAGE_PER_S, Flood, Target
from support.lab import require_lab
from support.processes import Peer, processes

from p2pnode.core.address import Address
from p2pnode.core.ids import PeerId
from p2pnode.core.network_id import network_tag
from p2pnode.dht import DhtSettings
from p2pnode.simulations.netns.spaces import Space

pytestmark = [pytest.mark.namespace, pytest.mark.slow]

SECONDS = 8.0
ADDRESS = Address("5.255.255.1", 4747)


@pytest.fixture
def space() -> Iterator[Space]:
    """A namespace in which the whole of 5.0.0.0/8 is ours."""
    require_lab()
    made = Space()
    try:
        made.ip("route add local 5.0.0.0/8 dev lo")
        yield made
    finally:
        made.close()


def lost_in_the_buffer(space: Space) -> int:
    """Return how many datagrams found the node's receive buffer full: the last column of /proc/net/udp."""

    def read() -> int:
        lines = Path("/proc/thread-self/net/udp").read_text().splitlines()[1:]
        return sum(int(line.split()[-1]) for line in lines if line.split()[1].endswith(f":{ADDRESS.port:04X}"))

    return space.run(read)


def prefer(pid: int) -> None:
    """Let this process run before others, where we may: what is tested is the node, not this machine's other work."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))


def test_b1_valid_requests_are_answered_under_a_flood_of_garbage(space: Space, tmp_path: Path) -> None:
    """20,000 datagrams/s from 1,000 /24s, a quarter well-framed with false signatures; 99 % of 1,000/s and 50/s hold.

    Each request is sent once: a real node would repeat it twice.
    """
    with processes(tmp_path) as running:
        boot: Peer = space.run(lambda: running.bootstrap("boot", listen=str(ADDRESS)))
        target = Target(ADDRESS, PeerId.parse(boot.id), network_tag(DhtSettings().network_id, b""))
        node = psutil.Process(boot.process.pid)
        flood = space.run(lambda: Flood(target, SECONDS))
        for pid in (node.pid, *flood.pids):
            prefer(pid)
        before, memory = node.cpu_times(), node.memory_info().rss
        garbage, known, new, tokens = flood.run()
        after, grown = node.cpu_times(), node.memory_info().rss - memory
        cpu = after.user + after.system - before.user - before.system
        rate = garbage.sent / garbage.seconds
        print(
            f"B1: {rate:.0f} garbage datagrams/s (of {GARBAGE_PER_S}), {lost_in_the_buffer(space)} found the buffer "
            f"full; known nodes: {known.share:.2%} of {known.asked} answered in "
            f"{known.percentile_ms(0.5):.1f} ms (p99 {known.percentile_ms(0.99):.0f}); new nodes: {new.share:.2%} of "
            f"{new.asked}, {tokens} with a token; the node took {cpu / garbage.seconds:.0%} of a core and "
            f"{grown / 1e6:.1f} MB"
        )
        dropped = space.run(lambda: boot.cli("dht", "--json")).json["drops"]
        print("dropped by reason:", ", ".join(f"{reason} {count}" for reason, count in dropped.items()))
        assert boot.process.poll() is None
        assert known.share >= 0.99
        assert new.share >= 0.99
