"""Who is in the hall: a room of everybody who joined through one another or met on the LAN. No I/O.

Everybody is connected to everybody (64 at most); each member tells newcomers whom it knows. What a member tells about
others is hearsay: they are members once they answered, with a hall flag in their own Hello.
"""

from __future__ import annotations

from p2pnode import Address, PeerId, Scope, UserId
from p2pnode.chat.limits import Buckets
from p2pnode.chat.model import Member
from p2pnode.chat.protocol import MAX_MEMBER_ADDRESSES, MAX_MEMBERS, MemberEntry, Members

__all__ = ["Roster"]

INVITATION_S = 60.0  # how long somebody we were told of may take to answer
MAX_INVITED = 2 * MAX_MEMBERS  # attempts at a time


class Roster:
    """The members, and those that were told of and are being tried."""

    def __init__(self, own: PeerId) -> None:
        self._own = own
        self._members: dict[PeerId, Member] = {}
        self._invited: dict[PeerId, float] = {}
        # A hostile member could name victims' addresses: 64 at once, then one per 2 s
        self._hearsay = Buckets(rate=0.5, burst=float(MAX_MEMBERS), capacity=MAX_MEMBERS)

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._members

    def members(self) -> tuple[Member, ...]:
        return tuple(self._members.values())

    def invite(self, peer: PeerId, now: float) -> bool:
        """Whether to try to reach `peer` as a member; False for members, ourselves, and when the hall is full."""
        self._invited = {p: until for p, until in self._invited.items() if until > now}
        if peer == self._own or peer in self._members or peer in self._invited:
            return False
        if len(self._members) >= MAX_MEMBERS or len(self._invited) >= MAX_INVITED:
            return False
        self._invited[peer] = now + INVITATION_S
        return True

    def includes(self, peer: PeerId) -> bool:
        """Whether our Hello to `peer` carries the hall flag."""
        return peer in self._members or peer in self._invited

    def withdraw(self, peer: PeerId) -> None:
        """It could not be reached, or does not want to."""
        self._invited.pop(peer, None)

    def answered(self, member: Member) -> bool:
        """Its Hello carried the hall flag. True when it is a new member; False when it was one, or none fits in."""
        self._invited.pop(member.peer, None)
        known = member.peer in self._members
        if member.peer == self._own or (not known and len(self._members) >= MAX_MEMBERS):
            return False
        self._members[member.peer] = member
        return not known

    def remove(self, peer: PeerId) -> Member | None:
        """It left; return what it was, None when it was no member."""
        self._invited.pop(peer, None)
        return self._members.pop(peer, None)

    def told_untrusted(self, frame: Members, teller: Member, source: Address, now: float) -> list[Member]:
        """Return those to invite among the members that `teller`, seen at `source`, tells of.

        Their private addresses count only when the teller itself is on such a network with us, so that nobody makes us
        send packets into our own.
        """
        found = []
        for entry in frame.members:
            peer = PeerId(entry.peer)
            if self.includes(peer) or peer == self._own or not self._hearsay.take(teller.peer, now):
                continue
            addresses = [Address.unpack_untrusted(packed) for packed in entry.addresses]
            usable = tuple(a for a in addresses if a.scope is Scope.PUBLIC or a.scope is source.scope)
            found.append(Member(peer, UserId(entry.user), "", usable))
        return found

    def gossip_for(self, receiver: PeerId) -> Members:
        """Return the frame that tells `receiver` of all others."""
        return Members(
            [
                MemberEntry(
                    member.peer.raw,
                    member.user.raw,
                    member.name,
                    [address.pack() for address in member.addresses[:MAX_MEMBER_ADDRESSES]],
                )
                for member in self._members.values()
                if member.peer != receiver and member.user is not None
            ][:MAX_MEMBERS]
        )
