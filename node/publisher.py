"""Keeps our presence in the DHT true: published in each realm, refreshed, replaced on change, unpublished on exit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import NamedTuple

import structlog

from p2pnode.core.address import Address, Realm
from p2pnode.core.devices import RECORD_SALT as DEVICES_SALT
from p2pnode.core.devices import DeviceList, decode_devices_untrusted, encode_devices
from p2pnode.core.errors import BadPacket
from p2pnode.core.keys import AccountKey, NodeKey, SigningKey
from p2pnode.core.network import Network
from p2pnode.core.tasks import TaskSet
from p2pnode.dht import Dht, KnownContact, PutResult, SignedRecord
from p2pnode.other_process import OtherProcess
from p2pnode.presence import Presence, presence_salt
from p2pnode.read_back import PublishedRecord, ReadBacks
from p2pnode.settings import NodeSettings
from p2pnode.state import NodeState

__all__ = ["Publisher"]

log = structlog.get_logger(__name__)

DEVICES_LIFETIME_S = 20 * 3600.0  # below the 24 h that holders accept, with room for a clock that is wrong
DEVICES_REFRESH_S = 4 * 3600.0  # it never changes by itself; that its holders come and go the read-backs see
# From a read-back that found all in place to the next; the devices are asked for less often.
PRESENCE_CALM_S = 3_000.0  # below the life of a store token, which it renews
DEVICES_CALM_S = 7_200.0
RETRY_S = 15.0  # after a publish that nobody stored
# How often the network's size is looked at: a network grows when it is young; all else wakes us.
LOOK_FIRST_S, LOOK_LAST_S = 5.0, 40.0
GROWTH = 2.0  # half of the nearest nodes of a network that has doubled since a search lack our record
# The wall clock went ahead of the monotonic one: the machine slept (Linux stops CLOCK_MONOTONIC then) or its clock was
# set. Either way the times in what we signed are no longer true, and our timers know nothing of it.
SLEPT_S = 30.0
CLOCK_S = 5.0  # how often the clocks are compared
ENOUGH = 8  # holders that must have confirmed before we go on; the others get it meanwhile
JITTER = 0.05  # share of the refresh time, so that a network restarted at once does not beat in step


class _Where(NamedTuple):
    addresses: tuple[Address, ...]
    rendezvous: tuple[KnownContact, ...]
    outside: tuple[Address, ...] = ()


class Publisher:
    """Publishes the presence and the account's device record."""

    def __init__(
        self,
        *,
        key: NodeKey,
        account: AccountKey,
        settings: NodeSettings,
        network: Network,
        network_tag: bytes,
        dht: Dht,
        state: NodeState,
        addresses: Callable[[], dict[Realm, tuple[Address, ...]]],
        rendezvous: Callable[[], tuple[KnownContact, ...]],
        outside: Callable[[], tuple[Address, ...]],
        own_devices: Callable[[], DeviceList],
        adopt_devices: Callable[[DeviceList], bool],
        other_process: OtherProcess,
        look_first: bool = False,
        invisible: Callable[[], bool] = lambda: False,
    ) -> None:
        """`rendezvous`: the nodes that forward offers to us in the public realm; `outside`: where routers show us in
        it to those who make them. `invisible`: no presence is published; the devices are, since letters and devices
        are looked for by them. `own_devices`: the newest list that we know of; `adopt_devices`: takes a newer one.
        `look_first`: another process with our key may be published; look before it is replaced."""
        self._key = key
        self._account = account
        self._settings = settings
        self._network = network
        self._tag = network_tag
        self._dht = dht
        self._state = state
        self._addresses = addresses
        self._rendezvous = rendezvous
        self._outside = outside
        self._invisible = invisible
        self._other = other_process
        self._to_look: set[Realm] = set(Realm) if look_first else set()
        self._tasks = TaskSet()
        self._own_devices = own_devices
        self._adopt_devices = adopt_devices
        self._wake = asyncio.Event()
        self._published: dict[Realm, _Where] = {}
        self._due_at: dict[Realm, float] = {}
        self._devices_due_at: dict[Realm, float] = {}
        self._size_at_search: dict[Realm, float] = {}
        self._wall_ahead_s = network.wall() - network.monotonic()
        self._read_backs = ReadBacks(dht, network, self._highest_seq, self._outdated)

    def published(self) -> tuple[PublishedRecord, ...]:
        """Return how many of the nodes nearest to each of our records held it when it was last read back."""
        return self._read_backs.all()

    def wake(self) -> None:
        """Look again now: addresses or realms may have changed."""
        self._wake.set()

    async def run(self) -> None:
        """Publish for ever, until cancelled."""
        look_s = LOOK_FIRST_S
        while True:
            self._wake.clear()
            if await self.publish_due():
                look_s = LOOK_FIRST_S
            due = [at for realm, at in self._due_at.items() if realm in self._dht.realms()]
            if due:
                due.append(self._read_backs.next_due())
            now = self._network.monotonic()
            look_at = now + min(look_s, max(min(due, default=0.0) - now, LOOK_FIRST_S))
            while not self._wake.is_set() and (left := look_at - self._network.monotonic()) > 0 and not self._slept():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, CLOCK_S)):
                        await self._wake.wait()
            look_s = min(2 * look_s, LOOK_LAST_S)

    def _slept(self) -> bool:
        return abs(self._network.wall() - self._network.monotonic() - self._wall_ahead_s) > SLEPT_S

    async def publish_due(self) -> bool:
        """Publish in every realm where it is due or an address has changed, read back where that is due; return whether
        anything was published, or a network has grown."""
        if self._other.superseded:
            return False
        now = self._network.monotonic()
        wall_ahead_s = self._network.wall() - now
        if self._slept():
            log.info("clock_jumped", seconds=round(wall_ahead_s - self._wall_ahead_s))
            self._due_at = dict.fromkeys(self._due_at, 0.0)
            self._devices_due_at.clear()
            self._wall_ahead_s = wall_ahead_s
        due: list[tuple[Realm, _Where | None]] = []
        grown = False
        for realm in self._dht.realms():
            if self._invisible():
                due += [(realm, None)] if self._devices_due_at.get(realm, 0.0) <= now else []
                continue
            where = self._where(realm)
            if not (where.addresses or where.rendezvous or realm in self._published):
                continue  # nobody could reach us yet: there is nothing to say, and silence is no goodbye
            size = self._dht.estimated_size(realm)
            if size >= GROWTH * self._size_at_search.setdefault(realm, size) and self._read_backs.grown(realm):
                self._size_at_search[realm] = size
                grown = True
            if self._due_at.get(realm, 0.0) <= now or self._published.get(realm, where) != where:
                due.append((realm, where))
        self._read_backs.read_due()
        await asyncio.gather(*(self._publish(realm, where) for realm, where in due))
        return bool(due) or grown

    async def unpublish(self) -> None:
        """Say goodbye in every realm where we are published; not when a newer process is published there."""
        await self._tasks.cancel()
        if self._other.superseded:
            self._published.clear()
        realms = [realm for realm, where in self._published.items() if where.addresses or where.rendezvous]
        self._published.clear()
        await self._read_backs.stop()
        await asyncio.gather(*(self._put_presence(realm, _Where((), ()), leaving=True) for realm in realms))

    def own_key_used(self) -> None:
        """Somebody uses our key: who is newer?"""
        if self._other.may_look():
            self._tasks.spawn(self._look_at_other())

    async def _look_at_other(self) -> None:
        if not await self._other.look(list(self._dht.realms())):
            self._due_at = dict.fromkeys(self._due_at, 0.0)  # an older one has replaced what we said
            self.wake()

    def resume(self) -> None:
        """Publish again after `unpublish`."""
        self._due_at.clear()
        self.wake()

    def _where(self, realm: Realm) -> _Where:
        through = self._rendezvous() if realm is Realm.PUBLIC else ()
        return _Where(self._addresses().get(realm, ()), through, self._outside() if through else ())

    async def _publish(self, realm: Realm, where: _Where | None) -> None:
        """`where` None: no presence."""
        if where is None:
            await self._publish_devices(realm)
        else:
            await asyncio.gather(self._publish_presence(realm, where), self._publish_devices(realm))

    async def _publish_presence(self, realm: Realm, where: _Where) -> None:
        if realm in self._to_look:
            await self._other.look([realm])
            self._to_look.discard(realm)
        if self._other.superseded:
            return
        now = self._network.monotonic()
        if await self._put_presence(realm, where):
            self._published[realm] = where
            refresh = self._settings.presence_refresh
            self._due_at[realm] = now + refresh * (1 - JITTER * self._network.rng.random())
            self._tasks.spawn(self._other.wake_older())
        else:
            self._due_at[realm] = now + RETRY_S

    async def publish_devices(self) -> None:
        """The list has changed: publish it everywhere."""
        self._devices_due_at.clear()
        await asyncio.gather(*(self._publish_devices(realm) for realm in list(self._dht.realms())))

    async def read_devices(self) -> None:
        """Look up what other devices of the account have published, and take it if it is newer."""
        await asyncio.gather(*(self._read_devices(realm) for realm in list(self._dht.realms())))

    async def _publish_devices(self, realm: Realm) -> None:
        now = self._network.monotonic()
        if self._devices_due_at.get(realm, 0.0) > now:
            return
        # what another device of the account sees to already, or has taken us out of, we do not publish
        is_there = bool(self._own_devices().number) and await self._read_devices(realm)
        mine = self._own_devices()
        if is_there or self._key.peer_id not in mine:
            self._devices_due_at[realm] = now + DEVICES_REFRESH_S
            return
        value = encode_devices(mine.devices, mine.number)
        if await self._put(self._account, DEVICES_SALT, value, DEVICES_LIFETIME_S, realm):
            self._devices_due_at[realm] = now + DEVICES_REFRESH_S

    async def _read_devices(self, realm: Realm) -> bool:
        """Take a newer list that is published in `realm`. Return whether ours is there already, not about to expire."""
        record = (await self._dht.get(self._account.public_raw, DEVICES_SALT, realms=[realm])).record
        if record is None:
            return False
        try:
            found = decode_devices_untrusted(record.value)
        except BadPacket as bad:
            log.warning("published_devices_unreadable", realm=realm.value, reason=bad.reason)
            return False
        wall = self._network.wall()
        self._state.raise_seq(self._account.public_raw + DEVICES_SALT, record.seq, wall)
        self._adopt_devices(found)
        return found == self._own_devices() and record.expires - wall > DEVICES_LIFETIME_S / 2

    def _highest_seq(self, record: SignedRecord) -> int:
        return self._state.own_seq(record.public_key + record.salt)

    def _outdated(self, realm: Realm, record: SignedRecord, seq: int) -> None:
        """Others hold a newer record of ours: our clock or our state file went back, or our key is in use elsewhere."""
        now = self._network.monotonic()
        self._state.raise_seq(record.public_key + record.salt, seq, self._network.wall())
        if record.salt == DEVICES_SALT:
            self._devices_due_at[realm] = 0.0  # with the next presence
        else:
            self._due_at[realm] = min(self._due_at.get(realm, float("inf")), now + RETRY_S)
            self.own_key_used()
            self.wake()

    async def _put_presence(self, realm: Realm, where: _Where, *, leaving: bool = False) -> int:
        presence = Presence(
            where.addresses,
            self._key.x25519_public,
            self._account.user_id,
            self._settings.name,
            rendezvous=where.rendezvous,
            outside=where.outside,
            run=self._other.run,
        )
        lifetime = self._settings.presence_lifetime
        return await self._put(self._key, presence_salt(realm), presence.encode(), lifetime, realm, leaving=leaving)

    async def _put(
        self, key: SigningKey, salt: bytes, value: bytes, lifetime: float, realm: Realm, *, leaving: bool = False
    ) -> int:
        wall = self._network.wall()
        record = SignedRecord.sign(
            key,
            self._tag,
            salt=salt,
            seq=self._state.next_seq(key.public_raw + salt, wall),
            expires=int(wall + lifetime),
            value=value,
        )

        def settled(result: PutResult) -> None:
            if not leaving:
                calm_s = DEVICES_CALM_S if salt == DEVICES_SALT else PRESENCE_CALM_S
                self._read_backs.settled(realm, record, result, calm_s)

        result = await self._dht.put(
            record, realms=[realm], enough=None if leaving else ENOUGH, again=not leaving, on_settled=settled
        )
        if not result.stored:
            log.warning("publish_not_stored", realm=realm.value, salt=salt.decode(), tried=result.tried)
        return result.stored
