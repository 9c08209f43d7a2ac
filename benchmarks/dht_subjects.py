"""The two DHTs that `dht_lookups.py` compares, behind one face: plain `kademlia` and ours, on virtual hosts.

`kademlia` runs unchanged: its transport is a virtual socket, its clock the world's, its random numbers the seed's.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import kademlia.protocol
import kademlia.routing
import kademlia.storage
from kademlia.network import Server
from kademlia.utils import digest

from p2pnode.core.address import Address, Realm
from p2pnode.core.keys import AccountKey, NodeKey
from p2pnode.core.logs import set_up
from p2pnode.core.network_id import network_tag
from p2pnode.dht import DhtSettings, KnownContact, SignedRecord
from p2pnode.simulations.harness.population import Member
from p2pnode.simulations.virtual import VirtualNetwork

__all__ = ["SUBJECTS", "Stored", "Subject", "prepare"]

PORT = 4747
LIFE_S = 6 * 3600.0
ENOUGH = 8  # confirmed holders after which an early put returns
SALT = b"benchmark"


@dataclass
class Stored:
    """Something written: `key` is its place among the ids, `name` what its reader has to know."""

    key: bytes
    name: Any
    value: bytes
    author: Subject = field(repr=False)


class Subject(ABC):
    """One node."""

    has_early_puts = False

    def __init__(self, network: VirtualNetwork, ip: str, key: NodeKey) -> None:
        self.network, self.address, self.key = network, Address(ip, PORT), key
        self.alive = True

    @abstractmethod
    async def join(self, through: Sequence[Subject]) -> bool:
        """Start, join, and return whether anybody answered; once it returns the table is usable."""

    @abstractmethod
    async def put(
        self, value: bytes, rng: random.Random, *, early: bool = False, again: Stored | None = None
    ) -> Stored:
        """Store under a new name, or under that of `again`; return when every store was answered or given up.

        `early`: when enough have confirmed.
        """

    @abstractmethod
    async def get(self, stored: Stored) -> bool:
        """Return whether the value was found, with the first valid answer."""

    @abstractmethod
    def nowhere(self, rng: random.Random) -> Stored:
        """Return what nobody ever wrote."""

    @abstractmethod
    def holds(self, stored: Stored) -> bool: ...

    @abstractmethod
    async def leave(self) -> None: ...

    async def rejoin(self) -> bool:
        """Leave and come back with the contacts that were saved."""
        raise NotImplementedError

    def kill(self) -> None:
        """The machine is gone, without a word."""
        self.alive = False
        self.network.host.up = False

    @property
    def traffic(self) -> tuple[int, int]:
        """Return datagrams and bytes (UDP payload), both directions."""
        rows = self.network.host.traffic.values()
        return sum(row[0] + row[2] for row in rows), sum(row[1] + row[3] for row in rows)


class Ours(Subject):
    """Our DHT alone, as a server."""

    has_early_puts = True

    def __init__(self, network: VirtualNetwork, ip: str, key: NodeKey) -> None:
        super().__init__(network, ip, key)
        self.member = Member(network, self.address, key)

    async def join(self, through: Sequence[Subject]) -> bool:
        return await self._start([other.member.contact for other in through if isinstance(other, Ours)])

    async def put(
        self, value: bytes, rng: random.Random, *, early: bool = False, again: Stored | None = None
    ) -> Stored:
        key = NodeKey.generate(rng.randbytes) if again is None else again.name[0]
        wall = self.network.wall()
        record = SignedRecord.sign(
            key, _TAG, salt=SALT, seq=int(wall * 1000), expires=int(wall + LIFE_S), value=value
        )  # fmt: skip
        await self.member.dht.put(record, realms=[Realm.PUBLIC], enough=ENOUGH if early else None)
        return Stored(record.key, (key, key.public_raw), value, self)

    async def get(self, stored: Stored) -> bool:
        result = await self.member.dht.get(stored.name[1], SALT, realms=[Realm.PUBLIC], fast=True)
        return result.record is not None and result.record.value == stored.value

    def nowhere(self, rng: random.Random) -> Stored:
        return Stored(b"", (None, NodeKey.generate(rng.randbytes).public_raw), b"", self)

    def holds(self, stored: Stored) -> bool:
        record = self.member.dht.storage.read(Realm.PUBLIC, stored.key, self.network.monotonic())
        return record is not None and record.value == stored.value

    async def leave(self) -> None:
        self.alive = False
        await self.member.stop()

    async def rejoin(self) -> bool:
        """Also with new keys to everybody: what is saved are addresses and ids."""
        known = self.member.dht.known_contacts()
        await self.member.stop()
        self.member = Member(self.network, self.address, self.key)
        return await self._start(known)

    async def _start(self, known: list[KnownContact]) -> bool:
        """Usable is what a node calls so: as many contacts as a record has holders, or nobody left to ask."""
        await self.member.start_dht([], _SETTINGS)
        if not known:
            return True
        dht, usable = self.member.dht, asyncio.Event()
        dht.on_filled = lambda _realm: usable.set()
        self._joining = asyncio.create_task(dht.bootstrap(known))
        self._joining.add_done_callback(lambda _: usable.set())
        await usable.wait()
        return bool(dht.realms())


class OursWhole(Ours):
    """A whole node of ours, which publishes its presence."""

    async def join(self, through: Sequence[Subject]) -> bool:
        account = AccountKey.generate(random.Random(self.key.public_raw).randbytes)
        self.member.is_bootstrap = not through
        await self.member.start_node([other.member for other in through if isinstance(other, Ours)], account)
        return self.member.joined_s is not None


class Plain(Subject):
    """A `kademlia` server."""

    def __init__(self, network: VirtualNetwork, ip: str, key: NodeKey) -> None:
        super().__init__(network, ip, key)
        self.server = Server(node_id=key.node_id)

    async def join(self, through: Sequence[Subject]) -> bool:
        """`Server.listen` but for the endpoint, then `bootstrap`."""
        server = self.server
        protocol = server.protocol = server._create_protocol()

        def received(data: bytes, source: Address) -> None:
            protocol.datagram_received(data, tuple(source))

        server.transport = _Transport(await self.network.open_udp(self.address, received))
        protocol.connection_made(server.transport)
        server.refresh_table()
        return not through or bool(await server.bootstrap([tuple(other.address) for other in through]))

    async def put(
        self, value: bytes, rng: random.Random, *, early: bool = False, again: Stored | None = None
    ) -> Stored:
        assert not early
        name = rng.randbytes(20).hex() if again is None else again.name
        await self.server.set(name, value)
        return Stored(digest(name), name, value, self)

    async def get(self, stored: Stored) -> bool:
        return bool(await self.server.get(stored.name) == stored.value)

    def nowhere(self, rng: random.Random) -> Stored:
        return Stored(b"", rng.randbytes(20).hex(), b"", self)

    def holds(self, stored: Stored) -> bool:
        return bool(self.server.storage.get(stored.key) == stored.value)

    async def leave(self) -> None:
        self.alive = False
        if self.server.transport is not None:
            self.server.stop()


class _Transport:
    """What rpcudp uses of a datagram transport."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    def sendto(self, data: bytes, address: tuple[str, int]) -> None:
        self._socket.send(data, Address(*address))

    def close(self) -> None:
        self._socket.close()


class _Clock:
    """The module `time` as `kademlia` sees it."""

    @staticmethod
    def monotonic() -> float:
        return asyncio.get_running_loop().time()


def prepare(seed: int) -> None:
    """Let `kademlia` in this process follow the virtual clock and the seed, and be quiet."""
    kademlia.routing.time = kademlia.storage.time = _Clock
    kademlia.protocol.random = random.Random(f"{seed}/kademlia")
    set_up("critical", "console", sys.stderr)
    for name in ("kademlia", "rpcudp"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


_TAG = network_tag("public")
_SETTINGS = DhtSettings(serve=frozenset(Realm))
SUBJECTS: dict[str, type[Subject]] = {"kademlia": Plain, "ours": Ours, "ours, whole nodes": OursWhole}
