"""Memory of a DHT node: what a stored record and a contact cost, and the whole process with every quota full.

Each part runs in a process of its own and reads its resident memory before and after, with a collection each time: what
the system sees, allocator included. Records come through the decoder, as from the network.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import sys
import time
from collections.abc import Callable, Coroutine
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from table import Table

from p2pnode.core.address import Address, Realm
from p2pnode.core.ids import NodeId, PeerId
from p2pnode.core.keys import NodeKey
from p2pnode.core.real_network import RealNetwork
from p2pnode.dht import Dht, DhtSettings, SignedRecord
from p2pnode.dht.keyring import Session
from p2pnode.dht.limits import prefix_of
from p2pnode.dht.messages import Put, decode_request_untrusted, encode
from p2pnode.dht.overlay import Overlay
from p2pnode.dht.topic_entries import Shard, TopicEntry

VALUE_BYTES = 500
RECORD_BAR, CONTACT_BAR, PROCESS_BAR = 1_500.0, 3_000.0, 200.0
RECORDS = 30_000  # more than fit
SHORT = 4_000
SPAWN = get_context("spawn")

Figures = dict[str, float]


def resident() -> int:
    """Return the resident memory in bytes, garbage collected."""
    gc.collect()
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def make_dht() -> Dht:
    rng = random.Random(1)
    settings = DhtSettings(serve=frozenset(Realm))
    return Dht(key=NodeKey.generate(rng.randbytes), network=RealNetwork(), settings=settings, send=lambda *_: None)


def random_ip(rng: random.Random, overlay: Overlay) -> str:
    """Return an address of the overlay, in a /24 or /48 that few others have."""
    if overlay.is_ipv6:
        first = 0xFD00 + rng.getrandbits(8) if overlay.realm is Realm.PRIVATE else 0x2A00 + rng.getrandbits(8)
        return f"{first:x}:{rng.getrandbits(16):x}:{rng.getrandbits(16):x}::{rng.getrandbits(15) + 1:x}"
    if overlay.realm is Realm.PRIVATE:
        return f"10.{rng.getrandbits(8)}.{rng.getrandbits(8)}.{rng.randrange(1, 255)}"
    return f"{rng.randrange(20, 90)}.{rng.getrandbits(8)}.{rng.getrandbits(8)}.{rng.randrange(1, 255)}"


def fill_records(dht: Dht, count: int) -> int:
    """Store records of different authors through different networks until the quota is full; return how many stay."""
    rng, now, wall = random.Random(2), time.monotonic(), time.time()
    for number in range(count):
        author = NodeKey.generate(rng.randbytes)
        record = SignedRecord.sign(author, dht.network_tag, b"presence/public", number + 1, int(wall) + 3600,
                                   rng.randbytes(VALUE_BYTES))  # fmt: skip
        request = decode_request_untrusted(encode(Put(bytes(8), record)))
        assert isinstance(request, Put)
        prefix = prefix_of(random_ip(rng, Overlay.PUBLIC_IPV4))
        dht.storage.store(request.record, Realm.PUBLIC, prefix, now, wall)
        if dht.storage.bytes > dht.settings.storage_bytes - 3_000:
            break
    return len(dht.storage)


def fill_topics(dht: Dht) -> int:
    """Announce different signers under topics of their own until the quota is full; return how many entries stay."""
    rng, now, wall = random.Random(5), time.monotonic(), time.time()
    while dht._topics.held_bytes < dht.settings.topic_bytes - 3_000:
        signer, topic = NodeKey.generate(rng.randbytes), rng.randbytes(20)
        entry = TopicEntry.sign(signer, dht.network_tag, topic, 1, int(wall) + 1800, rng.randbytes(200))
        shard = Shard.of(topic, 0, entry.public_key)
        dht._topics.store(shard, entry, Realm.PUBLIC, prefix_of(random_ip(rng, Overlay.PUBLIC_IPV4)), now, wall)
    return len(dht._topics)


def fill_contacts(dht: Dht, tries: int) -> int:
    """Let nodes in all overlays prove themselves, each with pairwise keys; return how many are kept."""
    rng, now = random.Random(3), time.monotonic()
    keyring, tables = dht._engine.keyring, dht._members.tables
    overlays = [overlay for overlay in Overlay if overlay.realm is not Realm.LOOPBACK]
    for number in range(tries):
        overlay = overlays[number % len(overlays)]
        peer, address = PeerId(rng.randbytes(32)), Address(random_ip(rng, overlay), rng.randrange(1024, 65536))
        dht._members.seen(peer, address, overlay, now).measured(0.05)
    contacts = [contact for overlay in overlays for contact in tables[overlay].everybody()]
    contacts += [
        c for overlay in overlays for bucket in tables[overlay].buckets for c in bucket.replacement_nodes.values()
    ]
    contacts = list({id(contact): contact for contact in contacts}.values())
    for contact in contacts:
        assert contact.peer_id is not None
        session = Session(contact.peer_id, rng.randbytes(80), keyring.ciphers, initiator=True, now=now)
        session.prove(contact.address)
        session.paths[contact.address] = contact
        session.observed = rng.randbytes(6)
        keyring.confirm(session)
    return len(contacts)


def fill_the_rest(dht: Dht) -> None:
    """Fill what strangers can fill: keys, nonces, leases, watches, budgets by prefix, remembered addresses."""
    rng, now, settings = random.Random(4), time.monotonic(), dht.settings
    engine = dht._engine
    for number in range(settings.max_sessions + settings.max_unconfirmed * 3):
        confirmed = number < settings.max_sessions
        if confirmed or number % 3 == 0:
            peer = PeerId(rng.randbytes(32))
        session = Session(peer, rng.randbytes(80), engine.keyring.ciphers, initiator=False, now=now)
        for _ in range(4 if confirmed else 1):
            session.prove(Address(random_ip(rng, Overlay.PUBLIC_IPV6), 4747))
        session.observed = rng.randbytes(18)
        (engine.keyring.confirm if confirmed else engine.keyring.add_unconfirmed)(session)
    for _ in range(settings.max_nonces):
        engine._answerer._nonces.add(rng.randbytes(16), now)
    for number in range(settings.max_registrations):
        node_id, address = rng.randbytes(20), Address(random_ip(rng, Overlay.PUBLIC_IPV4), 4747)
        engine.rendezvous.registered.grant(node_id, address, now + 60, now)
        lease = engine.rendezvous.registered.find(node_id, now)
        for _ in range(16 if lease is not None and number % 4 == 0 else 0):
            assert lease is not None
            lease.want(rng.randbytes(20), 1.0, 4.0)
    for _ in range(settings.max_watches):
        place = Realm.PUBLIC, rng.randbytes(20)
        ways = tuple((NodeId(rng.randbytes(20)), Address(random_ip(rng, Overlay.PUBLIC_IPV6), 4747)) for _ in range(2))
        address = Address(random_ip(rng, Overlay.PUBLIC_IPV6), 4747)
        engine.notices.watches.grant(place, rng.randbytes(20), address, ways, now + 60, 1, now)
    for _ in range(8_192):
        ip = random_ip(rng, Overlay.PUBLIC_IPV6)
        engine.sent.note(Address(ip, 4747))
        engine.members.overlay_of(ip)
        engine._answerer._unproven.take(prefix_of(ip), now)
        engine._answerer._proven.take(prefix_of(ip), now)


# -- the parts, each in a process of its own --------------------------------------------------------------------------


async def records(short: bool) -> Figures:
    others, dht = make_dht(), make_dht()
    fill_records(others, 1_500)  # fills what all share: the decoder, the signatures that are remembered
    before, started = resident(), time.perf_counter()
    count = fill_records(dht, SHORT if short else RECORDS)
    seconds = time.perf_counter() - started
    grown = resident() - before
    return {
        "count": count,
        "above_value": grown / count - VALUE_BYTES,
        "counted": dht.storage.bytes / len(dht.storage) - VALUE_BYTES,
        "seconds": seconds,
    }


async def contacts(short: bool) -> Figures:
    others, dht = make_dht(), make_dht()
    fill_contacts(others, 20_000)  # fills what all share: the forms of 8,192 addresses
    before = resident()
    count = fill_contacts(dht, 8_000 if short else 40_000)
    return {"count": count, "each": (resident() - before) / count}


async def full(short: bool) -> Figures:
    empty = resident()
    dht = make_dht()
    begun = resident()
    fill_records(dht, SHORT if short else RECORDS)
    fill_contacts(dht, 8_000 if short else 40_000)
    fill_the_rest(dht)
    topics = fill_topics(dht)
    sizes = {"empty": empty / 1e6, "begun": begun / 1e6, "full": resident() / 1e6}
    return {**sizes, "records": len(dht.storage), "topics": topics}


PARTS: dict[str, Callable[[bool], Coroutine[None, None, Figures]]] = {
    "records": records,
    "contacts": contacts,
    "full": full,
}


def _child(name: str, short: bool, pipe: Connection) -> None:
    pipe.send(asyncio.run(PARTS[name](short)))


def in_own_process(name: str, short: bool) -> Figures:
    """Return a part's figures."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_child, args=(name, short, theirs))
    process.start()
    theirs.close()
    try:
        found: Figures = ours.recv()
    finally:
        process.join()
    return found


def measure(table: Table, *, short: bool = False) -> None:
    """Add the rows of this benchmark."""
    each = in_own_process("records", short)
    beside = f"{each['count']:.0f} records, counted as {each['counted']:.0f} B above the value"
    table.add("memory of a stored record above its value", each["above_value"], "B", RECORD_BAR, beside)
    each = in_own_process("contacts", short)
    table.add("memory of a contact with its keys", each["each"], "B", CONTACT_BAR, f"{each['count']:.0f} contacts")
    each = in_own_process("full", short)
    held = f"{each['records']:.0f} records, {each['topics']:.0f} topic entries"
    beside = f"{held}; {each['begun']:.0f} MB with nothing, {each['empty']:.0f} MB imports"
    table.add("a node with every quota full", each["full"], "MB", None if short else PROCESS_BAR, beside)


def main() -> int:
    """Measure and print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="fewer records and contacts; the quotas are not all full")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    table = Table()
    measure(table, short=options.short)
    return table.finish(options.json)


if __name__ == "__main__":
    sys.exit(main())
