"""A node that knows no way into any network, and may hide: part of `chat_fakes.FakeNode`."""

from __future__ import annotations

from typing import Any

from p2pnode import Address, PeerId, PeerSpec

__all__ = ["FakeWays"]


class FakeWays:
    """What strangers and rooms ask of the user's node."""

    address: Address
    sessions_by_peer: dict[PeerId, Any]
    invisible = False

    def ways_in(self, count: int = 8) -> tuple[PeerSpec, ...]:
        return ()

    def addresses(self) -> tuple[Address, ...]:
        return (self.address,)

    async def set_invisible(self, invisible: bool) -> None:
        self.invisible = invisible
        for session in list(self.sessions_by_peer.values()) if invisible else []:
            session.break_off("stopping")
