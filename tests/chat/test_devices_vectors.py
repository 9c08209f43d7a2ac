"""tests/vectors/devices.json: frames of lists, receipts, linking and syncing. Run this file to write it anew."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from p2pnode import AccountKey, BadPacket, DeviceList, NodeKey
from p2pnode.chat import LinkCode
from p2pnode.chat.devices import link_wire, sync_wire, wire
from p2pnode.chat.devices.codes import open_account_untrusted, proof_of, seal_account
from p2pnode.chat.devices.lists import KnownList, Lists

PATH = Path(__file__).parent.parent / "vectors" / "devices.json"
RNG = random.Random("p2pnode devices vectors")
ACCOUNT = AccountKey.generate(RNG.randbytes)
OLD, NEW, FRIEND = (NodeKey.generate(RNG.randbytes) for _ in range(3))
FRIEND_ACCOUNT = AccountKey.generate(RNG.randbytes)
SECRET, NONCE, OTHER_NONCE, LOG = RNG.randbytes(16), RNG.randbytes(16), RNG.randbytes(16), RNG.randbytes(16)
NUMBER = 1_790_000_000_000
LIST = KnownList.sign(ACCOUNT, DeviceList(NUMBER, tuple(sorted([OLD.peer_id, NEW.peer_id]))))
CODE = f"{OLD.peer_id}@192.168.1.5:4747,[2001:db8::1]:4747~198.51.100.1:4747#"


def device_frames() -> dict[str, wire.Frame]:
    listed = LIST.frame
    assert listed is not None
    return {"listed": listed, "read": wire.Read([bytes(16), bytes(range(16))]), "noted": wire.Noted()}


def link_frames() -> dict[str, link_wire.Frame]:
    sealed = seal_account(SECRET, OLD.peer_id, NEW.peer_id, NONCE + OTHER_NONCE, ACCOUNT)
    return {
        "ask": link_wire.Ask(NONCE, proof_of(SECRET, OLD.peer_id, NEW.peer_id, NONCE), "phone"),
        "give": link_wire.Give(OTHER_NONCE, ACCOUNT.public_raw, sealed, LIST.value, LIST.signature),
        "have": link_wire.Have(),
    }


def sync_frames() -> dict[str, sync_wire.Frame]:
    friend, user = FRIEND.public_raw, FRIEND_ACCOUNT.public_raw
    batch = sync_wire.Batch(
        7,
        9,
        [sync_wire.ContactEntry("user", user, 3, "accepted", "Bob", True, 1_790_000_000_000)],
        [
            sync_wire.MessageEntry(
                bytes(range(16)),
                friend,
                user,
                "bob",
                "user",
                user,
                5,
                False,
                "hello \U0001f680",
                1_790_000_000_001,
                1_790_000_000_002,
                "received",
                False,
            )
        ],
        [sync_wire.StateEntry(OLD.public_raw, bytes(16), "delivered", True)],
        [sync_wire.SeenEntry("user", user, [sync_wire.Mark(friend, 5)])],
    )
    return {"log": sync_wire.Log(LOG), "from": sync_wire.From(6, 8), "batch": batch}


def build() -> dict[str, Any]:
    return {
        "source": "made by tests/chat/test_devices_vectors.py; described in docs/protocol/devices.md",
        "account_seed": ACCOUNT.seed.hex(),
        "old_device": OLD.public_raw.hex(),
        "new_device": NEW.public_raw.hex(),
        "list": {"number": NUMBER, "value": LIST.value.hex(), "signature": LIST.signature.hex()},
        "code": {"text": LinkCode.parse(CODE + "a" * 26).text[: len(CODE)] + secret_text(), "secret": SECRET.hex()},
        "devices": {name: wire.encode(frame).hex() for name, frame in device_frames().items()},
        "link": {name: link_wire.encode(frame).hex() for name, frame in link_frames().items()},
        "sync": {name: sync_wire.encode(frame).hex() for name, frame in sync_frames().items()},
    }


def secret_text() -> str:
    parsed = LinkCode.parse(CODE + "a" * 26)
    return LinkCode(parsed.device, parsed.way, SECRET).text.rpartition("#")[2]


def test_vectors_are_what_we_write() -> None:
    """Byte by byte; Ed25519 and the sealing have no chance in them."""
    assert json.loads(PATH.read_text()) == build()


def test_vectors_are_what_we_read() -> None:
    """Each frame comes back as it was, the code gives its secret, the sealed account opens with it alone."""
    vectors = json.loads(PATH.read_text())
    for name, frame in device_frames().items():
        assert wire.decode_untrusted(bytes.fromhex(vectors["devices"][name])[2:]) == frame
    for name, link in link_frames().items():
        assert link_wire.decode_untrusted(bytes.fromhex(vectors["link"][name])[2:]) == link
    for name, sync in sync_frames().items():
        assert sync_wire.decode_untrusted(bytes.fromhex(vectors["sync"][name])[4:]) == sync
    code = LinkCode.parse(vectors["code"]["text"])
    assert code.secret == SECRET
    assert code.peer == OLD.peer_id
    assert code.device.hosts == (("192.168.1.5", 4747), ("2001:db8::1", 4747))
    assert code.way == "198.51.100.1:4747"
    give = link_frames()["give"]
    assert isinstance(give, link_wire.Give)
    both = NONCE + OTHER_NONCE
    opened = open_account_untrusted(SECRET, OLD.peer_id, NEW.peer_id, both, give.user, give.sealed)
    assert opened.seed == ACCOUNT.seed
    for secret, old, new, nonces, user in (
        (bytes(16), OLD, NEW, both, give.user),
        (SECRET, NEW, OLD, both, give.user),
        (SECRET, OLD, FRIEND, both, give.user),
        (SECRET, OLD, NEW, both[::-1], give.user),
        (SECRET, OLD, NEW, both, FRIEND_ACCOUNT.public_raw),
    ):
        with pytest.raises(BadPacket, match="not_opened"):
            open_account_untrusted(secret, old.peer_id, new.peer_id, nonces, user, give.sealed)


def test_v3_only_a_newer_list_of_the_account_itself_counts() -> None:
    """Forged, of somebody else, without a number, from the future, older: refused; memory is bounded."""
    now = NUMBER + 1000
    listed = LIST.frame
    assert listed is not None
    forged = wire.Listed(FRIEND_ACCOUNT.public_raw, listed.value, listed.signature)
    with pytest.raises(BadPacket, match="bad_list_signature"):
        KnownList.from_untrusted(forged, now)
    unnumbered = KnownList.sign(ACCOUNT, DeviceList(0, (OLD.peer_id,))).frame
    assert unnumbered is not None
    with pytest.raises(BadPacket, match="no_number"):
        KnownList.from_untrusted(unnumbered, now)
    with pytest.raises(BadPacket, match="too_new"):
        KnownList.from_untrusted(listed, NUMBER - 86_400_001)

    contact = FRIEND_ACCOUNT.user_id
    lists = Lists(lambda user: user == contact)
    assert lists.counts(ACCOUNT.user_id, FRIEND.peer_id)  # nothing is known
    assert lists.learn(KnownList.from_untrusted(listed, now))
    assert not lists.learn(KnownList.from_untrusted(listed, now))
    assert not lists.counts(ACCOUNT.user_id, FRIEND.peer_id)
    newer = KnownList.sign(ACCOUNT, DeviceList(NUMBER + 1, (OLD.peer_id,)))
    assert lists.learn(newer)
    assert not lists.learn(KnownList.from_untrusted(listed, now))  # replayed: the revoked device stays revoked
    assert not lists.counts(ACCOUNT.user_id, NEW.peer_id)
    lists.learn(KnownList(contact, DeviceList(5, (FRIEND.peer_id,))))
    rng = random.Random(1)
    for _ in range(1_100):
        lists.learn(KnownList(AccountKey.generate(rng.randbytes).user_id, DeviceList(7, (OLD.peer_id,))))
    assert len(lists) == 1_024
    assert lists.of(contact) is not None
    assert lists.of(ACCOUNT.user_id) is None


if __name__ == "__main__":
    PATH.write_text(json.dumps(build(), indent=2) + "\n")
