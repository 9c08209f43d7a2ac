"""Dial-back: can strangers reach us? Pure; the engine authenticates, the shell opens the dialler's socket.

    asker --DialBack(nonce)--> helper --DialFor(asker's address as seen, nonce)--> dialler
    asker <---------------------------------0x0A nonce, from a fresh port--------- dialler

The dialler sends one frame of 17 bytes, from a port that nobody sent to, to the address that the helper saw the request
come from (or to another port of it, that a router may have opened for the asker), in the public realm only; limits per
prefix and in all (security.md C1). A helper that knows nobody else dials itself.

What an arrival proves depends on its source (`Evidence`): a NAT or firewall lets in what it takes for an answer.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.core.ids import NodeId
from p2pnode.dht.calls import Asked, ignore
from p2pnode.dht.contact import Contact, pack_address, unpack_address_untrusted
from p2pnode.dht.limits import Budget, PrefixBudgets, prefix_of
from p2pnode.dht.messages import Answer, DialBack, DialBackAccepted, DialFor, Error, ErrorCode
from p2pnode.dht.wire import dialled_frame, parse_dialled_untrusted

if TYPE_CHECKING:
    from p2pnode.dht.engine import Engine

__all__ = ["DialBacks", "Evidence", "Role", "judge"]

MAX_EXPECTED = 16  # nonces out at once; a check uses three
PREFIX_RATE, PREFIX_BURST = 0.2, 32.0  # per /24 or /48: a block's nodes starting together, then one each 5 s
TOTAL_RATE, TOTAL_BURST = 10.0, 100.0
HELPER_RATE, HELPER_BURST = 1.0, 20.0  # of the nodes of one /24 or /48 that ask us to dial
FIRST_CHECK = 1.0  # s after the first contact: joining is done, other contacts are known
RETRIES = (10.0, 30.0, 120.0, 600.0)  # s until a client looks again
CONFIRM = 10.0  # s until a server that was not reached looks again: the frames may have been lost
SILENCES_TO_STOP = 2


class Evidence(enum.Enum):
    """What a check showed."""

    PROVEN = "proven"
    """A frame arrived from an IP that we never sent to; or from a port that we never sent to, and the address it was
    sent to is our own interface's, so that no NAT stands between (a firewall that filters by IP only would pass)."""
    INCONCLUSIVE = "inconclusive"
    """Frames arrived, but a NAT that filters by IP address would have let them in too."""
    SILENT = "silent"
    """Helpers agreed, and nothing arrived."""
    NOBODY = "nobody"
    """Nobody was there to help."""


def judge(*, ip_known: bool, port_known: bool, own_interface: bool, ports_filtered: bool = False) -> Evidence:
    """Return what a frame from a source proves. `ip_known`, `port_known`: we had sent to that IP, to that port of it;
    `own_interface`: the address that was dialled belongs to this machine; `ports_filtered`: frames from unknown ports
    of known IPs are known not to come in (`Serving.learn_filter`), unless somebody opened the way."""
    if not ip_known or (not port_known and (own_interface or ports_filtered)):
        return Evidence.PROVEN
    return Evidence.INCONCLUSIVE


class Role:
    """Client or server of the public realm, decided by checks, and when to check next.

    A server after one proof. A client again after two silent checks in a row, or when our addresses changed; what is
    inconclusive changes nothing.
    """

    def __init__(self, *, serves: bool, interval: float) -> None:
        """`serves`: from the start, and for good: then there is nothing to check."""
        self.serves, self.fixed = serves, serves
        self.refuted = False
        """Whether we were checked and not reached, and not since."""
        self.check_at = float("inf")
        self._interval = interval
        self._failures = 0

    def joined(self, now: float) -> None:
        """The public realm has a contact."""
        if not self.fixed:
            self.check_at = min(self.check_at, now + FIRST_CHECK)

    def addresses_changed(self, now: float) -> None:
        """What was proven was proven of another address."""
        if not self.fixed:
            self.serves, self.refuted, self._failures = False, False, 0
            self.check_at = min(self.check_at, now + FIRST_CHECK)

    def hurry(self, now: float) -> None:
        """Something has changed that may make us reachable, or end it: check now."""
        if not self.fixed:
            self.check_at = min(self.check_at, now)

    def checked(self, evidence: Evidence, now: float) -> None:
        """Take the result of a check in; `serves` and `check_at` hold the consequences."""
        if self.fixed:
            return
        if evidence is Evidence.PROVEN:
            self.serves, self.refuted, self._failures = True, False, 0
            self.check_at = now + self._interval
        elif not self.serves:
            self.refuted = self.refuted or evidence is not Evidence.NOBODY
            self.check_at = now + min(RETRIES[min(self._failures, len(RETRIES) - 1)], self._interval)
            self._failures += 1
        elif evidence is Evidence.SILENT:
            self._failures += 1
            if self._failures >= SILENCES_TO_STOP:
                self.serves, self.refuted, self._failures = False, True, 0
            self.check_at = now + CONFIRM
        else:
            self.check_at = now + self._interval


