"""Many nodes on public addresses of the virtual world: whole nodes, or their DHTs alone.

Keys, addresses and arrival times come from the run's seed. Hosts stand at random public IPv4 addresses, as volunteers'
machines do: most address blocks then hold one node, a few hold two.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from typing import Any

from p2pnode import AccountKey, Node, NodeKey, NodeSettings, PeerSpec
from p2pnode.core.address import Address, Realm, Scope, scope_of
from p2pnode.core.errors import P2PError
from p2pnode.core.network import DatagramSocket
from p2pnode.dht import Dht, DhtSettings, KnownContact
from p2pnode.simulations.harness.scenario import Run
from p2pnode.simulations.virtual import VirtualNetwork

__all__ = ["BOOTSTRAP_NODES", "Member", "Population"]

PORT = 4747
BOOTSTRAP_NODES = 3


class Member:
    """One node of a population. `node` is None when only its DHT runs. `joined_s`: seconds until it was usable."""

    def __init__(self, network: VirtualNetwork, address: Address, key: NodeKey) -> None:
        self.network, self.address, self.key = network, address, key
        self.node: Node | None = None
        self.dht: Dht
        self.joined_s: float | None = None
        self.alive = True
        self.is_bootstrap = False
        self._socket: DatagramSocket | None = None

    @property
    def contact(self) -> KnownContact:
        return KnownContact(self.key.peer_id, self.key.node_id, self.address)

    @property
    def spec(self) -> PeerSpec:
        """`ID@HOST:PORT`, as people hand it around."""
        peer = self.key.peer_id
        return PeerSpec(f"{peer}@{self.address}", peer=peer, hosts=((self.address.ip, self.address.port),))

    @property
    def datagrams(self) -> int:
        """Datagrams of the DHT in and out so far."""
        counters = self.dht.statistics()
        return sum(counters.datagrams_in.values()) + sum(counters.datagrams_out.values())

    @property
    def traffic_bytes(self) -> int:
        counters = self.dht.statistics()
        return counters.bytes_in + counters.bytes_out

    async def start_node(self, through: Sequence[Member], account: AccountKey, **settings: Any) -> None:
        """Run a whole node. Raise P2PError."""
        options: dict[str, Any] = {
            "lan": False,  # a host at a public address has no LAN to ask
            "listen": (Address("0.0.0.0", PORT),),
            "listen_explicit": True,
            "bootstrap": tuple(member.spec for member in through),
            "role": "bootstrap" if self.is_bootstrap else "peer",
        }
        self.node = Node(
            key=self.key, account=account, settings=NodeSettings(**{**options, **settings}), network=self.network
        )
        self.dht = self.node.dht
        began = self.network.monotonic()
        await self.node.start()
        if through and self.dht.realms():
            self.joined_s = self.network.monotonic() - began

    async def start_dht(self, through: Sequence[Member], settings: DhtSettings) -> None:
        """Run the DHT alone, as a server."""
        self._socket = await self.network.open_udp(self.address, self._received)
        self.dht = Dht(key=self.key, network=self.network, settings=settings, send=self._socket.send)
        await self.dht.start()
        if through:
            began = self.network.monotonic()
            if await self.dht.bootstrap([member.contact for member in through]):
                self.joined_s = self.network.monotonic() - began

    async def stop(self) -> None:
        """Leave politely."""
        self.alive = False
        if self.node is not None:
            await self.node.stop()
        elif self._socket is not None:
            await self.dht.stop()
            self._socket.close()

    def _received(self, data: bytes, source: Address) -> None:
        self.dht.datagram_received(data, source)

    def kill(self) -> None:
        """The machine is gone, without a word. What runs on it is cleaned up at the end."""
        self.alive = False
        self.network.host.up = False


class Population:
    """The nodes of a run. The first three are bootstrap nodes, known to all others."""

    def __init__(self, run: Run[Any], *, full: bool = True, dht: DhtSettings | None = None) -> None:
        """`full`: whole nodes (joining, presence, sessions); else DHT servers with the settings `dht`."""
        self._run = run
        self._full = full
        self._dht = DhtSettings(serve=frozenset(Realm)) if dht is None else dht
        self._rng = random.Random(f"{run.seed}/population")
        self._taken: set[str] = set()
        self.members: list[Member] = []

    @property
    def alive(self) -> list[Member]:
        return [member for member in self.members if member.alive]

    @property
    def bootstrap_nodes(self) -> list[Member]:
        return self.members[:BOOTSTRAP_NODES]

    async def grow(self, count: int, *, seconds: float, phase: str = "joining", **settings: Any) -> list[Member]:
        """Let `count` more nodes join, at random moments within `seconds`; return them once each has tried."""
        self._run.progress.phase(phase, count)
        new: list[Member] = []
        while len(self.members) < BOOTSTRAP_NODES and len(new) < count:
            member = self._make()
            member.is_bootstrap = True
            self.members.append(member)
            new.append(member)
            await self._start(member, self.members[: len(new) - 1], settings)
        later = [self._make() for _ in range(count - len(new))]
        moments = sorted(self._rng.uniform(0, seconds) for _ in later)
        self.members += later
        loop = self._run.world.loop
        began = loop.time()
        async with asyncio.TaskGroup() as tasks:
            for member, moment in zip(later, moments, strict=True):
                await asyncio.sleep(max(0.0, began + moment - loop.time()))
                tasks.create_task(self._start(member, self.bootstrap_nodes, settings))
        return new + later

    async def join_one(self, **settings: Any) -> Member:
        """Let one more node join."""
        member = self._make()
        self.members.append(member)
        await self._start(member, self.bootstrap_nodes, settings)
        return member

    async def settle(self, seconds: float, phase: str = "settling") -> None:
        """Let the network run."""
        steps = 20
        self._run.progress.phase(phase, steps)
        for _ in range(steps):
            await asyncio.sleep(seconds / steps)
            self._run.progress.advance()

    async def stop(self) -> None:
        """End all nodes: the hosts go first, so that nobody says goodbye to thousands."""
        for member in self.members:
            member.kill()
        await asyncio.gather(*(member.stop() for member in self.members))

    def sample(self, count: int, among: Iterable[Member] | None = None) -> list[Member]:
        """Return `count` different members, drawn from the living ones by default."""
        pool = self.alive if among is None else list(among)
        return self._rng.sample(pool, min(count, len(pool)))

    def choice(self, among: Sequence[Member]) -> Member:
        return self._rng.choice(among)

    async def _start(self, member: Member, through: Sequence[Member], settings: dict[str, Any]) -> None:
        try:
            if self._full:
                account = AccountKey.generate(self._rng.randbytes)
                await member.start_node(through, account, **settings)
            else:
                await member.start_dht(through, self._dht)
        except P2PError as error:
            self._run.note(f"A node could not start: {error.message}")
            member.alive = False
        if member.joined_s is not None:
            self._run.sample("join_s", member.joined_s)
        self._run.progress.advance()

    def _make(self) -> Member:
        ip = self._free_ip()
        network = self._run.world.host(ip)
        return Member(network, Address(ip, PORT), NodeKey.generate(self._rng.randbytes))

    def _free_ip(self) -> str:
        while True:
            a, b, c, d = self._rng.randbytes(4)
            ip = f"{a}.{b}.{c}.{d}"
            if ip not in self._taken and scope_of(ip) is Scope.PUBLIC:
                self._taken.add(ip)
                return ip
