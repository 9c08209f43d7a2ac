"""An ICE session in virtual time, fed datagrams by somebody who knows its password.

Input: steps of `kind (1) · length (2) · bytes`, the highest bit of the kind for another source address: a raw datagram;
attributes inside a check with valid integrity and fingerprint; attributes inside a response to the session's last
check.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import hmac
from collections.abc import Iterator

from p2pnode.core.address import Address
from p2pnode.core.errors import P2PError
from p2pnode.nat import IceCandidate, IceEndpoint, IceParameters
from p2pnode.nat.ice_agent import parse_for_agent_untrusted
from p2pnode.simulations.virtual import VirtualWorld, run_virtual
from targets.base import Target

__all__ = ["CHECK", "RAW", "RESPONSE", "TARGETS", "authentic"]

RAW, CHECK, RESPONSE = range(3)
MAX_STEPS = 8
COOKIE = bytes.fromhex("2112A442")
FINGERPRINT_XOR = 0x5354554E
OWN, REMOTE, OTHER = Address("8.8.0.1", 4747), Address("8.8.1.1", 4747), Address("8.8.2.1", 99)
REMOTE_PARAMETERS = IceParameters("abcd", "p" * 22, (IceCandidate(REMOTE, "host"),))


def authentic(kind: int, transaction_id: bytes, attributes: bytes, key: bytes) -> bytes:
    """Return a STUN message with these raw attributes, MESSAGE-INTEGRITY under `key`, and FINGERPRINT."""
    attributes = attributes[: 1_000 & ~3]
    attributes += bytes(-len(attributes) % 4)

    def head(extra: int) -> bytes:
        return kind.to_bytes(2, "big") + (len(attributes) + extra).to_bytes(2, "big") + COOKIE + transaction_id

    integrity = b"\x00\x08\x00\x14" + hmac.new(key, head(24) + attributes, "sha1").digest()
    data = head(32) + attributes + integrity
    return data + b"\x80\x28\x00\x04" + (binascii.crc32(data) ^ FINGERPRINT_XOR).to_bytes(4, "big")


def steps_of(data: bytes) -> Iterator[tuple[int, bytes, Address]]:
    """Yield (kind, bytes, source)."""
    for _ in range(MAX_STEPS):
        if len(data) < 3:
            return
        end = 3 + int.from_bytes(data[1:3], "big") % 1_300
        yield (data[0] & 0x7F) % 3, data[3:end], OTHER if data[0] & 0x80 else REMOTE
        data = data[end:]


def read_steps(data: bytes) -> None:
    """Run the steps while the session checks; nothing may be raised, and a silent address gets at most ten packets."""

    async def main(world: VirtualWorld) -> None:
        sent: list[tuple[bytes, Address]] = []
        endpoint = IceEndpoint(network=world.host(OWN.ip), send=lambda out, to: sent.append((out, to)))
        session = endpoint.session(controlling=len(data) % 2 == 0, candidates=[IceCandidate(OWN, "host")])
        attempt = asyncio.ensure_future(session.connect(REMOTE_PARAMETERS, timeout=3))
        await asyncio.sleep(0.01)
        username = f"{session.local.ufrag}:{REMOTE_PARAMETERS.ufrag}".encode()
        names = b"\x00\x06" + len(username).to_bytes(2, "big") + username + bytes(-len(username) % 4)
        for kind, content, source in steps_of(data):
            datagram = content
            if kind == CHECK:
                datagram = authentic(0x0001, content[:12].ljust(12), names + content, session.local.password.encode())
            elif kind == RESPONSE and sent:
                # class bits from the input: success or error
                answer = 0x0111 if content[:1] == b"\xff" else 0x0101
                datagram = authentic(answer, sent[-1][0][8:20], content, REMOTE_PARAMETERS.password.encode())
            endpoint.datagram_received(datagram, source)
            await asyncio.sleep(0.02)
        with contextlib.suppress(P2PError):
            await attempt
        session.report()
        endpoint.close()
        assert endpoint.statistics().sessions == 0

    run_virtual(main, keep_trace=False, until=60)


TARGETS = [
    Target("ice_session", read_steps, errors=(), max_bytes=3_000, cpu_s=0.2),
    Target("ice_agent_stun", parse_for_agent_untrusted),
]
