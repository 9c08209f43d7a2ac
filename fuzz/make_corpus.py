"""Write fuzz/corpus/<target>/: inputs that every run begins with, made from tests/vectors/*.json.

    uv run python fuzz/make_corpus.py

Files are named by their content, so that running it again changes nothing; inputs that once broke something are put
beside them by hand and stay.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from targets import TARGETS, dht_node, ice, links, nat, networks, quic
from targets.api import TAKING
from targets.dht import ANNOUNCE_HEAD

from p2pnode.core.address import Realm
from p2pnode.core.keys import NodeKey
from p2pnode.nat.proof import make_proof

ROOT = Path(__file__).resolve().parent
VECTORS = ROOT.parent / "tests" / "vectors"
CORPUS = ROOT / "corpus"
Seeds = dict[str, list[bytes]]


def vectors(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))


def step(kind: int, content: bytes) -> bytes:
    """One step of a target that takes several."""
    return bytes((kind,)) + len(content).to_bytes(2, "big") + content


def hexes(values: Iterable[str]) -> list[bytes]:
    return [bytes.fromhex(value) for value in values]


def identity(seeds: Seeds) -> None:
    data = vectors("identity")
    for each in data["ids"]:
        seeds["peer_id"].append(each["peer_id"].encode())
        seeds["user_id"] += [each["user_id"].encode(), each["user_id"].upper().encode()]
        seeds["public_key"].append(bytes.fromhex(each["public_key"]))
        seeds["peer_spec"] += [
            each["user_id"].encode(), each["peer_id"].encode(), each["peer_id"][:20].encode(),
            f"{each['peer_id']}@192.0.2.7:4747,tcp:[::1]:443,host.example:1".encode(),
        ]  # fmt: skip
    seeds["public_key"] += hexes(data["refused_public_keys"][:4])
    seeds["peer_spec"].append("  zoë ".encode())
    seeds["envelope"] += hexes(each["envelope"] for each in (*data["envelopes"][:2], *data["refused_envelopes"]))
    seeds["devices"] += hexes(each["value"] for each in (*data["devices"], *data["refused_devices"]))
    for each in data["addresses"]:
        seeds["address_text"].append(each["text"].encode())
        seeds["host_port"].append(each["text"].encode())
        seeds["address_packed"].append(bytes.fromhex(each["packed"]))
    seeds["address_text"] += [b"[fe80::1%eth0]:5", b"::1", b"10.0.0.1"]
    seeds["text"] += [
        "Grüße \u202eolleh \U0001f469\u200d\U0001f680 e\u0301\u0301\u0301\u0301\u0301 \x1b[2J".encode(),
        b"- a/b\\c@d:e", b"p2p1pretender", "\u2800\u3164 x".encode(),
    ]  # fmt: skip


def dht(seeds: Seeds) -> None:
    data = vectors("dht")
    seeds["dht_frame"] += hexes(data["frames"].values())
    seeds["dht_frame"] += [b"\x07" + text for text in hexes(data["sealed_texts"].values())]
    requests = (
        "ping", "find_node", "get", "put", "register", "forward", "deliver", "dial_back", "dial_for", "watch",
        "watch_through", "changed", "announce", "list_topic", "probe", "relay",
    )  # fmt: skip
    seeds["dht_notice"].append(bytes.fromhex(data["notice"]["blob"]))
    payloads = {name: bytes.fromhex(value) for name, value in data["payloads"].items()}
    seeds["dht_request"] += [payloads[name] for name in requests]
    seeds["dht_answer"] += [payload for name, payload in payloads.items() if name not in requests]
    seeds["dht_record"].append(payloads["put"][12:])
    seeds["dht_topic_entry"].append(payloads["announce"][ANNOUNCE_HEAD:])
    for name, payload in payloads.items():
        if name in requests:
            sealed = bytes((0, 7)) + len(payload).to_bytes(2, "big") + payload
            seeds["dht_node"].append(
                step(dht_node.SEALED_TEXT, sealed.ljust(80, b"\0")) + step(dht_node.SIGNED_PAYLOAD, payload)
            )
        else:
            seeds["dht_node"].append(step(dht_node.UNDER_ANSWER, payload))
            if name == "topic_page":
                seeds["dht_node"].append(step(dht_node.UNDER_TOPIC, payload))
    seeds["dht_node"] += [step(dht_node.RAW, frame) for frame in hexes(data["frames"].values())]


def session(seeds: Seeds) -> None:
    data = vectors("session")
    seeds["certificate"].append(bytes.fromhex(data["certificate"]["der"]))
    seeds["session_proof"] += [
        make_proof(NodeKey(bytes([2]) * 32, bytes(32)), nat.proof_facts()), bytes.fromhex(data["proof"]["proof"]),
    ]  # fmt: skip
    seeds["session_nonce"].append(bytes.fromhex(data["proof"]["nonce_stream"]))
    seeds["stream_header"] += hexes(each["bytes"] for each in data["stream_headers"])
    frames = hexes(each["bytes"] for each in data["control"])
    seeds["control"] += [*frames, b"".join(frames)]
    stun = hexes([data["stun"]["request"], *(each["bytes"] for each in data["stun"]["responses"])])
    checks = vectors("ice")
    messages = hexes(checks["checks"][name] for name in ("caller_check", "callee_check", "callee_answer"))
    seeds["stun"] += [*stun, *messages]
    seeds["ice_agent_stun"] += [*stun, *messages]
    seeds["ice_parameters"] += hexes(each["bytes"] for each in checks["parameters"])
    priority, controlled = bytes.fromhex("002400046e7fffff"), bytes.fromhex("802900080102030405060708")
    use, mapped = bytes.fromhex("802a0008ffffffffffffffff00250000"), bytes.fromhex("002000080001a147e112a643")
    seeds["ice_session"] += [
        step(ice.CHECK, priority + controlled), step(ice.CHECK, priority + use) + step(ice.RESPONSE, mapped),
        step(ice.RESPONSE, mapped), step(ice.RESPONSE, b"\xff" + mapped), step(ice.RAW, messages[0]),
        step(ice.CHECK | 0x81, priority + use),
    ]  # fmt: skip
    token = nat.retry_tokens()
    seeds["retry_token"].append(token.make(nat.SOURCE, b"original", b"retrycid", 1.0))
    seeds["mux_kind"] += [*stun, b"\x05", b"\x0b", b"\x40", b"\xc0", b"\x80", b""]
    short = b"\x41" + bytes(range(8))
    seeds["together"] += [
        b"\0\x14" + (short + bytes(11)) * 3, b"\0\x14" + (short + bytes(11)) * 2 + short + b"\0",
        b"\0\x14" + short + bytes(11) + b"\x05" + bytes(19), b"\0\x01" + b"\x40\x05\x80", b"\0\0\x40",
        b"\0\x14" + short + bytes(11) + b"\x41" + bytes(19) + short, b"\0\x09" + short * 2 + b"\xc0" + short,
    ]  # fmt: skip
    header = b"\xc3\0\0\0\x01\x08destcid8\x08client08\0"
    crypto = b"\x06\x00\x40\x40" + bytes([1, 0, 0, 60, 3, 3]) + bytes(58)
    seeds["quic_endpoint"] += [
        step(quic.PADDED, header + b"\x44\x96"), step(quic.FRAMES, b"\x01"), step(quic.FRAMES, crypto),
        step(quic.FRAMES, crypto) + step(quic.FRAMES, b"\x02\0\0\0\0"), step(quic.FRAMES, b"\x1c\x0a\0\0"),
        step(quic.RAW, b"\x40destcid8" + bytes(30)), step(quic.PADDED, b"\xc0\0\0\0\x02" + header[5:]),
    ]  # fmt: skip


def others(seeds: Seeds) -> None:
    for each in vectors("offer"):
        sealed, text, body = hexes((each["sealed"], each["text"], each["body"]))
        seeds["offer_sealed"].append(sealed)
        seeds["offer_text"].append(text)
        seeds["offer_body"].append(body)
    realms = [realm.value for realm in Realm]
    for each in vectors("presence"):
        seeds["presence"].append(bytes([realms.index(each["realm"])]) + bytes.fromhex(each["encoded"]))
    lan = vectors("lan")
    packets = hexes([lan["query"]["encoded"], *(each["encoded"] for each in lan["announcements"])])
    seeds["lan_packet"] += packets
    framed = [len(packet).to_bytes(2, "big") + packet for packet in packets]
    seeds["lan_machine"] += [*framed, framed[1] + framed[1], framed[0] + framed[1] + framed[-1]]
    seal = networks.SealedNetwork(networks.NETWORK, bytes(32)).seal
    seeds["network_sealed"] += [seal(packets[0]), seal(b"\x05"), b"\x0e\x01", packets[0]]
    seeds["netcheck_http"] += [
        b"HTTP/1.1 302 Found\r\nLocation: http://login.example/?u=1\r\n\r\n", b"HTTP/1.0 511\n\n<html>",
        b"HTTP/1.1 301 Moved\r\nserver: x\r\nlocation: https://[2001:db8::1]:8443/\r\n\r\n",
    ]  # fmt: skip
    seeds["network_question"] += [b"\x0e\x01" + bytes(range(48)), b"\x0e\x02" + bytes(17), seal(b"\x05")]
    frames = hexes(each["bytes"] for each in vectors("random")["frames"].values())
    seeds["stranger_frame"] += [frame[2:] for frame in frames]
    seeds["stranger_stream"] += [*frames[:3], b"".join(frames)]
    report = vectors("random")["report"]
    seeds["stranger_report"] += [bytes.fromhex(report["reporter"] + report["reported"] + report["value"])]
    frames = hexes(each["bytes"] for each in vectors("chat")["frames"].values())
    seeds["chat_frame"] += [frame[4:] for frame in frames]
    seeds["chat_stream"] += [*frames[:3], b"".join(frames)]
    frames = hexes(vectors("history")["told"].values())
    seeds["told_frame"] += [frame[2:] for frame in frames]
    seeds["told_stream"] += [*frames[:2], b"".join(frames)]
    frames = hexes(vectors("history")["timer"].values())
    seeds["timer_frame"] += [frame[2:] for frame in frames]
    seeds["timer_stream"] += [*frames[:2], b"".join(frames)]
    ids = vectors("identity")["ids"][0]
    line = {
        "with": ids["user_id"], "id": "00" * 16, "from": ids["peer_id"], "from_user": ids["user_id"], "direction": "in",
        "text": "hello", "sent_at": "2026-01-01T12:00:00.000Z", "received_at": "2026-01-01T12:00:00.000Z",
        "state": "received", "sequence": 1, "told_by": ids["peer_id"],
    }  # fmt: skip
    seeds["export_line"] += [json.dumps(each).encode() for each in (line, {**line, "with": "hall"})]
    seeds["export_contact"].append(json.dumps({"id": ids["user_id"], "name": "anna", "verified": True}).encode())
    devices = vectors("devices")
    seeds["devices_frame"] += [frame[2:] for frame in hexes(devices["devices"].values())]
    seeds["link_frame"] += [frame[2:] for frame in hexes(devices["link"].values())]
    seeds["sync_frame"] += [frame[4:] for frame in hexes(devices["sync"].values())]
    seeds["link_code"] += [devices["code"]["text"].encode()]
    mail = vectors("mail")
    seeds["mail_frame"] += [frame[2:] for frame in hexes(mail["frames"].values())]
    letter = bytes.fromhex(mail["letter"]["bytes"])
    seeds["mail_letter"] += [letter, b"\0" * 512, b"\0" * 40 + b"\x01"]
    seeds["carry_frame"] += [frame[2:] for frame in hexes(mail["carry_frames"].values())]
    seeds["mail_parts"] += [letter, b"\x01" + b"\0" * 2047]
    first = mail["first_letter"]
    seeds["mail_first"] += [bytes.fromhex(first["bytes"]), b"\0" * 792, b"\0" * 40 + b"\x01"]
    seeds["mail_note"] += [bytes.fromhex(first["note"]), b"\x94" + bytes.fromhex(first["note"])[1:] + b"\x01"]
    gossip = vectors("gossip")
    seeds["gossip_frame"] += [frame[2:] for frame in hexes(gossip["frames"].values())]
    seeds["name_claim"].append(bytes.fromhex(gossip["name_claim"]))
    statement = bytes.fromhex(gossip["statement"])
    seeds["gossip_statement"] += [statement, b"\0" * 200, b"\0" * 64 + statement[64:]]
    peer = vectors("identity")["ids"][0]["peer_id"]
    for number, route in enumerate(TAKING):
        if route.in_query:
            body = f"peer={peer}&with=%C3%BC&limit=5&search=x&timeout=2.5".encode()
        else:
            body = json.dumps({
                "peer": peer, "text": "hello", "host": "192.0.2.1", "port": 4747, "name": "zoë", "wait": 1.5,
            }).encode()  # fmt: skip
        seeds["api_request"].append(bytes([number]) + body)


def rooms(seeds: Seeds) -> None:
    data = vectors("rooms")
    frames = hexes(each["bytes"] for each in data["frames"].values())
    seeds["room_frame"] += [frame[4:] for frame in frames]
    seeds["room_stream"] += [*frames[:3], b"".join(frames[4:])]
    seeds["room_entry"] += hexes(each["bytes"] for each in data["entries"].values())
    value = bytes.fromhex(data["announcement"]["value"])
    seeds["room_announcement"] += [value, value[:33], bytes(32) + "g\u00e4rten".encode()]
    # who and what, what it answers to: invited, joined, written, forked, removed, written on
    logs = (21, 0, 1, 0, 1, 4, 1, 3, 30, 8, 1, 0, 1, 3)
    seeds["room_logs"] += [bytes(range(32)), bytes(logs), bytes((21, 0, 10, 4) * 8)]


def files(seeds: Seeds) -> None:
    data = vectors("files")
    frames = hexes(data["frames"].values())
    head = bytes.fromhex(data["data_head_of_70000_bytes"])
    seeds["file_frame"] += [frame[5:] for frame in frames]
    seeds["file_pieces"] += [b"".join(frames), frames[0] + b"\x01\x00\x00\x00\x05hello" + frames[4], head + b"abc"]
    seeds["file_manifest"].append(bytes.fromhex(data["manifest"]))
    seeds["file_name"] += [name.encode() for name in data["names"]]


def gateways(seeds: Seeds) -> None:
    data = vectors("portmap")
    for each in data["datagrams"]:
        seeds["portmap_natpmp" if each["what"].startswith("nat-pmp") else "portmap_pcp"].append(
            bytes.fromhex(each["answer"])
        )
    for each in data["upnp"]:
        answer = each["answer"].encode()
        if each["what"] == "search":
            seeds["portmap_search"].append(answer)
        else:
            seeds["portmap_http"] += [b"\0" + answer, b"\1" + answer]
    seeds["portmap_http"].append(b"\0HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n<a>\r\n0\r\n\r\n")
    service = "<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>"
    head = b"\1HTTP/1.1 200 OK\r\n\r\n"
    seeds["portmap_http"].append(head + (service * 20 + "<controlURL>/c</controlURL>").encode())
    number = f"<controlURL>&#{'9' * 5000};</controlURL></service>"
    seeds["portmap_http"].append(head + (service + number).encode())


def relay(seeds: Seeds) -> None:
    data = vectors("relay")
    seeds["relay_frame"] += hexes(data[name] for name in ("send", "deliver", "paired"))
    probes = vectors("session")["path_probes"]
    seeds["path_probe"] += hexes(probes[name] for name in ("probe", "answer", "relayed_probe", "relayed_answer"))
    seeds["repair"] += hexes([vectors("session")["repair"]["frame"]])
    # Both sides open, both send; one moves, one ends.
    opened = bytes((0x11, 0, 1, 0, 0x11, 1, 0, 1))
    sent = bytes((0x10, 1, 0, 0, 0x10, 2, 0, 1))
    seeds["relay_table"] += [opened + sent, opened + sent + bytes((0x21, 0, 1, 2, 0x10, 1, 0, 2, 0x19, 1, 0, 1)) + sent]


def linked(seeds: Seeds) -> None:
    data = vectors("links")
    frame, alive, greeting = hexes((data["frame"], data["alive"], data["greeting"]))
    seeds["link_frames"] += [frame, alive, frame + alive + frame]
    seeds["link_greeting"] += [greeting, greeting[:3] + b"\1" + greeting[4:11]]
    seeds["link_certificate"].append(links.certificate_seed())
    seeds["proxy_reply"] += [
        b"HTTP/1.1 200 Connection established\r\n\r\n", b"HTTP/1.0 407 Denied\r\nProxy-Authenticate: Basic\r\n\r\n",
    ]  # fmt: skip


def all_seeds() -> Seeds:
    """Return what the vectors give, by target."""
    seeds: Seeds = defaultdict(list)
    for part in (identity, dht, session, relay, others, files, rooms, gateways, linked):
        part(seeds)
    return seeds


def file_name(data: bytes) -> str:
    """Return under which name an input is stored."""
    return hashlib.sha256(data).hexdigest()[:16]


def main() -> int:
    """Write each seed once; folders of targets that are no more go."""
    seeds = all_seeds()
    missing = set(TARGETS) ^ set(seeds)
    if missing:
        print(f"targets without seeds, or seeds without target: {', '.join(sorted(missing))}")
        return 1
    for folder in CORPUS.iterdir() if CORPUS.is_dir() else ():
        if folder.name not in TARGETS:
            shutil.rmtree(folder)
    for name, inputs in seeds.items():
        (CORPUS / name).mkdir(parents=True, exist_ok=True)
        for data in inputs:
            (CORPUS / name / file_name(data)).write_bytes(data)
    count = sum(path.is_file() for path in CORPUS.rglob("*"))
    print(f"{count} inputs for {len(TARGETS)} targets in {CORPUS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
