"""Sealed mail for applications: records that wait a week in the DHT, each under a key of its own. Part of `node.Node`.

Whoever knows a slot's seed may write its records, replace and empty them; nobody else can. A holder sees a random key
and sealed bytes. What somebody without such a seed leaves stands in a pool, where work decides (`dht.pools`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from p2pnode.core.address import Realm
from p2pnode.core.keys import SigningKey
from p2pnode.core.network import Network
from p2pnode.dht import (
    MAIL_LIFE,
    MAIL_SALT,
    MIN_WORK,
    PLACES,
    STAMP_BYTES,
    Dht,
    SignedRecord,
    Told,
    pool_salt,
    work_of,
)

__all__ = ["POOL_PLACES", "MailRecord", "Mailed", "Mailing"]

POOL_PLACES = PLACES

ENOUGH = 12  # of 20 holders: whoever waits for "stored" goes on; the others follow


@dataclass(frozen=True, slots=True)
class Mailed:
    """How a store went. `stored`: nodes that confirmed, of `tried`. `expires`: unix seconds."""

    stored: int
    tried: int
    expires: int


@dataclass(frozen=True, slots=True)
class MailRecord:
    """What the holders of a slot have. `value` is a stranger's, up to 800 bytes, empty when it was removed.

    `seq`: the version, see `put_mail` · `expires`: unix seconds.
    """

    value: bytes
    seq: int
    expires: int


class Mailing:
    """The calls about mail. A slot has up to 256 parts, told apart by `part`."""

    dht: Dht
    network: Network

    def mail_ready(self) -> bool:
        """Whether anybody is known who could hold mail."""
        return bool(self.dht.realms())

    async def put_mail(self, seed: bytes, part: int, value: bytes, *, final: bool = False) -> Mailed:
        """Store `value` (0 to 800 bytes; none removes) in a part of the slot whose key has this seed (32 bytes).

        It waits a week. A value's version is the second in which it expires, that of a removal, or of another `final`
        value, the millisecond in which it was made, which is a thousand times as much: what was removed cannot come
        back by being stored once more. Raise ValueError.
        """
        wall = self.network.wall()
        expires = int(wall) + MAIL_LIFE
        seq = int(wall * 1000) if final or not value else expires
        record = SignedRecord.sign(SigningKey(seed), self.dht.network_tag, _salt(part), seq, expires, value)
        result = await self.dht.put(record, realms=self.dht.realms(), enough=ENOUGH)
        return Mailed(result.stored, result.tried, expires)

    async def get_mail(self, seed: bytes, part: int) -> MailRecord | None:
        """Return the newest that the holders have, None when they have nothing. Costs a search."""
        return await self.read_mail(SigningKey(seed).public_raw, part)

    async def read_mail(self, public_key: bytes, part: int) -> MailRecord | None:
        """Return the same of a slot that somebody else writes, whose public key is known."""
        result = await self.dht.get(public_key, _salt(part))
        if result.record is None:
            return None
        return MailRecord(result.record.value, result.record.seq, result.record.expires)

    async def leave_in_pool(self, pool: bytes, place: int, value: bytes, *, tries: int, above: int = 0) -> Mailed:
        """Store up to 792 bytes in a place of a pool (20 bytes; 0 to 7), for a week, under a key that is used once.

        Works for it as long as `tries` hashes take (3 ms each, outside the loop), up to four times as long where that
        is too little, or not more than what is `above`: the `seq` of what stands there. `Mailed(0, 0, 0)`: in vain.
        """
        key = SigningKey(self.network.token_bytes(32))
        salt, expires = pool_salt(pool, place), int(self.network.wall()) + MAIL_LIFE
        start = self.network.token_bytes(STAMP_BYTES)
        stamped, seq = await self.network.run_blocking(
            _work, key.public_raw, salt, expires, value, start, tries, max(MIN_WORK, above + 1)
        )
        if not seq:
            return Mailed(0, 0, 0)
        record = SignedRecord.sign(key, self.dht.network_tag, salt, seq, expires, stamped)
        result = await self.dht.put(record, realms=self.dht.realms(), enough=ENOUGH)
        return Mailed(result.stored, result.tried, expires)

    async def look_in_pool(self, pool: bytes, place: int) -> MailRecord | None:
        """Return what most work went into of all that was left in a place, None when nothing was. Costs a search."""
        result = await self.dht.get(bytes(32), pool_salt(pool, place))
        if result.record is None:
            return None
        return MailRecord(result.record.value[STAMP_BYTES:], result.record.seq, result.record.expires)

    def watch_mail(self, seed: bytes, part: int, on_news: Callable[[], None]) -> None:
        """Call `on_news` when something is stored in a part of a slot, or stood there before, once for each version.

        Three holders tell us, about 50 datagrams an hour. In all realms that we are in; call again after `Joined`.
        """
        public, heard = SigningKey(seed).public_raw, 0

        def told(news: Told) -> None:
            nonlocal heard
            if news.record is not None and news.record.seq > heard:
                heard = news.record.seq
                on_news()

        for realm in self.dht.realms():
            self.dht.watcher.watch(public, _salt(part), realm, told)

    def unwatch_mail(self, seed: bytes, part: int) -> None:
        """End a watch; its holders are told."""
        public = SigningKey(seed).public_raw
        for realm in Realm:
            self.dht.watcher.unwatch(public, _salt(part), realm)

    def mail_watchers(self, seed: bytes, part: int) -> int:
        """Return how many holders will tell of a change."""
        public = SigningKey(seed).public_raw
        return sum(len(self.dht.watcher.holders(public, _salt(part), realm)) for realm in self.dht.realms())


def _salt(part: int) -> bytes:
    return MAIL_SALT + bytes((part,))


def _work(
    public_key: bytes, salt: bytes, expires: int, value: bytes, start: bytes, tries: int, least: int
) -> tuple[bytes, int]:
    """Return the best stamped value of `tries`, or the first of four times as many that gives `least`, and its `seq`; 0
    when there is none."""
    first, best, found = int.from_bytes(start, "big"), b"", 0
    for number in range(4 * tries):
        if number >= tries and found >= least:
            break
        stamped = ((first + number) % 2 ** (8 * STAMP_BYTES)).to_bytes(STAMP_BYTES, "big") + value
        seq = work_of(public_key, salt, expires, stamped)
        if seq > found:
            best, found = stamped, seq
    return (best, found) if found >= least else (b"", 0)
