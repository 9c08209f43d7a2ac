"""The DHT: Kademlia with authenticated messages, signed records and continuous lookups. docs/protocol/dht.md."""

from p2pnode.core.network_id import network_tag
from p2pnode.dht.contact import Contact, KnownContact
from p2pnode.dht.pools import MIN_WORK, PLACES, STAMP_BYTES, pool_salt, work_of
from p2pnode.dht.records import MAIL_LIFE, MAIL_SALT, SignedRecord, record_key
from p2pnode.dht.results import GetResult, HelloResult, PutResult, ReadBack, Told
from p2pnode.dht.server import Dht
from p2pnode.dht.settings import DhtSettings
from p2pnode.dht.signalling import Registration
from p2pnode.dht.statistics import DhtStatistics
from p2pnode.dht.topic_entries import MAX_ENTRY_VALUE, MAX_TOPIC_LIFE, TopicEntry, topic_id
from p2pnode.dht.topic_reading import TopicResult

__all__ = [
    "MAIL_LIFE",
    "MAIL_SALT",
    "MAX_ENTRY_VALUE",
    "MAX_TOPIC_LIFE",
    "MIN_WORK",
    "PLACES",
    "STAMP_BYTES",
    "Contact",
    "Dht",
    "DhtSettings",
    "DhtStatistics",
    "GetResult",
    "HelloResult",
    "KnownContact",
    "PutResult",
    "ReadBack",
    "Registration",
    "SignedRecord",
    "Told",
    "TopicEntry",
    "TopicResult",
    "network_tag",
    "pool_salt",
    "record_key",
    "topic_id",
    "work_of",
]
