"""Entropy that libraries draw by themselves: from the seed inside a virtual loop, from the system everywhere else.

Proves: `os.urandom`, `secrets` and `uuid` repeat with the seed; qh3's signatures have one length and verify; real loops
and other threads are not touched; a node in the real world does not even import this.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from typing import TypeVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from qh3.quic.configuration import QuicConfiguration

from p2pnode import NodeKey
from p2pnode.nat.certificate import make_certificate, peer_of_certificate_untrusted
from p2pnode.simulations.virtual import VirtualLoop
from p2pnode.simulations.virtual.entropy import SIGNATURE_BYTES

T = TypeVar("T")
SIGNATURES = 200


def in_virtual_loop(function: Callable[[], T], seed: object = 1) -> T:
    async def main() -> T:
        return function()

    return VirtualLoop(seed).run(main())


def draws() -> list[object]:
    return [
        os.urandom(16),
        secrets.token_bytes(8),
        secrets.randbelow(10**9),
        uuid.uuid4(),
        random.SystemRandom().random(),
    ]


def test_system_entropy_repeats_with_the_seed_and_only_there() -> None:
    """Equal for equal seeds, different for others; outside of the loop everything is as before, and is never equal."""
    before = os.urandom, random._urandom  # type: ignore[attr-defined]
    assert in_virtual_loop(draws) == in_virtual_loop(draws)
    assert in_virtual_loop(draws) != in_virtual_loop(draws, seed=2)
    assert (os.urandom, random._urandom) == before  # type: ignore[attr-defined]
    assert draws() != draws()


def test_real_loop_in_another_thread_keeps_the_systems_entropy() -> None:
    """While a simulation runs, a real node beside it draws real entropy: the simulation's stream is not consumed."""
    beside: list[bytes] = []

    async def real() -> None:
        beside.append(os.urandom(16))

    def both() -> list[object]:
        thread = threading.Thread(target=lambda: asyncio.run(real()))
        thread.start()
        thread.join()
        return draws()

    assert in_virtual_loop(both) == in_virtual_loop(both) == in_virtual_loop(draws)
    assert beside[0] != beside[1]


def server_configuration() -> QuicConfiguration:
    certificate = make_certificate(NodeKey.generate(random.Random(1).randbytes), random.Random(2).randbytes)
    configuration = QuicConfiguration(is_client=False)
    configuration.load_cert_chain(certificate.pem, certificate.key_pem)
    return configuration


def test_signatures_of_handshakes_have_one_length_and_verify() -> None:
    """In a simulation each has 71 bytes; in the real world lengths vary, for nothing is changed there."""

    def signatures() -> list[bytes]:
        key = server_configuration().private_key
        return [key.sign(b"message %d" % number) for number in range(SIGNATURES)]  # type: ignore[call-arg, union-attr]

    steady, plain = in_virtual_loop(signatures), signatures()
    assert {len(each) for each in steady} == {SIGNATURE_BYTES}
    assert len({len(each) for each in plain}) > 1
    certificate = make_certificate(NodeKey.generate(random.Random(1).randbytes), random.Random(2).randbytes)
    private = load_pem_private_key(certificate.key_pem, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    for number, signature in enumerate(steady):
        private.public_key().verify(signature, b"message %d" % number, ec.ECDSA(hashes.SHA256()))


def test_certificates_of_one_seed_have_one_length() -> None:
    """Whatever nonces their signatures got; and they prove the key."""
    key = NodeKey.generate(random.Random(1).randbytes)
    made = [make_certificate(key, random.Random(2).randbytes) for _ in range(50)]
    assert len({len(each.der) for each in made}) == 1
    assert len({each.der for each in made}) > 1
    assert peer_of_certificate_untrusted(made[0].der) == key.peer_id


REAL_NODE = """
import asyncio, os, sys
from p2pnode import AccountKey, Address, Node, NodeKey, NodeSettings
from p2pnode.core.real_network import RealNetwork
async def main():
    nodes = []
    for number in range(2):
        node = Node(key=NodeKey.generate(os.urandom), account=AccountKey.generate(os.urandom), network=RealNetwork(),
                    settings=NodeSettings(listen=(Address("127.0.0.1", 0),), lan=False, join_timeout=0.1))
        await node.start()
        nodes.append(node)
    await nodes[0].connect(nodes[1].peer_id, addresses=nodes[1].addresses())
    for node in nodes:
        await node.stop()
asyncio.run(main())
assert type(os.urandom).__name__ == "builtin_function_or_method"
print([name for name in sys.modules if name.startswith("p2pnode.simulations")])
"""


def test_node_in_the_real_world_does_not_use_it() -> None:
    """Two real nodes meet on loopback: no module of the simulations is loaded, `os.urandom` is the system's."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", REAL_NODE], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
