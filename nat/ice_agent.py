"""aioice's agent on the shared socket, and what it does differently there.

- No sockets of its own: `SharedSocket` stands for the mux's socket of one family. Remote candidates pair with that, so
  there are at most as many pairs as remote candidates.
- Requests are repeated after 0.1, 0.3, 0.7, 1.5 and 3.1 s (aioice and RFC 8445, section 14.3: from 0.5 s on): six small
  packets to an address that never answers, and a lost one, or one that came before the other router was open, costs
  little.
- A check that arrives while ours to its source is under way makes us repeat ours at once. The first one was sent before
  the other side's router let it in; waiting for the next turn made a punch take 0.5 s instead of one round trip.
  RFC 8445, section 7.3.1.4, "Triggered Checks" (which cancels the old transaction; we keep it, its answer is as good).
- No failure while time is left: the other side may begin seconds later, when its answer was lost on the way.
- A new check every 5 ms (aioice: 20), the least that RFC 8445, section 14, "Setting Ta and RTO", allows.
- At most `MAX_LEARNT` peer-reflexive candidates; entropy and time come from `Network`.

Bytes reach the agent only after `nat/ice.py` has checked fingerprint and integrity.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable, Sequence
from typing import Protocol

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket
from p2pnode.core.network import Network
from p2pnode.nat.candidates import IceCandidate, IceParameters
from p2pnode.nat.lean_aioice import (
    ICE_COMPLETED,
    ICE_FAILED,
    Candidate,
    CandidatePair,
    Connection,
    StunProtocol,
    candidate_priority,
    stun,
)
from p2pnode.nat.stun import BINDING_ERROR, BINDING_RESPONSE, StunMessage, parse_stun_untrusted

__all__ = ["Agent", "AgentHost", "Transaction", "parse_for_agent_untrusted"]

# Chosen by us
CHECK_INTERVAL_S = 0.005
CHECK_WAITS_S = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
CONSENT_WAITS_S = (1.0,)  # above any round trip; a restarted router must be noticed soon
REPEAT_AFTER_S = 0.02  # several checks of the other side in one burst are one reason to repeat ours
MAX_LEARNT = 5

# Its log lines name addresses of peers at every step; what matters is in the session's report.
logging.getLogger("aioice").setLevel(logging.CRITICAL)


class AgentHost(Protocol):
    """What the agent needs from its session."""

    network: Network

    def send_check(self, data: bytes, to: Address) -> None: ...
    def send_answer(self, data: bytes, to: Address) -> None: ...
    def began(self, transaction: Transaction) -> None: ...
    def ended(self, transaction: Transaction) -> None: ...
    def answered(self, address: Address, own: Address | None, rtt_s: float | None) -> None: ...
    def may_learn(self, address: Address) -> bool: ...


def parse_for_agent_untrusted(data: bytes) -> stun.Message:
    """aioice's parser; raise BadPacket("malformed")."""
    try:
        return stun.parse_message(data)
    except (ValueError, struct.error) as exc:
        raise BadPacket("malformed") from exc


