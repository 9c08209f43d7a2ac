"""Many nodes on public addresses of the virtual world: whole nodes, or their DHTs alone.

Keys, addresses and arrival times come from the run's seed. Hosts stand at random public IPv4 addresses, as volunteers'
machines do: most address blocks then hold one node, a few hold two.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from msgspec import Meta

from p2pnode import AccountKey, Node, NodeKey, NodeSettings, PeerSpec
from p2pnode.core.address import Address, Realm, Scope, scope_of
from p2pnode.core.errors import P2PError
from p2pnode.core.network import DatagramSocket
from p2pnode.dht import Dht, DhtSettings, KnownContact
from p2pnode.simulations.harness.scenario import NetworkSettings, Run
from p2pnode.simulations.routers.kinds import RouterKind, kind_named
from p2pnode.simulations.routers.population import POPULATIONS
from p2pnode.simulations.virtual import VirtualHost, VirtualNetwork
from p2pnode.simulations.virtual.router import Home

__all__ = ["BOOTSTRAP_NODES", "Member", "Population", "PopulationSettings"]

PORT = 4747
BOOTSTRAP_NODES = 3
CIPHERS_AT_HAND = 16  # of each of thousands: a third of a node's memory for 1 % of its time
MADE_AT_ONCE = 100  # keys of thousands take seconds, and no step of the loop may


class PopulationSettings(NetworkSettings, frozen=True, kw_only=True):
    """What the nodes of a scenario are."""

    full: Annotated[bool, Meta(description="whole nodes; false: DHT servers alone")] = True
    behind: Annotated[float, Meta(ge=0, le=1, description="share of the nodes behind routers")] = 0.0
    routers: Annotated[str, Meta(description="their kind, or a population of kinds: field, tribler-2010")] = "field"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.routers not in POPULATIONS and not kind_named(self.routers).translates:
            raise ValueError("routers: nobody is behind a router of kind public")
        if self.behind and not self.full:
            raise ValueError("behind: only whole nodes can be behind routers, but full is false")


class Member:
    """One node of a population. `node` is None when only its DHT runs. `joined_s`: seconds until it was usable."""

    def __init__(self, network: VirtualNetwork, address: Address, key: NodeKey, router: str = "public") -> None:
        """`router`: the kind in front of it."""
        self.network, self.address, self.key, self.router = network, address, key, router
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

    @property
    def hosts(self) -> list[VirtualHost]:
        """Its host and the routers in front of it."""
        found: list[VirtualHost] = [self.network.host]
        while found[-1].gateway is not None:
            found.append(found[-1].gateway)
        return found

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

    def __init__(self, run: Run[Any]) -> None:
        """Made as `PopulationSettings` of the run say, where the scenario has them."""
        self._run = run
        settings = run.settings
        self._settings = settings if isinstance(settings, PopulationSettings) else PopulationSettings()
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
            member = self._make(public=True)
            member.is_bootstrap = True
            self.members.append(member)
            new.append(member)
            await self._start(member, self.members[: len(new) - 1], settings)
            self._run.progress.advance()
        later: list[Member] = []
        while len(new) + len(later) < count:
            if len(later) % MADE_AT_ONCE == 0:
                await asyncio.sleep(0)
            later.append(self._make())
        moments = sorted(self._rng.uniform(0, seconds) for _ in later)
        self.members += later
        loop = self._run.world.loop
        began = loop.time()

        async def start(member: Member) -> None:
            await self._start(member, self.bootstrap_nodes, settings)
            self._run.progress.advance()

        async with asyncio.TaskGroup() as tasks:
            for member, moment in zip(later, moments, strict=True):
                await asyncio.sleep(max(0.0, began + moment - loop.time()))
                tasks.create_task(start(member))
        return new + later

    async def join_one(self, **settings: Any) -> Member:
        """Let one more node join. No step of a phase: nodes come and go in the midst of others."""
        member = self._make()
        self.members.append(member)
        await self._start(member, self.bootstrap_nodes, settings)
        return member

    async def come_and_go(self, mean_s: float, *, polite: float, staying: Iterable[Member]) -> None:
        """For each that leaves, one comes: deaths are a Poisson process, so that sessions are exponential. For ever.

        `mean_s`: between two deaths. `polite`: share of those that say goodbye.
        """
        staying, rng = set(staying), self._run.rng
        async with asyncio.TaskGroup() as comers:
            while True:
                await asyncio.sleep(rng.expovariate(1 / mean_s))
                leaving = self.choice([member for member in self.alive if member not in staying])
                if rng.random() < polite:
                    leaving.alive = False
                    comers.create_task(leaving.stop())
                else:
                    leaving.kill()
                comers.create_task(self.join_one())

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
            if self._settings.full:
                account = AccountKey.generate(self._rng.randbytes)
                await member.start_node(through, account, **settings)
            else:
                dht_settings = DhtSettings(serve=frozenset(Realm), ciphers_at_hand=CIPHERS_AT_HAND)
                await member.start_dht(through, dht_settings)
        except P2PError as error:
            self._run.note(f"A node could not start: {error.message}")
            member.alive = False
        if member.joined_s is not None:
            self._run.sample("join_s", member.joined_s)

    def _make(self, *, public: bool = False) -> Member:
        key = NodeKey.generate(self._rng.randbytes)
        if public or not self._settings.behind or self._rng.random() >= self._settings.behind:
            ip = self._free_ip()
            return Member(self._run.world.host(ip), Address(ip, PORT), key)
        kind = self._draw_router()
        pool = kind.carrier.pool if kind.carrier is not None else kind.pool
        home = Home.build(self._run.world, kind, *(self._free_ip() for _ in range(pool)))
        network = home.host()
        return Member(network, Address(network.host.addresses()[0], PORT), key, kind.name.partition("+")[0])

    def _draw_router(self) -> RouterKind:
        population = POPULATIONS.get(self._settings.routers)
        if population is None:
            return kind_named(self._settings.routers)
        while not (kind := population.draw(self._rng)).translates:
            pass
        return kind

    def _free_ip(self) -> str:
        while True:
            a, b, c, d = self._rng.randbytes(4)
            ip = f"{a}.{b}.{c}.{d}"
            if ip not in self._taken and scope_of(ip) is Scope.PUBLIC:
                self._taken.add(ip)
                return ip
