"""tests/vectors/session.json: made by this file run as a program, verified here both ways."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from p2pnode.core.address import Address
from p2pnode.core.keys import NodeKey
from p2pnode.nat import kind_of
from p2pnode.nat.certificate import make_certificate, peer_of_certificate_untrusted
from p2pnode.nat.control import ControlReader, Credit, PathKeyFrame, Ping, Pong, encode_control
from p2pnode.nat.probes import PathKey, parse_probe_untrusted
from p2pnode.nat.proof import (
    SessionFacts,
    check_proof_untrusted,
    encode_nonce,
    encode_stream_header,
    make_proof,
    read_nonce_untrusted,
    read_stream_header_untrusted,
)
from p2pnode.nat.repair import RepairReceiver, repair_frames
from p2pnode.nat.stun import binding_request, binding_response, parse_stun_untrusted

PATH = Path(__file__).parent.parent / "vectors" / "session.json"
SERVER = NodeKey(bytes(range(32)), bytes(32))
CLIENT = NodeKey(bytes(range(32, 64)), bytes(32))
NONCE = hashlib.sha256(b"p2pnode session vector nonce").digest()
TAG = bytes.fromhex("0102030405060708")
PATH_KEY = PathKey(bytes(range(32)))
PROBES = ("probe", "answer", "relayed_probe", "relayed_answer")
FRAMES: list[Credit | PathKeyFrame | Ping | Pong] = [
    Credit(4, 1_114_112), Ping(1), Pong(1), PathKeyFrame(bytes(range(32)))
]  # fmt: skip

PACKETS = [bytes([0x40 + n]) + bytes(range(100, 108)) + bytes(range(16 * n, 16 * n + 20 - n)) for n in range(4)]


def _facts(certificate: bytes) -> SessionFacts:
    return SessionFacts(nonce=NONCE, server=SERVER.peer_id, certificate_der=certificate, network_tag=TAG)


def make_vectors(certificate: bytes) -> dict[str, Any]:
    """`certificate`: DER; ECDSA signatures differ each time, so an existing one is kept."""
    facts = _facts(certificate)
    transaction = bytes(range(12))
    return {
        "specification": "docs/protocol/session.md",
        "alpn": f"p2pnode/1/{TAG.hex()}",
        "certificate": {"der": certificate.hex(), "peer_id": str(peer_of_certificate_untrusted(certificate))},
        "proof": {
            "server_seed": bytes(range(32)).hex(),
            "client_seed": bytes(range(32, 64)).hex(),
            "nonce": NONCE.hex(),
            "network_tag": TAG.hex(),
            "certificate_sha256": hashlib.sha256(certificate).hexdigest(),
            "nonce_stream": encode_nonce(NONCE).hex(),
            "signed_bytes": facts.signed_bytes(CLIENT.public_raw).hex(),
            "proof": make_proof(CLIENT, facts).hex(),
            "accepted": "01",
        },
        "stream_headers": [
            {"protocol": name, "bytes": encode_stream_header(name).hex()} for name in ("p2pnode/echo/1", "x", "y" * 64)
        ],
        "control": [
            {
                "frame": type(frame).__name__.lower(),
                "fields": [v.hex() if isinstance(v := getattr(frame, name), bytes) else v for name in frame.__slots__],
                "bytes": encode_control(frame).hex(),
            }
            for frame in FRAMES
        ],
        "path_probes": {
            "key": PATH_KEY.raw.hex(),
            "number": bytes(range(8)).hex(),
            **{
                name: PATH_KEY.frame(
                    bytes(range(8)), is_answer=name.endswith("answer"), relayed="relayed" in name
                ).hex()
                for name in PROBES
            },
        },
        "repair": {
            "tag": PATH_KEY.tag.hex(),
            "packets": [packet.hex() for packet in PACKETS],
            "frame": repair_frames(PATH_KEY.tag, PACKETS)[0].hex(),
        },
        "stun": {
            "request": binding_request(transaction).hex(),
            "responses": [
                {"address": str(address), "bytes": binding_response(transaction, address).hex()}
                for address in (Address("192.0.2.1", 32853), Address("2001:db8:1234:5678:11:2233:4455:6677", 32853))
            ],
        },
        "first_bytes": {f"{byte:02x}": kind_of(_datagram(byte)) for byte in range(256)},
    }


def _datagram(byte: int) -> bytes:
    return bytes([byte]) + bytes(3) + bytes.fromhex("2112a442") + bytes(12)


def test_session_vectors_are_what_we_write() -> None:
    """Encoding gives the file's bytes."""
    stored = json.loads(PATH.read_text())
    assert make_vectors(bytes.fromhex(stored["certificate"]["der"])) == stored


def test_session_vectors_are_what_we_read() -> None:
    """Decoding the file's bytes gives the file's facts."""
    stored = json.loads(PATH.read_text())
    certificate = bytes.fromhex(stored["certificate"]["der"])
    assert str(peer_of_certificate_untrusted(certificate)) == stored["certificate"]["peer_id"] == str(SERVER.peer_id)
    proof = stored["proof"]
    assert read_nonce_untrusted(bytes.fromhex(proof["nonce_stream"])).hex() == proof["nonce"]
    assert check_proof_untrusted(bytes.fromhex(proof["proof"]), _facts(certificate)) == CLIENT.peer_id
    for header in stored["stream_headers"]:
        data = bytes.fromhex(header["bytes"])
        assert read_stream_header_untrusted(data + b"rest") == (header["protocol"], len(data))
    for kind in PROBES:
        frame = parse_probe_untrusted(bytes.fromhex(stored["path_probes"][kind]))
        assert (frame.is_answer, frame.relayed) == (kind.endswith("answer"), "relayed" in kind)
        assert (frame.tag, frame.number) == (PATH_KEY.tag, bytes(range(8)))
        assert PATH_KEY.accepts(frame)
    packets = [bytes.fromhex(packet) for packet in stored["repair"]["packets"]]
    there = RepairReceiver()
    for packet in packets[1:]:
        there.keep(packet, len(packet))
    assert there.missing_untrusted(bytes.fromhex(stored["repair"]["frame"]), 0.0) == packets[0]
    assert ControlReader().feed_untrusted(b"".join(bytes.fromhex(f["bytes"]) for f in stored["control"])) == FRAMES
    assert parse_stun_untrusted(bytes.fromhex(stored["stun"]["request"])).kind == 1
    for response in stored["stun"]["responses"]:
        message = parse_stun_untrusted(bytes.fromhex(response["bytes"]))
        assert str(message.mapped_address_untrusted()) == response["address"]


if __name__ == "__main__":
    made = make_certificate(SERVER, lambda count: hashlib.shake_128(b"vector").digest(count)).der
    if PATH.exists():
        made = bytes.fromhex(json.loads(PATH.read_text())["certificate"]["der"])
    PATH.write_text(json.dumps(make_vectors(made), indent=1) + "\n")
    sys.stdout.write(f"{PATH.name} written\n")
