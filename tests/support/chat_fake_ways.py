"""A node that knows no way into any network: part of `chat_fakes.FakeNode`."""

from __future__ import annotations

from p2pnode import Address, PeerSpec


class FakeWays:
    """What strangers ask of the user's node."""

    address: Address

    def ways_in(self, count: int = 8) -> tuple[PeerSpec, ...]:
        return ()

    def addresses(self) -> tuple[Address, ...]:
        return (self.address,)
