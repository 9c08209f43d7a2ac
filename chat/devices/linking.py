"""Linking a device: the old one makes a code and serves it once; the new one asks with it.

code = chat.devices.linking.begin()                      # on the old device: code.text, also as a QR code
linked = await link_account(node, code, keep)            # on the new one: a node that runs without a chat
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from p2pnode import (
    AccountKey,
    BadPacket,
    DeviceList,
    LinkCodeError,
    P2PError,
    P2PTimeoutError,
    PeerId,
    clean_name,
    decode_devices_untrusted,
    encode_devices,
    parse_host_port,
    parse_peer,
)
from p2pnode.chat.devices.codes import (
    NONCE_BYTES,
    SECRET_BYTES,
    LinkCode,
    host_port,
    open_account_untrusted,
    proof_of,
    seal_account,
)
from p2pnode.chat.devices.link_wire import LINK_PROTOCOL, Ask, FrameBuffer, Give, Have, encode
from p2pnode.chat.devices.wire import list_holds, list_signature
from p2pnode.chat.link import BROKEN
from p2pnode.chat.ports import NodePort, SessionPort, StreamPort

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["LINK_PROTOCOL", "Linked", "Linking", "link_account"]

log = structlog.get_logger(__name__)

# Chosen by us.
CODE_S = 600.0  # a code's life
TRIES = 5  # wrong proofs after which a code is void; the secret has 128 bits, so this is against noise
STREAM_S = 30.0
CONNECT_S = 30.0
READ_BYTES = 4_096
ADDRESSES = 3  # of the old device in the code


@dataclass(frozen=True, slots=True)
class Linked:
    """What the new device got."""

    account: AccountKey
    devices: DeviceList


class Linking:
    """The old device's half: at most one code at a time."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._code: LinkCode | None = None
        self._until = 0.0
        self._wrong = 0
        self._outcome: asyncio.Future[PeerId] | None = None

    def begin(self, seconds: float = CODE_S) -> LinkCode:
        """Return a new code, good once and for `seconds`; an older one is void now. Raise DeviceRevokedError."""
        chat, node = self._chat, self._chat.node
        chat.devices.ensure_counts()
        self.cancel()
        where = ",".join(str(address) for address in node.addresses()[:ADDRESSES])
        device = parse_peer(f"{node.peer_id}@{where}" if where else str(node.peer_id))
        way = next((host_port(*hosts[0]) for spec in node.ways_in(1) if (hosts := spec.hosts)), "")
        self._code = LinkCode(device, way, node.network.token_bytes(SECRET_BYTES))
        self._until = node.network.monotonic() + seconds
        self._wrong = 0
        self._outcome = asyncio.get_running_loop().create_future()
        return self._code

    @property
    def open_s(self) -> float:
        """How long the code is good, seconds; 0: there is none."""
        return max(0.0, self._until - self._chat.node.network.monotonic()) if self._code is not None else 0.0

    def cancel(self) -> None:
        """No code is good any more."""
        self._code = None
        if self._outcome is not None and not self._outcome.done():
            self._outcome.cancel()
        self._outcome = None

    async def wait(self) -> PeerId:
        """Return the device that used the code. Raise LinkCodeError when it expires, or another took its place."""
        outcome = self._outcome
        try:
            if outcome is None:
                raise TimeoutError
            async with asyncio.timeout(self.open_s):
                return await asyncio.shield(outcome)
        except (TimeoutError, asyncio.CancelledError) as exc:
            if isinstance(exc, asyncio.CancelledError) and (outcome is None or not outcome.cancelled()):
                raise
            raise LinkCodeError("The code is not good any more and nobody used it; make a new one.") from exc

    async def serve(self, session: SessionPort, stream: StreamPort) -> None:
        """A stream of `p2pnode/link/1`."""
        try:
            async with asyncio.timeout(STREAM_S):
                await self._serve(session, stream)
                stream.finish()
        except BadPacket as bad:
            self._chat.drops[f"link_{bad.reason}"] += 1
            log.info("link_refused", peer=str(session.peer), reason=bad.reason)
            stream.reset(1)
        except (*BROKEN, TimeoutError):
            stream.reset(0)

    async def _serve(self, session: SessionPort, stream: StreamPort) -> None:
        node, peer = self._chat.node, session.peer
        buffer = FrameBuffer()
        ask = await _next(stream, buffer)
        code, outcome = self._code, self._outcome
        if code is None or outcome is None or not self.open_s:
            raise BadPacket("no_code")
        if not isinstance(ask, Ask):
            raise BadPacket("not_asked")
        if not hmac.compare_digest(proof_of(code.secret, node.peer_id, peer, ask.nonce), ask.proof):
            self._wrong += 1
            if self._wrong >= TRIES:
                self.cancel()
            raise BadPacket("wrong_code")
        self._code = None  # good once, whatever comes of it
        try:
            devices = await node.change_devices(add=[peer])
        except P2PError as exc:  # too many; this device was revoked
            if not outcome.done():
                outcome.set_exception(exc)
                outcome.exception()  # whether anybody waits for it or not
            raise
        value = encode_devices(devices.devices, devices.number)
        nonce = node.network.token_bytes(NONCE_BYTES)
        sealed = seal_account(code.secret, node.peer_id, peer, ask.nonce + nonce, node.account)
        await stream.write(encode(Give(nonce, node.user_id.raw, sealed, value, list_signature(node.account, value))))
        if not isinstance(await _next(stream, buffer), Have):
            raise BadPacket("not_asked")
        log.info("device_linked", device=str(peer), name=clean_name(ask.name))
        if not outcome.done():
            outcome.set_result(peer)


