"""ICE on the node's one socket: both sides check each other's candidates at once, which opens both routers.

An `IceSession` is one attempt: its parameters travel in a sealed offer or answer, `connect` gives the first address
that both sides can use, consent is kept until `close`. The checks themselves are aioice's (`nat/ice_agent.py`); this
module sorts STUN datagrams to sessions, refuses what is not theirs before any work is done (I1), and limits what an
offer can make us send (C1). RFC 8445; STUN as in `nat/stun.py`.

Differences from RFC 8445: USERNAME must be the first attribute of a check, so that strangers cost one dictionary
look-up; a check with a wrong username or integrity gets no error response, for that would tell a stranger something.
"""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from p2pnode.core.address import Address, Realm, realm_of
from p2pnode.core.errors import BadPacket, NoPathError, RefusedError
from p2pnode.core.network import Network
from p2pnode.nat.budget import PACKETS_BEFORE_ANSWER, AddressBudget, Pace
from p2pnode.nat.candidates import MAX_CANDIDATES, IceCandidate, IceParameters, may_check
from p2pnode.nat.consent import ConsentClock
from p2pnode.nat.errors import ConnectionClosedError
from p2pnode.nat.ice_reports import CheckReport, IceStatistics, Record
from p2pnode.nat.stun import BINDING_ERROR, BINDING_REQUEST, BINDING_RESPONSE, parse_stun_untrusted

if TYPE_CHECKING:
    from p2pnode.nat.ice_agent import Agent, Transaction

__all__ = ["IceEndpoint", "IceSession"]

# Chosen by us
UFRAG_BYTES, PASSWORD_BYTES = 6, 18  # 8 and 24 characters of base64, whose alphabet is ICE's
MAX_SESSIONS = 64
CHECKS_BEFORE_ANSWER = 6  # of the 10 packets that an address may get (C1); the others are left for QUIC
CHECKS_WHEN_HEARD = 8  # the other side's checks came from there: more likely it than a victim, but not proven
CHECKS_PER_S, CHECKS_BURST = 200.0, 100.0  # all sessions together
KNOWN_PER_S, UNKNOWN_PER_S = 200.0, 50.0  # incoming checks per session whose integrity is looked at
_REQUEST = BINDING_REQUEST.to_bytes(2, "big")
_ANSWERS = (BINDING_RESPONSE.to_bytes(2, "big"), BINDING_ERROR.to_bytes(2, "big"))
_USERNAME = b"\x00\x06"


class IceEndpoint:
    """Makes sessions and sorts the mux's STUN datagrams to them."""

    def __init__(
        self, *, network: Network, send: Callable[[bytes, Address], None], allow_documentation: bool = False
    ) -> None:
        """`send`: the mux's; never raises. `allow_documentation`: as `core.address.realm_of`."""
        # Loaded here and not above: only running nodes need it.
        from p2pnode.nat.ice_agent import Agent

        self.network = network
        self.send = send
        self.allow_documentation = allow_documentation
        self.budget = AddressBudget()
        self.pace = Pace(CHECKS_PER_S, CHECKS_BURST)
        self._agent_class = Agent
        self._sessions: dict[bytes, IceSession] = {}
        self._transactions: dict[bytes, Transaction] = {}
        self._counts: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()

    def session(self, *, controlling: bool, candidates: Sequence[IceCandidate]) -> IceSession:
        """Begin an attempt. `controlling`: the side that sent the offer. `candidates`: own, best first; 10 count.

        The session answers checks from now on, until `close`. Raise RefusedError above 64 sessions.
        """
        if len(self._sessions) >= MAX_SESSIONS:
            raise RefusedError("Too many connection attempts are under way; try again in some seconds.")
        ufrag = base64.b64encode(self.network.token_bytes(UFRAG_BYTES)).decode()
        password = base64.b64encode(self.network.token_bytes(PASSWORD_BYTES)).decode()
        usable = {each.address: each for each in candidates if "%" not in each.address.ip}
        local = IceParameters(ufrag, password, tuple(usable.values())[:MAX_CANDIDATES])
        session = IceSession(self, local, controlling=controlling, agent_class=self._agent_class)
        self._sessions[ufrag.encode()] = session
        return session

    def datagram_received(self, data: bytes, source: Address) -> bool:
        """Take a STUN datagram; False when it is none of ours, so that others may look at it. Never raises."""
        kind = data[:2]
        if kind == _REQUEST:
            if data[20:22] != _USERNAME:
                return False
            session = self._sessions.get(data[24:32])
            if session is None or data[32:33] != b":":
                self.dropped("unknown_username")
            else:
                session.request_received(data, source)
            return True
        if kind not in _ANSWERS:
            return False
        transaction = self._transactions.get(data[8:20])
        if transaction is None:
            return False
        try:
            transaction.response_untrusted(data, source)
        except BadPacket as exc:
            self.dropped(exc.reason)
        return True

    def session_of_check_untrusted(self, data: bytes) -> IceSession | None:
        """Return the session whose other side made this check, None for any other datagram."""
        session = self._sessions.get(data[24:32]) if data[:2] == _REQUEST and data[32:33] == b":" else None
        return session if session is not None and session.is_check_untrusted(data) else None

    def close(self) -> None:
        """Close all sessions."""
        for session in list(self._sessions.values()):
            session.close()

    def statistics(self) -> IceStatistics:
        return IceStatistics(
            sessions=len(self._sessions),
            checks_sent=self._counts["checks_sent"],
            checks_received=self._counts["checks_received"],
            answers_sent=self._counts["answers_sent"],
            dropped=MappingProxyType(dict(self._dropped)),
        )

    # what sessions call

    def counted(self, what: str) -> None:
        self._counts[what] += 1

    def dropped(self, reason: str) -> None:
        self._dropped[reason] += 1

    def transaction_began(self, transaction: Transaction) -> None:
        self._transactions[transaction.id] = transaction

    def transaction_ended(self, transaction: Transaction) -> None:
        self._transactions.pop(transaction.id, None)

    def session_closed(self, session: IceSession) -> None:
        self._sessions.pop(session.local.ufrag.encode(), None)


