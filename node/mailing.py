"""Sealed mail for applications: records that wait a week in the DHT, each under a key of its own. Part of `node.Node`.

Whoever knows a slot's seed may write its records, replace and empty them; nobody else can. A holder sees a random key
and sealed bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from p2pnode.core.address import Realm
from p2pnode.core.keys import SigningKey
from p2pnode.core.network import Network
from p2pnode.dht import MAIL_LIFE, MAIL_SALT, Dht, SignedRecord, Told

__all__ = ["MailRecord", "Mailed", "Mailing"]

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
        result = await self.dht.get(SigningKey(seed).public_raw, _salt(part))
        if result.record is None:
            return None
        return MailRecord(result.record.value, result.record.seq, result.record.expires)

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