class DialBacks:
    """All three roles: who asks, who helps, who dials."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._askers = PrefixBudgets(Budget(TOTAL_RATE, TOTAL_BURST), PREFIX_RATE, PREFIX_BURST)
        self._dialled = PrefixBudgets(Budget(TOTAL_RATE, TOTAL_BURST), PREFIX_RATE, PREFIX_BURST)
        self._helpers = PrefixBudgets(Budget(float("inf")), HELPER_RATE, HELPER_BURST)
        self._expected: dict[bytes, Callable[[Address], None]] = {}
        self.dial: Callable[[bytes, Address], None] | None = None
        """Sends one datagram from a fresh port; set by the shell. Must not raise."""

    def expect(self, nonce: bytes, on_arrival: Callable[[Address], None]) -> None:
        """`on_arrival(source)` is called once when a frame with this nonce comes; until `forget`."""
        self._expected[nonce] = on_arrival
        while len(self._expected) > MAX_EXPECTED:
            del self._expected[next(iter(self._expected))]

    def forget(self, nonce: bytes) -> None:
        self._expected.pop(nonce, None)

    def dialled_untrusted(self, data: bytes, source: Address) -> None:
        """Take a 0x0A frame. Raise BadPacket: `bad_length`, `unknown_nonce`."""
        on_arrival = self._expected.pop(parse_dialled_untrusted(data), None)
        if on_arrival is None:
            raise BadPacket("unknown_nonce")
        on_arrival(source)

    def handle(self, request: DialBack | DialFor, asked: Asked, now: float, wall: float) -> Answer:
        observed = pack_address(asked.source)
        if not asked.overlay.is_public or asked.overlay not in self._engine.members.serving or self.dial is None:
            return Error(observed, ErrorCode.NOT_SERVING, 0)
        if isinstance(request, DialBack):
            admitted = self._help(request, asked, now, wall)
        else:
            admitted = self._dial_for_untrusted(request, asked, now)
        return DialBackAccepted(observed) if admitted else Error(observed, ErrorCode.BUSY, 0)

    def _help(self, request: DialBack, asked: Asked, now: float, wall: float) -> bool:
        if asked.source.is_link or not self._askers.take(prefix_of(asked.source.ip), now):
            return False
        address = asked.source._replace(port=request.port or asked.source.port)
        third = self._third(asked)
        if third is None:
            return self._dial(request.nonce, address, now)
        order = DialFor(pack_address(address), request.nonce)
        self._engine.call(third.address, NodeId(third.id), order, now=now, wall=wall, on_done=ignore)
        return True

    def _third(self, asked: Asked) -> Contact | None:
        """Return a random contact at another IP, of the asker's address family; other prefixes are preferred."""
        source = asked.source
        others = [
            contact
            for contact in self._engine.members.tables[asked.overlay]
            if contact.address.ip != source.ip and not contact.misses
            and contact.id != asked.session.peer_id.node_id
        ]  # fmt: skip
        prefix = prefix_of(source.ip)
        others = [contact for contact in others if contact.prefix != prefix] or others
        if not others:
            return None
        return others[int.from_bytes(self._engine.token_bytes(4), "big") % len(others)]

    def _dial_for_untrusted(self, request: DialFor, asked: Asked, now: float) -> bool:
        address = unpack_address_untrusted(request.address)
        overlay = self._engine.members.overlay_of(address.ip)
        if overlay is None or not overlay.is_public:
            raise BadPacket("bad_address")
        # By prefix: keys cost nothing, and one block must not use up what we dial for everybody.
        return self._helpers.take(prefix_of(asked.source.ip), now) and self._dial(request.nonce, address, now)

    def _dial(self, nonce: bytes, address: Address, now: float) -> bool:
        if self.dial is None or not self._dialled.take(prefix_of(address.ip), now):
            return False
        self._engine.counters.datagrams_out[dialled_frame(nonce)[0]] += 1
        self.dial(dialled_frame(nonce), address)
        return True