class IceSession:
    """One attempt to find an address that works. Made by `IceEndpoint.session`."""

    def __init__(
        self, endpoint: IceEndpoint, local: IceParameters, *, controlling: bool, agent_class: type[Agent]
    ) -> None:
        self.local = local
        """For the offer or answer."""
        self.network = endpoint.network
        self.on_check: Callable[[Address], None] | None = None
        """Called when the first check goes to an address: the moment to send QUIC's first packets there too."""
        self.on_pair: Callable[[Address], None] | None = None
        """Called for an address when the peer's check arrives from it, and when it answers ours; each once at most."""
        self.on_consent_missed: Callable[[], None] | None = None
        """Called when one consent check got no answer: lost, or the first sign that a router was restarted."""
        self.on_consent_lost: Callable[[], None] | None = None
        """Called when the address that `connect` returned gave no answer for 30 s; the session is closed then."""
        self.on_closed: list[Callable[[], None]] = []
        """Called when the session is closed, by whomever."""
        self._endpoint = endpoint
        self._key = local.password.encode()
        self._agent = agent_class(self, controlling=controlling, ufrag=local.ufrag, password=local.password)
        self._own_loopback = any(realm_of(each.address.ip) is Realm.LOOPBACK for each in local.candidates)
        self._records: dict[Address, Record] = {}
        self._known = Pace(KNOWN_PER_S, KNOWN_PER_S)
        self._unknown = Pace(UNKNOWN_PER_S, UNKNOWN_PER_S)
        self._consent: asyncio.Task[None] | None = None
        self._started = self._closed = False

    async def connect(self, remote: IceParameters, *, timeout: float = 12.0) -> Address:
        """Check the other side's candidates; return the address that is nominated, and keep consent from then on.

        Once per session. Raise NoPathError (facts: tried) after `timeout` seconds; ConnectionClosedError when `close`
        is called meanwhile. Failing or cancelled, it closes the session.
        """
        if self._started or self._closed:
            raise ConnectionClosedError("This attempt has ended.", reason="closed")
        self._started = True
        candidates = [each for each in remote.candidates if self.may_learn(each.address)]
        for each in candidates:
            self._records.setdefault(each.address, Record(each.kind)).kind = each.kind
        address = None
        try:
            async with asyncio.timeout(timeout):
                address = await self._agent.run(remote, candidates)
        except TimeoutError as exc:
            raise NoPathError(
                f"None of the peer's {len(self._records)} addresses answered within {timeout:g} s.",
                tried=[str(each) for each in self._records],
            ) from exc
        finally:
            if address is None:
                self.close()
        if address is None:
            raise ConnectionClosedError("This attempt was given up.", reason="closed")
        self._consent = asyncio.ensure_future(self._keep_consent())
        return address

    def spend(self, address: Address) -> bool:
        """Whether one more packet may go to this address, which may not have answered yet (C1); counted when so.

        For `QuicEndpoint.connect(..., spend=...)`: checks and QUIC share the 10 packets.
        """
        now = self.network.monotonic()
        record = self._records.setdefault(address, Record("prflx"))
        if record.spent >= PACKETS_BEFORE_ANSWER and not self._endpoint.budget.is_answered(address, now):
            return False
        if not self._endpoint.budget.spend(address, now):
            return False
        record.spent += 1
        return True

    def has_answered(self, address: Address) -> bool:
        """Whether a check to this address was answered."""
        record = self._records.get(address)
        return record is not None and record.answered

    def report(self) -> tuple[CheckReport, ...]:
        """What was tried and what answered, in the order of the candidates."""
        return tuple(
            CheckReport(address, each.kind, each.state, each.sent, each.rtt_s, each.own)
            for address, each in self._records.items()
        )

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def addresses_answered(self) -> tuple[Address, ...]:
        """The addresses that answered a check of ours."""
        return tuple(address for address, record in self._records.items() if record.answered)

    def guess(self) -> bytes:
        """Return a check for ports that are guessed (nat/guessing.py), the same for all. Only while `connect` runs.

        Its answer tells nothing: whoever receives it checks the address that it came from.
        """
        return self._agent.guess()

    def is_check_untrusted(self, data: bytes) -> bool:
        """Whether a STUN datagram has this session's integrity."""
        try:
            return parse_stun_untrusted(data).integrity_valid(data, self._key)
        except BadPacket:
            return False

    def afresh(self, address: Address) -> None:
        """The way to this address has just been opened: what was sent there in vain no longer counts (C1)."""
        self._endpoint.budget.afresh(address)
        self._agent.afresh(address)
        if (record := self._records.get(address)) is not None:
            record.sent = record.spent = 0

    def close(self) -> None:
        """End checks, answers and consent at once. Twice is harmless."""
        if self._closed:
            return
        self._closed = True
        self._agent.stop()
        if self._consent is not None:
            self._consent.cancel()
        self._endpoint.session_closed(self)
        while self.on_closed:
            self._call(self.on_closed.pop())

    # what the endpoint calls

    def request_received(self, data: bytes, source: Address) -> None:
        """Take a check that names this session. Never raises."""
        now = self.network.monotonic()
        record = self._records.get(source)
        try:
            if not (self._known if record is not None else self._unknown).allow(now):
                raise BadPacket("too_many_checks")
            if not parse_stun_untrusted(data).integrity_valid(data, self._key):
                raise BadPacket("bad_integrity")
            message = self._agent.parse_untrusted(data)
            if "PRIORITY" not in message.attributes or not message.attributes.keys() & {
                "ICE-CONTROLLING",
                "ICE-CONTROLLED",
            }:
                raise BadPacket("not_a_check")
        except BadPacket as exc:
            self._endpoint.dropped(exc.reason)
            return
        self._endpoint.counted("checks_received")
        if record is None and len(self._records) < 2 * MAX_CANDIDATES and self.may_learn(source):
            record = self._records[source] = Record("prflx")
        first = record is not None and not record.heard
        if record is not None:
            record.heard = True
        self._agent.check_received(message, source)
        if first:
            self._call(self.on_pair, source)

    # what the agent calls

    def send_check(self, data: bytes, to: Address) -> None:
        now = self.network.monotonic()
        record = self._records.setdefault(to, Record("prflx"))
        limit = CHECKS_WHEN_HEARD if record.heard else CHECKS_BEFORE_ANSWER
        if record.sent >= limit and not self._endpoint.budget.is_answered(to, now):
            self._endpoint.dropped("budget")
        elif not self._endpoint.pace.allow(now):
            self._endpoint.dropped("pace")
        elif not self.spend(to):
            self._endpoint.dropped("budget")
        else:
            record.sent += 1
            self._endpoint.counted("checks_sent")
            self._endpoint.send(data, to)
            if record.sent == 1:
                self._call(self.on_check, to)

    def send_answer(self, data: bytes, to: Address) -> None:
        self._endpoint.counted("answers_sent")
        self._endpoint.send(data, to)

    def began(self, transaction: Transaction) -> None:
        self._endpoint.transaction_began(transaction)

    def ended(self, transaction: Transaction) -> None:
        self._endpoint.transaction_ended(transaction)

    def answered(self, address: Address, own: Address | None, rtt_s: float | None) -> None:
        self._endpoint.budget.answered(address, self.network.monotonic())
        record = self._records.setdefault(address, Record("prflx"))
        first, record.answered = not record.answered, True
        record.own, record.rtt_s = own or record.own, rtt_s or record.rtt_s
        if first:
            self._call(self.on_pair, address)

    def may_learn(self, address: Address) -> bool:
        return may_check(
            address, own_loopback=self._own_loopback, allow_documentation=self._endpoint.allow_documentation
        )

    async def _keep_consent(self) -> None:
        clock = ConsentClock(self.network.monotonic(), self.network.rng)
        while not clock.is_lost(self.network.monotonic()):
            await asyncio.sleep(max(0.0, clock.check_at - self.network.monotonic()))
            if clock.is_lost(self.network.monotonic()):
                break
            clock.checked(self.network.monotonic())
            if await self._agent.consents():
                clock.answered(self.network.monotonic())
            elif not self._closed:
                self._call(self.on_consent_missed)
        self._consent = None
        self.close()
        self._call(self.on_consent_lost)

    def _call(self, callback: Callable[..., object] | None, *args: object) -> None:
        """Call an owner's callback; what it raises goes to the loop's handler, never into the packet path."""
        if callback is None:
            return
        try:
            callback(*args)
        except Exception as exc:  # noqa: BLE001 - any error of the owner, handed on whole
            asyncio.get_running_loop().call_exception_handler({"message": "an ICE callback failed", "exception": exc})

    def __repr__(self) -> str:
        return f"<IceSession {self.local.ufrag} {len(self._records)} addresses>"
