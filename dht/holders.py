"""Who holds what we wrote, and the tokens that allow to write it there again. Pure.

A record that is refreshed goes to the same nodes again: nobody has to be searched for that (mainline's clients do the
same with the tokens of BEP 5). Newcomers near the key are found by the next search, and get the record from its
holders meanwhile (`handover`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from p2pnode.dht.contact import Contact
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.tokens import PUT_TOKEN_LIFE

__all__ = ["HolderBook"]

MAX_KEYS = 64  # with 20 holders each, about 200 bytes per holder: 256 kB


class _Entry:
    __slots__ = ("found", "holders", "searched_at")

    def __init__(self, holders: dict[bytes, tuple[Contact, bytes]], now: float) -> None:
        self.holders = holders
        self.found = len(holders)
        self.searched_at = now


class HolderBook:
    """For each key and overlay the nodes that the last search found nearest, less those that failed since."""

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[Overlay, bytes], _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def searched(
        self, overlay: Overlay, key: bytes, nearest: Iterable[Contact], tokens: Mapping[bytes, bytes], now: float
    ) -> None:
        """A search has found these to be the nearest, and they gave these tokens."""
        holders: dict[bytes, tuple[Contact, bytes]] = {
            contact.id: (contact, tokens[contact.id]) for contact in nearest if contact.id in tokens
        }
        self._entries[overlay, key] = _Entry(holders, now)
        self._entries.move_to_end((overlay, key))
        if len(self._entries) > MAX_KEYS:
            self._entries.popitem(last=False)

    def failed(self, overlay: Overlay, key: bytes, holder: bytes) -> None:
        """This one did not answer, or refused."""
        entry = self._entries.get((overlay, key))
        if entry is not None:
            entry.holders.pop(holder, None)

    def known(self, overlay: Overlay, key: bytes, now: float) -> list[tuple[Contact, bytes]]:
        """Return the holders with their tokens, nearest first; nobody when the tokens are too old."""
        entry = self._entries.get((overlay, key))
        if entry is None or now - entry.searched_at > PUT_TOKEN_LIFE:
            return []
        return list(entry.holders.values())

    def lost(self, overlay: Overlay, key: bytes) -> tuple[int, int]:
        """Return (how many of those that the last search found have failed since, how many it found)."""
        entry = self._entries.get((overlay, key))
        return (entry.found - len(entry.holders), entry.found) if entry is not None else (0, 0)
