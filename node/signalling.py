"""Offers and answers through rendezvous nodes, and the ICE sessions that they start: how two NATed peers meet.

Caller: sends its candidates sealed to the callee through several rendezvous nodes at once; with the answer, dials every
candidate beside the ICE checks, and whatever address a check succeeds from. Callee: answers by the way the offer came,
and starts its checks in the same moment, before the caller has the answer. An address that the caller publishes (it is
public) is dialled by the callee at once: no punching is needed then.

Nothing here is believed: offers are sealed, signed, budgeted and replay-proof (`offer_guard`), checks carry the
password that travelled sealed, and the QUIC connection proves both keys in the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import replace

import structlog

from p2pnode.core.address import Address
from p2pnode.core.errors import BadPacket, NoPathError, P2PError, RefusedError
from p2pnode.core.ids import PeerId
from p2pnode.core.keys import NodeKey
from p2pnode.core.network import Network
from p2pnode.core.tasks import TaskSet
from p2pnode.dht import Dht, KnownContact
from p2pnode.dialing import AHEAD, DialCandidate
from p2pnode.meetings import Meeting, OwnSide, no_path, spare_of
from p2pnode.nat import IceEndpoint, IceParameters, Path
from p2pnode.offer import Answer, Offer, Refusal, offer_hash, seal
from p2pnode.offer_guard import OfferGuard, Received
from p2pnode.offering import Offering
from p2pnode.port_guessing import PortGuessing
from p2pnode.port_sampling import DEPENDENT
from p2pnode.presence import FindResult
from p2pnode.reachability import NatKind
from p2pnode.relay_dialing import RelayDialing
from p2pnode.vouches import Vouches

__all__ = ["Signalling"]

log = structlog.get_logger(__name__)

AHEAD_AGAIN_S = 0.1  # a round trip of most lines: the offer is there by then
ICE_TIMEOUT_S = 12.0
GUESS_TIMEOUT_S = 14.0  # below the 15 s of a connect, so that it says why
CONNECTION_WAIT_S = 15.0  # from the callee's answer until the caller's connection must have come
MAX_INCOMING = 32  # attempts of others under way at once, each an ICE session of about 10 kB
MAX_RENDEZVOUS = 4  # ways that one offer takes
MAX_HITS = 4  # guessed ports that are remembered until there is a session


class Signalling:
    """All offers and answers of a node."""

    def __init__(
        self, *, key: NodeKey, network: Network, network_tag: bytes, dht: Dht, ice: IceEndpoint, guard: OfferGuard,
        guessing: PortGuessing, rendezvous: Callable[[], Sequence[KnownContact]], own_side: Callable[[], OwnSide],
        blocked: Callable[[PeerId], bool], session_path: Callable[[PeerId], Path | None],
        called: Callable[[PeerId], None],
        dial_back: Callable[[PeerId, Sequence[Address], Callable[[Address], bool]], Coroutine[None, None, None]],
        path_to: Callable[[Address], Path], nudge: Callable[[Path], None], relays: RelayDialing, hidden: bool,
        path_found: Callable[[PeerId, Path, bool], None], consent_missed: Callable[[], None],
        consent_lost: Callable[[PeerId], None],
    ) -> None:  # fmt: skip
        """`called(peer)`: it made an offer. `dial_back(peer, addresses, spend)` dials what a caller published; it never
        raises. `nudge(path)`: a check came by it or was answered, so what QUIC sent by it before may be sent again at
        once. `rendezvous()`: the nodes that forward to us. `path_found(peer, path, new)`: it works; `new`: the peer's
        router gave it this mapping only now. `hidden`: no peer is told our addresses: relays only."""
        self._key = key
        self._network = network
        self._tag = network_tag
        self._dht = dht
        self._ice = ice
        self._guard = guard
        self._guessing = guessing
        self._rendezvous = rendezvous
        self._own_side = own_side
        self._blocked = blocked
        self._session_path = session_path
        self._called = called
        self._dial_back = dial_back
        self._path_to = path_to
        self._nudge = nudge
        self._relays = relays
        self._hidden = hidden
        self._path_found = path_found
        self._consent_missed = consent_missed
        self._consent_lost = consent_lost
        self.deaf = False
        """Offers are not answered: nobody shall see that we are here."""
        self._tasks = TaskSet()
        self._offering = Offering(
            key=key, network=network, network_tag=network_tag, dht=dht, guard=guard, hidden=hidden
        )
        self._incoming: dict[tuple[PeerId, str], Meeting] = {}
        self._meetings: dict[Meeting, None] = {}  # in order of birth
        self._last_answers: dict[bytes, tuple[PeerId, Meeting | None, asyncio.Future[bytes]]] = {}

    # caller

    async def punch(self, found: FindResult, ways: Sequence[KnownContact], dial: DialCandidate) -> None:
        """Offer to `found.peer` through `ways`; call `dial(path, why, spend)` for each path worth dialling.

        Runs until the checks have failed or the caller cancels it, having a session; the checks that are under way then
        go on, since consent keeps the path. Raise NoPathError, BothNatsRandomError, RefusedError.
        """
        own = self._own_side()
        ways = ways[:MAX_RENDEZVOUS]
        self._make_room(found.peer)
        session = self._ice.session(controlling=True, candidates=own.candidates)
        meeting = Meeting(found.peer, session, Vouches((way.address for way in ways), chosen_by_peer=True))
        self._meetings[meeting] = None
        self._begin_ahead(meeting, found, own, dial)
        exchanging = asyncio.ensure_future(self._exchange(meeting, found, ways, own))
        try:
            answer, remote = await asyncio.shield(exchanging)
        except BaseException:
            path = self._session_path(meeting.peer)
            if not exchanging.done() and path is not None and path.remote in meeting.remotes:
                self._tasks.spawn(self._answered_late(meeting, exchanging))
            else:
                exchanging.cancel()
                self._drop(meeting)
                await asyncio.wait({exchanging})
            raise
        nats = own.nat, answer.nat
        meeting.guessing = self._guessing.helps(meeting.ice, nats, remote.guess)
        checks = self._checks(meeting, remote, nats, lambda path, why: dial(path, why, meeting.ice.spend))
        if meeting.guessing:
            self._guessing.start(meeting.ice, found.peer, nats, remote.guess, meeting.vouches, called=False)
        for address in () if self._hidden else answer.addresses:
            dial(self._path_to(address), "offered address", meeting.ice.spend)
        relaying = self._relays.start(
            found.peer,
            own,
            answer,
            answer.relays,
            lambda path: dial(path, "relay", None),
            alone=self._hidden or not remote.candidates,
        )
        try:
            await asyncio.shield(checks)
        except P2PError as exc:
            await asyncio.wait({relaying})  # what it dials still may succeed
            raise no_path(found.peer, *nats, guessed=meeting.guessing, hidden=self._hidden) from exc
        await asyncio.sleep(CONNECTION_WAIT_S)  # the dial that was just started ends this by cancelling it

    def _begin_ahead(self, meeting: Meeting, found: FindResult, own: OwnSide, dial: DialCandidate) -> None:
        """Dial where the peer's router shows it, ahead of its answer.

        Mostly its router drops this, but ours is open then for the checks that the peer begins with our offer. The
        first of them, proven by the password in the offer, comes half a round trip before the answer does.
        """
        ours = {each.address.ip for each in own.candidates}  # behind the same router there is a nearer way

        def checked(address: Address) -> None:
            meeting.remotes |= {address}
            path = self._path_to(address)
            dial(path, "checked", meeting.ice.spend)
            self._nudge(path)

        meeting.ice.on_pair = checked
        silent = self._hidden or own.nat is NatKind.UDP_BLOCKED
        there = [] if silent else [each for each in found.outside if each.ip not in ours]
        meeting.remotes |= set(there)
        for address in there:
            dial(self._path_to(address), AHEAD, meeting.ice.spend)
        if there:
            self._tasks.spawn(self._nudge_again(there))

    async def _nudge_again(self, addresses: Sequence[Address]) -> None:
        """Behind a router of ours with a port for each destination no check is heard; the peer's may be open by now."""
        await asyncio.sleep(AHEAD_AGAIN_S)
        for address in addresses:
            self._nudge(self._path_to(address))

    async def _exchange(
        self, meeting: Meeting, found: FindResult, ways: Sequence[KnownContact], own: OwnSide
    ) -> tuple[Answer, IceParameters]:
        await self._consent(meeting, own, called=False)
        answer = await self._offering.exchange(found, ways, own, meeting)
        try:
            remote = IceParameters.decode_untrusted(answer.ice)
        except BadPacket as exc:
            raise NoPathError(f"{found.peer} answered what cannot be read.", peer=str(found.peer)) from exc
        meeting.published = frozenset(answer.addresses)
        return answer, remote

    async def _answered_late(self, meeting: Meeting, exchanging: asyncio.Future[tuple[Answer, IceParameters]]) -> None:
        """The session was there before the answer: check its path all the same, which gives and keeps consent."""
        try:
            _, remote = await exchanging
        except P2PError:
            self._drop(meeting)
        else:
            self._checks(meeting, remote, (), lambda _path, _why: None)

    def session_opened(self, peer: PeerId, path: Path) -> None:
        """A session with `peer` is there: only checks that keep its path alive, or may find a better one, go on."""
        for meeting in [m for m in self._meetings if m.peer == peer and m.remote]:
            if path.relayed:
                # Found while the relayed handshake was under way
                for address in dict.fromkeys((*meeting.ice.addresses_answered, *meeting.hits)):
                    self._path_found(peer, self._path_to(address), False)
            elif meeting.through_hole(path.remote):
                meeting.remotes |= {path.remote}
            elif path.remote not in meeting.remotes:
                self._drop(meeting)

    def session_ended(self, peer: PeerId) -> None:
        """The session with `peer` has ended, and so does its consent."""
        for meeting in [m for m in self._meetings if m.peer == peer]:
            self._drop(meeting)

    def is_punched(self, peer: PeerId, remote: Address) -> bool:
        """Whether a connection with `peer` at `remote` goes through a hole that both sides made."""
        return any(m.peer == peer and m.through_hole(remote) for m in self._meetings)

    async def stop(self) -> None:
        """End everything that is under way."""
        await self._tasks.cancel()
        for meeting in list(self._meetings):
            self._drop(meeting)

    # callee

    def delivered(self, sender: PeerId, blob: bytes, via: KnownContact, seen: Address | None) -> None:
        """A rendezvous node hands us what `sender` is said to have sealed for us. Never raises."""
        try:
            received = self._guard.receive_untrusted(
                blob, sender=sender, via=via.node_id, now=self._network.monotonic(), wall=self._network.wall()
            )
        except BadPacket as exc:
            log.info("offer_refused", sender=str(sender), reason=exc.reason)
            return
        if isinstance(received.message, Answer):
            self._offering.answered(received.message, via, seen)
        elif not self.deaf:
            self._tasks.spawn(self._take_offer(received, received.message, blob, via, seen))

    async def _take_offer(
        self, received: Received, offer: Offer, blob: bytes, via: KnownContact, seen: Address | None
    ) -> None:
        sender = received.sender
        if received.copy:
            known = self._last_answers.get(offer.attempt)
            if known is not None and known[0] == sender:
                if known[1] is not None:
                    known[1].vouches.add(via.address, seen)
                await self._dht.forward(via, sender.node_id, await asyncio.shield(known[2]), vouch=not self._hidden)
            return
        own = self._own_side()
        refusal, meeting = self._admit(received, offer, own)
        ready: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._last_answers[offer.attempt] = (sender, meeting, ready)
        while len(self._last_answers) > 2 * MAX_INCOMING:
            _, _, oldest = self._last_answers.pop(next(iter(self._last_answers)))
            oldest.cancel()
        if meeting is not None:
            meeting.vouches.add(via.address, seen)
            await asyncio.wait([each for each in (meeting.relays, meeting.consent) if each is not None])
        answer = Answer(
            offer.attempt,
            int(self._network.wall() * 1000),
            self._key.x25519_public,
            meeting.ice.local.encode() if meeting is not None else b"",
            own.published if meeting is not None else (),
            own.nat if meeting is not None else NatKind.UNKNOWN,
            offer_hash(blob),
            refusal,
            meeting.relays.result() if meeting is not None and meeting.relays is not None else (),
        )
        try:
            sealed = seal(answer, key=self._key, to=sender, to_x25519=offer.x25519, network_tag=self._tag)
        except BadPacket:
            ready.cancel()
            return
        if not ready.done():
            ready.set_result(sealed)
        await self._dht.forward(via, sender.node_id, sealed, vouch=not self._hidden)

    def _admit(self, received: Received, offer: Offer, own: OwnSide) -> tuple[Refusal, Meeting | None]:
        """Start the checks for a new offer; an offer repeated because our answer was lost finds them under way."""
        sender = received.sender
        if self._blocked(sender):
            return Refusal.REFUSED, None
        try:
            remote = IceParameters.decode_untrusted(offer.ice)
        except BadPacket:
            return Refusal.REFUSED, None
        meeting = self._incoming.get((sender, remote.ufrag))
        if meeting is not None:
            return Refusal.NONE, meeting
        if len(self._incoming) >= MAX_INCOMING:
            return Refusal.BUSY, None
        self._make_room(sender)
        try:
            session = self._ice.session(controlling=False, candidates=own.candidates)
        except RefusedError:
            return Refusal.BUSY, None
        meeting = Meeting(sender, session, Vouches((way.address for way in self._rendezvous()), chosen_by_peer=False))
        self._meetings[meeting] = None
        self._incoming[sender, remote.ufrag] = meeting
        self._called(sender)
        meeting.published = frozenset(offer.addresses)
        meeting.relays = self._relays.called(sender, own, offer, caller_is_hidden=not remote.candidates)
        meeting.guessing = remote.guess is not None and (own.nat in DEPENDENT or offer.nat in DEPENDENT)
        self._checks(meeting, remote, (own.nat, offer.nat), lambda _path, _why: None)
        if meeting.guessing:
            meeting.consent = self._tasks.spawn(self._agree(meeting, remote, own, offer.nat))
        if offer.addresses and not self._hidden:
            self._tasks.spawn(self._dial_back(sender, offer.addresses, session.spend))
        return Refusal.NONE, meeting

    async def _agree(self, meeting: Meeting, remote: IceParameters, own: OwnSide, their_nat: NatKind) -> None:
        """Tell the caller on which terms we guess, and begin."""
        await self._consent(meeting, own, called=True)
        self._guessing.start(
            meeting.ice, meeting.peer, (own.nat, their_nat), remote.guess, meeting.vouches, called=True
        )

    # both

    async def _consent(self, meeting: Meeting, own: OwnSide, *, called: bool) -> None:
        terms = await self._guessing.terms(meeting.peer, own.nat, own.ports, called=called)
        meeting.ice.local = replace(meeting.ice.local, guess=terms)

    def _checks(
        self, meeting: Meeting, remote: IceParameters, nats: Collection[NatKind], dial: Callable[[Path, str], None]
    ) -> asyncio.Future[None]:
        """Start the checks of a meeting. `dial` is called when the first check goes by a path, and for new ones.
        `nats`: what stands before the two. Where no UDP passes, checks would only use up what an address may draw of
        us (C1): a TCP hole punch to the same one needs it."""
        if self._hidden or NatKind.UDP_BLOCKED in nats:
            remote = replace(remote, candidates=())  # nothing is sent there
        meeting.remote = remote
        meeting.remotes |= {candidate.address for candidate in remote.candidates}
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.add_done_callback(lambda future: future.exception())  # retrieved: nobody may be waiting any more

        def pair(address: Address) -> None:
            path = self._path_to(address)
            new = done.done() and address not in meeting.remotes
            # When a guess has hit, our own check need not be answered first: a relayed session probes the path itself.
            if new or meeting.guessing or meeting.ice.has_answered(address):
                self._path_found(meeting.peer, path, new)
            why = "guessed port" if meeting.guessing and address not in meeting.remotes else "checked"
            meeting.remotes |= {address}
            if meeting.guessing:
                meeting.hits = (*meeting.hits, address)[-MAX_HITS:]
            dial(path, why)
            self._nudge(path)

        meeting.ice.on_check = lambda address: dial(self._path_to(address), "candidate")
        meeting.ice.on_pair = pair
        meeting.ice.on_consent_missed = self._consent_missed
        meeting.ice.on_consent_lost = lambda: self._lost(meeting)
        self._tasks.spawn(self._run_checks(meeting, remote, done))
        return done

    async def _run_checks(self, meeting: Meeting, remote: IceParameters, done: asyncio.Future[None]) -> None:
        """Check until a pair is nominated; then wait for the connection, and go if there is none."""
        try:
            timeout = GUESS_TIMEOUT_S if meeting.guessing else ICE_TIMEOUT_S
            await meeting.ice.connect(remote, timeout=timeout)
        except P2PError as exc:
            log.info("checks_failed", peer=str(meeting.peer), code=exc.code)
            self._drop(meeting)
            done.set_exception(exc)
            return
        except Exception:
            self._drop(meeting)
            done.set_exception(NoPathError("The checks towards the peer broke off.", peer=str(meeting.peer)))
            raise  # logged by the task's owner
        meeting.found = True
        done.set_result(None)
        await asyncio.sleep(CONNECTION_WAIT_S)
        self._incoming.pop((meeting.peer, remote.ufrag), None)
        if self._session_path(meeting.peer) is None:
            self._drop(meeting)

    def _make_room(self, peer: PeerId) -> None:
        """For one more meeting, with `peer`."""
        while (spare := spare_of(self._meetings, peer, self._session_path)) is not None:
            self._drop(spare)

    def _lost(self, meeting: Meeting) -> None:
        if meeting in self._meetings:
            self._drop(meeting)
            self._consent_lost(meeting.peer)

    def _drop(self, meeting: Meeting) -> None:
        self._meetings.pop(meeting, None)
        if meeting.remote is not None:
            self._incoming.pop((meeting.peer, meeting.remote.ufrag), None)
        meeting.ice.close()