async def link_account(
    node: NodePort, code: LinkCode, keep: Callable[[Linked], Awaitable[None]], *, timeout: float = 60.0
) -> Linked:
    """Become a device of the account whose device made the code; `keep` puts what we get on the disk.

    `node` runs, with any account: its device key is what counts. Raise LinkCodeError (used, expired, wrong), P2PError
    (the other device cannot be reached).
    """
    addresses = []
    for host, port in [*code.device.hosts, *([parse_host_port(code.way)] if code.way else [])]:
        with contextlib.suppress(P2PError):
            await node.join_through(host, port)
    for host, port in code.device.hosts:
        addresses += await node.network.resolve(host, port)
    try:
        async with asyncio.timeout(timeout):
            session = await node.connect(code.peer, addresses=addresses, timeout=CONNECT_S)
            return await _ask(node, session, code, keep)
    except TimeoutError as exc:
        raise P2PTimeoutError("The other device did not answer in time; is it still running?") from exc
    except BadPacket as bad:
        raise LinkCodeError("The other device answered something else than an account; try a new code.") from bad
    except EOFError as exc:
        raise _not_good() from exc
    except P2PError as exc:
        if "reset_code" in exc.facts:
            raise _not_good() from exc
        raise


async def _ask(
    node: NodePort, session: SessionPort, code: LinkCode, keep: Callable[[Linked], Awaitable[None]]
) -> Linked:
    stream = await session.open_stream(LINK_PROTOCOL)
    nonce = node.network.token_bytes(NONCE_BYTES)
    proof = proof_of(code.secret, code.peer, node.peer_id, nonce)
    await stream.write(encode(Ask(nonce, proof, clean_name(node.settings.name))))
    buffer = FrameBuffer()
    give = await _next(stream, buffer)
    if not isinstance(give, Give):
        raise BadPacket("not_given")
    both = nonce + give.nonce
    account = open_account_untrusted(code.secret, code.peer, node.peer_id, both, give.user, give.sealed)
    devices = decode_devices_untrusted(give.value)
    if not list_holds(account.user_id, give.value, give.signature) or node.peer_id not in devices:
        raise BadPacket("bad_list")
    linked = Linked(account, devices)
    await keep(linked)
    await stream.write(encode(Have()))
    stream.finish()
    with contextlib.suppress(*BROKEN):
        await stream.read(READ_BYTES)  # until the other side has it
    return linked


async def _next(stream: StreamPort, buffer: FrameBuffer) -> Ask | Give | Have:
    """Return the next frame. Raise BadPacket, EOFError, or what a broken stream raises."""
    while (frame := buffer.next_untrusted()) is None:
        data = await stream.read(READ_BYTES)
        if not data:
            raise EOFError("the other side ended the stream")
        buffer.add(data)
    return frame


def _not_good() -> LinkCodeError:
    return LinkCodeError("The code is not good: it was used, it has expired, or a newer one was made; make a new one.")