class Transaction:
    """One request, repeated until it is answered."""

    def __init__(
        self, data: bytes, to: Address, key: bytes, waits: Sequence[float], send: Callable[[bytes, Address], None]
    ) -> None:
        """`waits`: seconds after each sending; after the last one it has failed."""
        self.id = data[8:20]
        self.to = to
        self.own: Address | None = None
        self._data = data
        self._key = key
        self._waits = waits
        self._send = send
        self._turn = self._sent = 0
        self._sent_at = 0.0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._answer: asyncio.Future[stun.Message] = self._loop.create_future()

    async def run(self) -> stun.Message:
        """Return the response. Raise aioice's TransactionTimeout, TransactionFailed (an error response)."""
        try:
            self._fire()
            return await self._answer
        finally:
            if self._timer is not None:
                self._timer.cancel()

    @property
    def rtt_s(self) -> float | None:
        """Seconds from request to answer; None when it was repeated, for nobody knows which one was answered."""
        return self._loop.time() - self._sent_at if self._sent == 1 else None

    def repeat(self) -> None:
        """The other side has just sent to us: now it may get through."""
        if not self._answer.done() and self._loop.time() - self._sent_at >= REPEAT_AFTER_S:
            self._turn = 0
            self._fire()

    def afresh(self) -> None:
        """What was sent so far went nowhere: the next `repeat` is not too early."""
        self._sent_at = float("-inf")

    def response_untrusted(self, data: bytes, source: Address) -> None:
        """Take a response with this transaction's id. Raise BadPacket; the true one may still come then."""
        if source != self.to:
            raise BadPacket("other_address")  # RFC 8445, section 7.2.5.2.1, "Non-Symmetric Transport Addresses"
        message: StunMessage = parse_stun_untrusted(data)
        if message.kind not in (BINDING_RESPONSE, BINDING_ERROR) or not message.integrity_valid(data, self._key):
            raise BadPacket("bad_integrity")
        parsed = parse_for_agent_untrusted(data)
        if message.kind == BINDING_RESPONSE:
            self.own = message.mapped_address_untrusted()
        if self._answer.done():
            return
        if message.kind == BINDING_RESPONSE:
            self._answer.set_result(parsed)
        else:
            self._answer.set_exception(stun.TransactionFailed(parsed))

    def _fire(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._answer.done():
            return
        if self._turn == len(self._waits):
            self._answer.set_exception(stun.TransactionTimeout())
            return
        self._sent += 1
        self._sent_at = self._loop.time()
        self._send(self._data, self.to)
        self._timer = self._loop.call_later(self._waits[self._turn], self._fire)
        self._turn += 1


class SharedSocket(StunProtocol):
    """The mux's socket of one family, as aioice sees it."""

    def __init__(self, agent: Agent, host: AgentHost, ip: str) -> None:
        super().__init__(agent)
        self._host = host
        self._running: dict[Address, Transaction] = {}
        self.local_candidate = Candidate(
            foundation=ip, component=1, transport="udp", priority=candidate_priority(1, "host"),
            host=ip, port=9, type="host",
        )  # fmt: skip

    async def request(
        self,
        request: stun.Message,
        addr: tuple[str, int],
        integrity_key: bytes | None = None,
        retransmissions: int | None = None,
    ) -> tuple[stun.Message, tuple[str, int]]:
        """`retransmissions`: 0 for a consent check, which is sent once."""
        assert integrity_key is not None  # noqa: S101 - the agent checks only when it knows the password
        request.add_message_integrity(integrity_key)
        waits = CONSENT_WAITS_S if retransmissions == 0 else CHECK_WAITS_S
        transaction = Transaction(bytes(request), Address(*addr), integrity_key, waits, self._host.send_check)
        self._running[transaction.to] = transaction
        self._host.began(transaction)
        try:
            response = await transaction.run()
            self._host.answered(transaction.to, transaction.own, transaction.rtt_s)
            return response, transaction.to
        finally:
            self._host.ended(transaction)
            if self._running.get(transaction.to) is transaction:
                del self._running[transaction.to]

    def afresh(self, address: Address) -> None:
        if (transaction := self._running.get(address)) is not None:
            transaction.afresh()

    def repeat(self, address: Address) -> None:
        if (transaction := self._running.get(address)) is not None:
            transaction.repeat()

    def send_stun(self, message: stun.Message, addr: tuple[str, int]) -> None:
        self._host.send_answer(bytes(message), Address(*addr))

    async def close(self) -> None:
        """The socket is the mux's."""


class Agent(Connection):
    """One attempt. Give it the remote parameters with `run`; checks that come earlier wait for them."""

    def __init__(self, host: AgentHost, *, controlling: bool, ufrag: str, password: str) -> None:
        super().__init__(ice_controlling=controlling, local_username=ufrag, local_password=password)
        self._host = host
        self._tie_breaker = int.from_bytes(host.network.token_bytes(8), "big")
        self._sockets = {False: SharedSocket(self, host, "0.0.0.0"), True: SharedSocket(self, host, "::")}
        self._protocols.extend(self._sockets.values())
        self._local_candidates.extend(socket.local_candidate for socket in self._sockets.values())
        self._local_candidates_end = True
        self._learnt = 0

    async def gather_candidates(self) -> None:
        """Nothing to gather: the sockets are there, and the node knows their addresses."""

    def parse_untrusted(self, data: bytes) -> stun.Message:
        """aioice's parser. Raise BadPacket("malformed")."""
        return parse_for_agent_untrusted(data)

    def check_received(self, message: stun.Message, source: Address) -> None:
        """Take a request whose integrity was checked."""
        self.request_received(message, source, self._sockets[source.is_ipv6])

    async def run(self, remote: IceParameters, candidates: Sequence[IceCandidate]) -> Address | None:
        """Check `candidates` until one is nominated; return its address, None when stopped. No time limit."""
        self.remote_username, self.remote_password = remote.ufrag, remote.password
        for each in candidates:
            kind = "host" if each.kind == "host" else "srflx"
            self._add_remote_candidate(
                Candidate(each.kind, 1, "udp", each.priority, each.address.ip, each.address.port, kind),
                each.address.ip,
            )
        self._early_checks_done = True
        while self._early_checks:
            self.check_incoming(*self._early_checks.popleft())
        await self._start_checks()
        result = await self._check_list_state.get()
        self._cancel_checks()
        pair = self._nominated.get(1)
        return Address(*pair.remote_addr) if result == ICE_COMPLETED and pair is not None else None

    async def consents(self) -> bool:
        """Ask the nominated address once; whether it answered."""
        pair = self._nominated[1]
        assert self.remote_password is not None  # noqa: S101 - known since `run`
        try:
            await pair.protocol.request(
                self.build_request(pair, nominate=False), pair.remote_addr, self.remote_password.encode(), 0
            )
        except stun.TransactionError:
            return False
        return True

    def afresh(self, address: Address) -> None:
        """The way to this address has just been opened."""
        self._sockets[address.is_ipv6].afresh(address)

    def guess(self) -> bytes:
        """Return a check for no candidate in particular."""
        assert self.remote_password is not None  # noqa: S101 - known since `run`
        nowhere = Candidate("guess", 1, "udp", 0, "0.0.0.0", 9, "prflx")
        request = self.build_request(CandidatePair(self._sockets[False], nowhere), nominate=self.ice_controlling)
        request.add_message_integrity(self.remote_password.encode())
        return bytes(request)

    def stop(self) -> None:
        """End everything at once."""
        self._closing = True
        if not self._check_list_done:
            self._check_list_done = True
            self._check_list_state.put_nowait(ICE_FAILED)
        self._cancel_checks()

    async def _start_checks(self) -> None:
        while not self._check_list_done:
            waiting = [pair for pair in self._check_list if pair.state in _NOT_STARTED and pair.task is None]
            if not waiting:
                return
            self.check_start_task(waiting[0])  # the list is sorted by priority
            await asyncio.sleep(CHECK_INTERVAL_S)

    def _cancel_checks(self) -> None:
        for pair in self._check_list:
            if pair.task is not None:
                pair.task.cancel()

    # what aioice calls

    def build_request(self, pair: CandidatePair, nominate: bool) -> stun.Message:
        request = super().build_request(pair, nominate)
        request.transaction_id = self._host.network.token_bytes(12)
        return request

    def check_incoming(self, message: stun.Message, addr: tuple[str, int], protocol: StunProtocol) -> None:
        source = Address(*addr)
        if self._check_list_done or not (self._is_known(source) or self._learn(message, source)):
            return
        super().check_incoming(message, addr, protocol)
        self._sockets[source.is_ipv6].repeat(source)

    def _is_known(self, address: Address) -> bool:
        return any(each._network_host == address.ip and each.port == address.port for each in self._remote_candidates)

    def _learn(self, message: stun.Message, address: Address) -> bool:
        """RFC 8445, section 7.3.1.3, "Learning Peer-Reflexive Candidates"."""
        if self._learnt >= MAX_LEARNT or not self._host.may_learn(address):
            return False
        self._learnt += 1
        priority: int = message.attributes["PRIORITY"]
        self._remote_candidates.append(Candidate("prflx", 1, "udp", priority, address.ip, address.port, "prflx"))
        return True

    def _check_list_maybe_fail(self) -> None:
        """Never: see the module's docstring."""


_NOT_STARTED = (CandidatePair.State.FROZEN, CandidatePair.State.WAITING)
