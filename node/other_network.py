"""Which network is a silent node of? How a wrong network id or secret becomes one clear error.

    question  0x0E 0x01 · nonce 16 · network check 16 · name check 16                     50 bytes, never sealed
    answer    0x0E 0x02 · nonce 16 · 1 when the name check names this node, else 0        19 bytes, never sealed

network check: HMAC-SHA256(own network's check key, "network" || nonce)[:16]; name check: HMAC-SHA256(public key of the
node that is asked, "name" || nonce)[:16], random when the asker knows no key. Answered only by a node of *another*
network: in its own there are better ways to ask. A member of a private network answers on the Internet only who knows
its peer id, so nobody finds it by trying addresses; on a LAN and on this machine everybody.

An answer tells nothing about a secret but that it differs, which trying to join tells as well. Nothing is changed by
one: it only words the error of an attempt that failed anyway.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from p2pnode.core.address import Address, Realm, realm_of
from p2pnode.core.errors import P2PError, WrongNetworkError
from p2pnode.core.ids import PeerId
from p2pnode.core.network import Network
from p2pnode.core.network_id import network_subkey
from p2pnode.core.sealed_network import OPEN_KIND
from p2pnode.membership import Membership

__all__ = ["NetworkQuestions"]

T = TypeVar("T")

QUESTION, ANSWER = bytes([OPEN_KIND, 1]), bytes([OPEN_KIND, 2])
NONCE_BYTES = CHECK_BYTES = 16
QUESTION_BYTES, ANSWER_BYTES = 2 + NONCE_BYTES + 2 * CHECK_BYTES, 2 + NONCE_BYTES + 1
ANSWERS_PER_S, ANSWERS_AT_ONCE = 20.0, 40.0  # 19 bytes and two HMACs each; who asks is a person with a wrong setting
FIRST_WAIT_S = 0.5  # most nodes answer what they were asked by then, and are never asked this
PAUSE_S, TIMES = 0.5, 3


class NetworkQuestions:
    """Asks and answers. `received` takes datagrams with first byte 0x0E."""

    def __init__(
        self,
        peer_id: PeerId,
        membership: Membership,
        network: Network,
        send: Callable[[bytes, Address], None],
        *,
        allow_documentation: bool,
    ) -> None:
        self._own_name = peer_id.raw
        self._private = bool(membership.key)
        self._check_key = (
            network_subkey(membership.key, "check", 32)
            if membership.key
            else hashlib.sha256(b"p2pnode/network-check/1" + membership.tag).digest()
        )
        self._network = network
        self._send = send
        self._allow_documentation = allow_documentation
        self._waiting: dict[bytes, tuple[Address, asyncio.Future[bool]]] = {}
        self.unknown = 0
        """Datagrams for nobody: other first bytes (0x0F: sealed by a member of some private network), other lengths."""
        self._left, self._left_at = ANSWERS_AT_ONCE, 0.0

    def received(self, data: bytes, source: Address) -> None:
        """Take a datagram from the mux. Never raises."""
        kind, nonce = data[:2], data[2 : 2 + NONCE_BYTES]
        if kind == QUESTION and len(data) == QUESTION_BYTES:
            self._answer_untrusted(nonce, data[18:34], data[34:50], source)
        elif kind == ANSWER and len(data) == ANSWER_BYTES:
            address, future = self._waiting.get(nonce, (None, None))
            if future is not None and address == source and not future.done():
                future.set_result(data[-1] == 1)
        else:
            self.unknown += 1

    async def beside(
        self, attempt: Coroutine[Any, Any, T], addresses: Sequence[Address], peer: PeerId | None, *,
        elsewhere: bool = False,
    ) -> T:  # fmt: skip
        """Return what `attempt` to reach `peer` (None: whoever is there) at `addresses` returns.

        Raise its error, or WrongNetworkError in its place. `elsewhere`: the attempt has other ways to `peer`, so
        it goes on unless the answer is from `peer` itself.
        """
        task = asyncio.ensure_future(attempt)
        asking: asyncio.Task[WrongNetworkError | None] | None = None
        try:
            if not (await asyncio.wait({task}, timeout=FIRST_WAIT_S))[0] and addresses:
                asking = asyncio.ensure_future(self.ask(addresses, peer))
                await asyncio.wait({task, asking}, return_when=asyncio.FIRST_COMPLETED)
                if not task.done() and (error := await asking) and (error.facts["named"] or not elsewhere):
                    raise error
            return await task
        except WrongNetworkError:
            raise
        except P2PError as exc:
            if asking is not None and asking.done() and (error := asking.result()):
                error.facts.update({name: fact for name, fact in exc.facts.items() if name == "trace"})
                raise error from exc
            raise
        finally:
            for started in (task, asking):
                if started is not None:
                    started.cancel()
            await asyncio.gather(*(t for t in (task, asking) if t is not None), return_exceptions=True)

    async def ask(self, addresses: Sequence[Address], peer: PeerId | None) -> WrongNetworkError | None:
        """Return the error if a node of another network is at one of `addresses` (`named` in its facts: it is `peer`),
        None when nobody says so within 1.5 s."""
        waiting: dict[asyncio.Future[bool], Address] = {}
        questions: list[tuple[bytes, bytes, Address]] = []
        for address in addresses:
            nonce = self._network.token_bytes(NONCE_BYTES)
            name = self._check(peer.raw, b"name", nonce) if peer else self._network.token_bytes(CHECK_BYTES)
            future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self._waiting[nonce] = (address, future)
            waiting[future] = address
            questions.append(
                (nonce, QUESTION + nonce + self._check(self._check_key, b"network", nonce) + name, address)
            )
        try:
            for _ in range(TIMES if waiting else 0):
                for _nonce, question, address in questions:
                    self._send(question, address)
                done, _pending = await asyncio.wait(waiting, timeout=PAUSE_S, return_when=asyncio.FIRST_COMPLETED)
                for answered in done:
                    return _error(waiting[answered], named=answered.result())
            return None
        finally:
            for nonce, _question, _address in questions:
                del self._waiting[nonce]

    def _answer_untrusted(self, nonce: bytes, network_check: bytes, name_check: bytes, source: Address) -> None:
        if not self._admit():
            return
        if hmac.compare_digest(network_check, self._check(self._check_key, b"network", nonce)):
            return
        named = hmac.compare_digest(name_check, self._check(self._own_name, b"name", nonce))
        realm = realm_of(source.ip, allow_documentation=self._allow_documentation)
        if realm is None or (self._private and realm is Realm.PUBLIC and not named):
            return
        self._send(ANSWER + nonce + bytes([named]), source)

    def _admit(self) -> bool:
        now = self._network.monotonic()
        self._left = min(ANSWERS_AT_ONCE, self._left + (now - self._left_at) * ANSWERS_PER_S)
        self._left_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    @staticmethod
    def _check(key: bytes, what: bytes, nonce: bytes) -> bytes:
        return hmac.digest(key, what + nonce, "sha256")[:CHECK_BYTES]


def _error(address: Address, *, named: bool) -> WrongNetworkError:
    return WrongNetworkError(
        f"The node at {address} belongs to another network, or its secret differs from yours: compare --network and the"
        " network secret.",
        address=str(address),
        named=named,
    )
