"""Holders of mail without a network, for the fake nodes of `chat_fakes`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from support.chat_fake_ways import FakeWays

from p2pnode import AccountKey, Mailed, MailRecord, NodeKey
from p2pnode.chat.mail.letters import is_final

if TYPE_CHECKING:
    from support.chat_fakes import FakeWorld

__all__ = ["FakeHolders", "FakeMailing"]

LIFE_S = 7 * 86_400


@dataclass
class FakeHolders:
    """What all holders have, by the slot's public key and part. `full`: they take nothing."""

    records: dict[tuple[bytes, int], MailRecord] = field(default_factory=dict)
    pools: dict[tuple[bytes, int], MailRecord] = field(default_factory=dict)
    notes: set[bytes] = field(default_factory=set)
    """Keys of devices and accounts, under which no letters stand."""
    full: bool = False
    watches: dict[tuple[bytes, int], dict[int, Callable[[], None]]] = field(default_factory=dict)
    """By place, and by who watches."""

    def letters(self) -> list[tuple[bytes, int]]:
        """Return the places of letters that wait."""
        letters = ((place, record) for place, record in self.records.items() if place[0] not in self.notes)
        return [place for place, record in letters if not is_final(record.value)]


class FakeMailing(FakeWays):
    """What `chat.ports.NodePort` asks for about mail."""

    world: FakeWorld
    network: Any
    key: NodeKey
    account: AccountKey
    up: bool

    def mail_ready(self) -> bool:
        return self.world.holders is not None

    async def put_mail(self, seed: bytes, part: int, value: bytes, *, final: bool = False) -> Mailed:
        await asyncio.sleep(self.world.lookup_s)
        wall, holders = self.network.wall(), self.world.holders
        expires = int(wall) + LIFE_S
        if holders is None or holders.full or not self.up:
            return Mailed(0, 20, expires)
        seq = int(wall * 1000) if final or not value else expires
        place = AccountKey(seed).public_raw, part
        if seed in (self.key.seed, self.account.seed):
            holders.notes.add(place[0])
        held = holders.records.get(place)
        if held is not None and held.seq >= seq and held.value != value:
            return Mailed(0, 20, expires)
        if held is None or held.seq < seq:
            holders.records[place] = MailRecord(value, seq, expires)
            for tell in list(holders.watches.get(place, {}).values()):
                asyncio.get_running_loop().call_later(self.world.delay, tell)
        return Mailed(20, 20, expires)

    async def get_mail(self, seed: bytes, part: int) -> MailRecord | None:
        return await self.read_mail(AccountKey(seed).public_raw, part)

    async def read_mail(self, public_key: bytes, part: int) -> MailRecord | None:
        await asyncio.sleep(self.world.lookup_s)
        if self.world.holders is None or not self.up:
            return None
        held = self.world.holders.records.get((public_key, part))
        return held if held is not None and held.expires > self.network.wall() else None

    async def leave_in_pool(self, pool: bytes, place: int, value: bytes, *, tries: int, above: int = 0) -> Mailed:
        """Each letter costs one unit of work more than the one before it."""
        await asyncio.sleep(self.world.lookup_s)
        holders = self.world.holders
        if holders is None or holders.full or not self.up:
            return Mailed(0, 20, 0)
        expires = int(self.network.wall()) + LIFE_S
        holders.pools[pool, place] = MailRecord(value, above + 1, expires)
        return Mailed(20, 20, expires)

    async def look_in_pool(self, pool: bytes, place: int) -> MailRecord | None:
        await asyncio.sleep(self.world.lookup_s)
        if self.world.holders is None or not self.up:
            return None
        held = self.world.holders.pools.get((pool, place))
        return held if held is not None and held.expires > self.network.wall() else None

    def watch_mail(self, seed: bytes, part: int, on_news: Callable[[], None]) -> None:
        if self.world.holders is not None:
            self.world.holders.watches.setdefault((AccountKey(seed).public_raw, part), {})[id(self)] = on_news

    def unwatch_mail(self, seed: bytes, part: int) -> None:
        if self.world.holders is not None:
            self.world.holders.watches.get((AccountKey(seed).public_raw, part), {}).pop(id(self), None)

    def mail_watchers(self, seed: bytes, part: int) -> int:
        watches = self.world.holders.watches if self.world.holders is not None else {}
        return 3 * (id(self) in watches.get((AccountKey(seed).public_raw, part), {}))
