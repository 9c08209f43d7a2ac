"""The metrics page: every line is what Prometheus' text format 0.0.4 allows, read back by a strict parser, and its
numbers are those of nodes that worked together in virtual time."""

from __future__ import annotations

import asyncio
import re

import pytest
from support.virtual_nodes import lan_of

from p2pnode.api.metrics import CONTENT_TYPE, metrics_text
from p2pnode.dht.statistics import LOOKUP_BOUNDS_S, Counters, Histogram
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"')
SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
Labels = tuple[tuple[str, str], ...]


def parsed(text: str) -> dict[str, dict[Labels, float]]:
    """Read the text format strictly: HELP, TYPE, then the samples of that one metric; nothing twice, in no other form.

    Raise AssertionError. A histogram's samples are under its name with _bucket, _sum and _count.
    """
    assert text.endswith("\n")
    metrics: dict[str, dict[Labels, float]] = {}
    kinds: dict[str, str] = {}
    helped = current = ""
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            helped, explained = line.removeprefix("# HELP ").split(" ", 1)
            assert NAME.fullmatch(helped)
            assert explained
        elif line.startswith("# TYPE "):
            current, kind = line.removeprefix("# TYPE ").split(" ")
            assert current == helped
            assert kind in ("counter", "gauge", "histogram")
            assert current not in kinds
            kinds[current] = kind
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            name, inside, value = match.groups()
            ends = ("_bucket", "_sum", "_count") if kinds[current] == "histogram" else ("",)
            assert name in [current + end for end in ends]
            assert (kinds[current] == "counter") == name.endswith("_total"), line
            labels = tuple(LABEL.findall(inside or ""))
            assert ",".join(f'{label}="{text}"' for label, text in labels) == (inside or ""), line
            samples = metrics.setdefault(name, {})
            assert labels not in samples
            samples[labels] = float(value)
            assert samples[labels] >= 0
    for name, kind in kinds.items():
        if kind == "histogram":
            buckets = [(dict(labels)["le"], count) for labels, count in metrics[name + "_bucket"].items()]
            assert buckets[-1][0] == "+Inf"
            assert [float(le) for le, _ in buckets] == sorted(float(le) for le, _ in buckets)
            assert [count for _, count in buckets] == sorted(count for _, count in buckets)
            assert metrics[name + "_count"][()] == buckets[-1][1]
    return metrics


@pytest.mark.parametrize("settings", [{}, {"network_secret": "correct horse battery"}])
def test_metrics_are_valid_and_count_what_happened(settings: dict[str, str]) -> None:
    """After joins, a lookup and a session: traffic by kind, lookups, buckets, records, sessions; no counter falls."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 5, **settings) as nodes:
            await nodes[1].find(nodes[2].peer_id)
            session = await nodes[1].connect(nodes[2].peer_id)
            await session.ping()
            await nodes[2].announce("chess", b"a game?")
            first = parsed(metrics_text(nodes[1]))
            assert first["p2pnode_sessions"] == {(("path", "lan"),): 1.0}
            assert sum(first["p2pnode_dht_bucket_contacts"].values()) == 4
            assert first["p2pnode_dht_estimated_nodes"][(("realm", "private"), ("family", "ipv4"))] == 5
            assert first["p2pnode_dht_records"][()] >= 1
            assert 0 < first["p2pnode_dht_record_bytes"][()] < first["p2pnode_dht_record_bytes_limit"][()]
            assert first["p2pnode_dht_topic_entries"][()] == first["p2pnode_dht_topic_shards"][()] == 1
            assert 0 < first["p2pnode_dht_topic_bytes"][()] < first["p2pnode_dht_topic_bytes_limit"][()]
            lookups = first["p2pnode_dht_lookup_seconds_count"][()]
            assert lookups >= 2
            for kind in ("dht", "quic"):
                for direction in ("in", "out"):
                    labels = (("direction", direction), ("kind", kind))
                    assert first["p2pnode_datagrams_total"][labels] > 0
                    assert first["p2pnode_bytes_total"][labels] >= 20 * first["p2pnode_datagrams_total"][labels]
            traffic = first["p2pnode_dht_bytes_total"]
            assert traffic[(("direction", "out"), ("kind", "signed_request"))] >= 224
            assert first["p2pnode_dht_signatures_checked_total"][()] >= 4
            statistics = nodes[1].dht.statistics()
            assert sum(statistics.bytes_in_by.values()) == statistics.bytes_in
            assert sum(traffic.values()) == statistics.bytes_in + statistics.bytes_out
            await nodes[1].find(nodes[3].peer_id)
            second = parsed(metrics_text(nodes[1]))
            assert second["p2pnode_dht_lookup_seconds_count"][()] > lookups
            for name, samples in first.items():
                if name.endswith(("_total", "_bucket", "_count")):
                    assert all(second[name][labels] >= value for labels, value in samples.items()), name

    run_virtual(main, delay=0.02)


def test_drops_are_counted_by_reason() -> None:
    """Garbage that reaches the DHT and a datagram of no kind appear with their reasons."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 2) as (one, other):
            other.mux.send(b"\x05" + bytes(300), one.addresses()[0])
            other.mux.send(b"\x20" + bytes(30), one.addresses()[0])
            await asyncio.sleep(1)
            drops = parsed(metrics_text(one))["p2pnode_drops_total"]
            assert drops[(("layer", "mux"), ("reason", "unknown_kind"))] == 1
            assert sum(n for labels, n in drops.items() if ("layer", "dht") in labels) == 1

    run_virtual(main)


def test_histogram_sorts_by_bound_and_verification_is_timed() -> None:
    """At most the bound counts in its bucket, above all in the last; a copy stays as it was; the clock is added up."""
    histogram = Histogram()
    for value in (0.0, 0.05, 0.051, 10.0, 10.1, 99.0):
        histogram.add(value)
    assert (histogram.counts[0], histogram.counts[1], histogram.counts[-2], histogram.counts[-1]) == (2, 1, 1, 2)
    assert len(histogram.counts) == len(LOOKUP_BOUNDS_S) + 1
    kept = histogram.copy()
    histogram.add(1.0)
    assert sum(kept.counts) == 6
    ticks = iter((10.0, 10.5, 20.0, 20.25))
    counters = Counters()
    counters.clock = lambda: next(ticks)
    assert counters.verified(lambda _signature, _signed: True, b"", b"")
    assert not counters.verified(lambda _signature, _signed: False, b"", b"")
    assert (counters.signatures_checked, counters.verify_s) == (2, 0.75)


@pytest.mark.parametrize(
    "text",
    [
        "# TYPE p2pnode_a gauge\np2pnode_a 1\n",
        "# HELP a b\n# TYPE a gauge\na 1",
        "# HELP a b\n# TYPE a gauge\na{x=1} 1\n",
        "# HELP a b\n# TYPE a gauge\na 1\na 2\n",
        "# HELP a b\n# TYPE a counter\na 1\n",
        "# HELP a b\n# TYPE a gauge\nb 1\n",
    ],
)
def test_the_parser_refuses_what_the_format_does_not_allow(text: str) -> None:
    """The parser of these tests is strict: no TYPE without HELP, no open end, no bare label, nothing twice."""
    with pytest.raises(AssertionError):
        parsed(text)


def test_content_type_is_that_of_the_format() -> None:
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"
