"""The running node's counters as Prometheus text.

Prometheus, "Exposition formats", text format version 0.0.4. Written by hand: it is one line per number, and a client
library would keep a second set of counters beside those that the node has anyway.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from p2pnode import Node

__all__ = ["CONTENT_TYPE", "metrics_text"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

Sample = tuple[Mapping[str, str], float]


def metrics_text(node: Node) -> str:
    """Return all metrics. Names are a contract: new ones may come, none is renamed."""
    page = _Page()
    _traffic(page, node)
    _dht(page, node)
    status = node.status()
    paths = Counter(session.path for session in node.sessions())
    page.add("sessions", "gauge", "Open sessions.", [({"path": p}, n) for p, n in sorted(paths.items())])
    kinds = Counter(link.kind for link in status.links)
    page.add("tls_links", "gauge", "TLS links that are open.", [({"kind": k}, n) for k, n in sorted(kinds.items())])
    page.one("relay_flows", "gauge", "Pairs of nodes that we join as a relay.", status.relay.pairs)
    page.one("relay_bytes_total", "counter", "Payload that we forwarded as a relay.", status.relay.bytes)
    page.add(
        "relay_refused_total", "counter", "Flows that we refused to relay.",
        [({"reason": reason}, count) for reason, count in sorted(status.relay.refused.items())],
    )  # fmt: skip
    page.one("relayed_bytes_total", "counter", "Traffic of our own sessions through relays.", status.relayed_bytes)
    page.one("uptime_seconds", "gauge", "Since the node started.", status.uptime_s)
    page.one("resident_memory_bytes", "gauge", "Memory of the process.", status.rss_bytes)
    return page.text()


def _traffic(page: _Page, node: Node) -> None:
    mux, dht = node.mux.statistics(), node.dht.statistics()
    for name, unit, into, out in (
        ("datagrams", "Datagrams", mux.datagrams_in, mux.datagrams_out),
        ("bytes", "UDP payload", mux.bytes_in, mux.bytes_out),
        ("dht_datagrams", "Datagrams of the DHT", dht.datagrams_in, dht.datagrams_out),
        ("dht_bytes", "UDP payload of the DHT", dht.bytes_in_by, dht.bytes_out_by),
    ):
        samples = [({"direction": "in", "kind": kind}, count) for kind, count in sorted(into.items())]
        samples += [({"direction": "out", "kind": kind}, count) for kind, count in sorted(out.items())]
        page.add(f"{name}_total", "counter", f"{unit} by direction and kind.", samples)
    drops = [({"layer": "mux", "reason": reason}, count) for reason, count in sorted(mux.dropped.items())]
    drops += [({"layer": "dht", "reason": reason}, count) for reason, count in sorted(dht.drops.items())]
    relay = node.reaching.pathways.relaying.statistics()
    drops += [({"layer": "relay", "reason": reason}, count) for reason, count in sorted(relay.dropped.items())]
    drops.append(({"layer": "network", "reason": "not_sealed_by_a_member"}, node.membership.foreign))
    drops.append(({"layer": "network", "reason": "unknown_or_sealed_for_others"}, node.questions.unknown))
    page.add("drops_total", "counter", "Datagrams and records dropped, by reason.", drops)


def _dht(page: _Page, node: Node) -> None:
    dht, limits = node.dht.statistics(), node.dht.settings
    tables = {o: {"realm": o.realm.value, "family": o.family} for o in dht.contacts}
    page.histogram(
        "dht_lookup_seconds", "Duration of lookups.", dht.lookups.bounds, dht.lookups.counts, dht.lookups.sums[0]
    )
    page.add(
        "dht_bucket_contacts",
        "gauge",
        "Verified contacts in the routing table.",
        [
            ({**labels, "bucket": str(index)}, count)
            for overlay, labels in tables.items()
            for index, count in enumerate(dht.by_bucket[overlay])
        ],
    )
    page.add(
        "dht_estimated_nodes",
        "gauge",
        "Nodes that serve, estimated from those next to us.",
        [(labels, dht.estimated_nodes[overlay]) for overlay, labels in tables.items()],
    )
    page.add(
        "published_held",
        "gauge",
        "Of the nodes nearest to a record of ours, those that held it when it was last read back.",
        [({"realm": each.realm.value, "record": each.what}, each.held) for each in node.status().published],
    )
    page.add(
        "published_asked",
        "gauge",
        "Of the nodes nearest to a record of ours, those that answered then.",
        [({"realm": each.realm.value, "record": each.what}, each.asked) for each in node.status().published],
    )
    page.add(
        "dht_requests_total",
        "counter",
        "Requests answered.",
        [({"kind": kind}, count) for kind, count in sorted(dht.requests.items())],
    )
    page.add(
        "dht_refused_total",
        "counter",
        "Errors received.",
        [({"code": str(code)}, count) for code, count in sorted(dht.refused.items())],
    )
    for name, kind, text, value in (
        ("dht_records", "gauge", "Records held.", dht.records),
        ("dht_record_bytes", "gauge", "Memory of the records held.", dht.record_bytes),
        ("dht_record_bytes_limit", "gauge", "Quota of dht_record_bytes.", limits.storage_bytes),
        ("dht_prefix_records_limit", "gauge", "Records per address block once room is short.", limits.prefix_records),
        ("dht_topic_entries", "gauge", "Topic entries held.", dht.topic_entries),
        ("dht_topic_shards", "gauge", "Parts of topics in which those are.", dht.topic_shards),
        ("dht_topic_bytes", "gauge", "Memory of the topic entries held.", dht.topic_bytes),
        ("dht_topic_bytes_limit", "gauge", "Quota of dht_topic_bytes.", limits.topic_bytes),
        ("dht_registered", "gauge", "Nodes that we forward calls to.", dht.registered),
        ("dht_watches", "gauge", "Leases of nodes that we tell of changes.", dht.watches),
        ("dht_watches_limit", "gauge", "Quota of dht_watches.", limits.max_watches),
        ("dht_notices_total", "counter", "Changes that we told, confirmed.", dht.notices),
        ("dht_registered_limit", "gauge", "Quota of dht_registered.", limits.max_registrations),
        ("dht_keyed_peers", "gauge", "Peers with agreed keys.", dht.sessions),
        ("dht_keyed_peers_limit", "gauge", "Quota of dht_keyed_peers.", limits.max_sessions),
        ("dht_pending_requests", "gauge", "Own requests that wait for an answer.", dht.pending),
        ("dht_regions_searched_total", "counter", "Keys near which ids were denser than chance allows.", dht.regions),
        ("dht_signatures_checked_total", "counter", "Signatures of requests and answers.", dht.signatures_checked),
        ("dht_verification_seconds_total", "counter", "Processor time in those.", dht.verify_s),
    ):
        page.one(name, kind, text, value)


class _Page:
    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, name: str, kind: str, text: str, samples: Iterable[Sample]) -> None:
        self._head(name, kind, text)
        self._lines += [_line(name, labels, value) for labels, value in samples]

    def one(self, name: str, kind: str, text: str, value: float) -> None:
        self.add(name, kind, text, [({}, value)])

    def histogram(self, name: str, text: str, bounds: Iterable[float], counts: list[int], total: float) -> None:
        """`counts`: one more than `bounds`; not cumulative."""
        self._head(name, "histogram", text)
        below = 0
        for bound, count in zip((*map(repr, bounds), "+Inf"), counts, strict=True):
            below += count
            self._lines.append(_line(f"{name}_bucket", {"le": bound}, below))
        self._lines += [_line(f"{name}_sum", {}, total), _line(f"{name}_count", {}, below)]

    def _head(self, name: str, kind: str, text: str) -> None:
        self._lines += [f"# HELP p2pnode_{name} {text}", f"# TYPE p2pnode_{name} {kind}"]

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


def _line(name: str, labels: Mapping[str, Any], value: float) -> str:
    shown = ",".join(f'{label}="{str(text).translate(_ESCAPES)}"' for label, text in labels.items())
    return f"p2pnode_{name}{{{shown}}} {value!r}" if shown else f"p2pnode_{name} {value!r}"
