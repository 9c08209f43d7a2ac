"""Commands about the running node and the network: status, peers, dht, find, connect, ping, netcheck."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from p2pnode.cli.invocation import Invocation, invocation_of
from p2pnode.cli.link_text import link_line, links_line, links_table
from p2pnode.cli.options import JsonOption, PeerArgument, TimeoutOption, examples
from p2pnode.cli.output import age, fold, size, steps, table

if TYPE_CHECKING:
    from p2pnode.api.netcheck_types import FlowInfo
    from p2pnode.api.types import FindAnswer, PortMapping, PublishedInfo, TraceEntry

__all__ = ["add"]

NETCHECK_TIMEOUT_S = 60.0  # it takes seven, more where many are silent


def add(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("status", epilog=examples("p2pnode status", "p2pnode status --json"))(_status)
    app.command("peers", epilog=examples("p2pnode peers", "p2pnode peers -v", "p2pnode peers --json"))(_peers)
    app.command("dht", epilog=examples("p2pnode dht", "p2pnode dht --json"))(_dht)
    app.command("find", epilog=examples("p2pnode find alice", "p2pnode find p2p1... --json"))(_find)
    app.command("connect", epilog=examples("p2pnode connect alice", "p2pnode connect 12D3KooW...@192.0.2.7:4747"))(
        _connect
    )
    app.command("netcheck", epilog=examples("p2pnode netcheck", "p2pnode netcheck --json"))(_netcheck)
    app.command("ping", epilog=examples("p2pnode ping alice -n 10", "p2pnode ping localhost 4747"))(_ping)


def _netcheck(ctx: typer.Context, json: JsonOption = None) -> None:
    """Find out what stands between this node and the world: NAT, firewall, IPv6, and what to do about it."""
    from p2pnode.api import netcheck_types as t
    from p2pnode.cli.netcheck_text import netcheck_lines

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    client = invocation.client()
    with invocation.progress("Asking other nodes what they see of this one"):
        answer = client.get("/v1/netcheck", t.NetcheckAnswer, timeout=NETCHECK_TIMEOUT_S)
    invocation.emit(answer, *netcheck_lines(answer))


def _status(ctx: typer.Context, json: JsonOption = None) -> None:
    """Show the running node: addresses, NAT class, counters."""
    from p2pnode.api import types as t

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    status = invocation.client().get("/v1/status", t.Status)
    invocation.emit(
        status,
        *table(
            [
                ("peer id", status.peer_id),
                ("user id", status.user_id),
                ("name", status.name or "-"),
                ("network", status.network),
                ("role", status.role),
                ("NAT", status.nat),
                ("addresses", " ".join(status.addresses) or "-"),
                ("seen as", " ".join(status.seen_as) or "-"),
                ("rendezvous", " ".join(status.rendezvous) or "-"),
                ("flows", _flows_text(status.flows)),
                *(("router's port", _mapping_text(each)) for each in status.port_mapping),
                ("relayed for others", f"{size(status.relay.bytes)}, {status.relay.flows} flows now"),
                ("own use of relays", f"{size(status.relayed_bytes)}, {status.relayed_sessions} sessions now"),
                ("TLS links", links_line(status.links)),
                ("to hand out", status.bootstrap or "-"),
                ("sessions", str(status.peers)),
                ("routing table", str(status.routing_table)),
                ("records", str(status.records)),
                ("up for", age(status.uptime_s)),
                ("memory", size(status.rss_bytes)),
            ]
        ),
    )


def _mapping_text(mapping: PortMapping) -> str:
    """Return `203.0.113.7:4747 by pcp, 118m left: why it is believed or not`."""
    if mapping.external is None or mapping.lifetime_left_s is None:
        return f"{mapping.state}: {mapping.reason}"
    left = age(mapping.lifetime_left_s)
    return f"{mapping.external} by {mapping.protocol}, {left} left, {mapping.state}: {mapping.reason}"


def _flows_text(flows: FlowInfo) -> str:
    """Say what it costs to stay reachable."""
    if not flows.kept:
        return "none to keep alive"
    life = "not measured yet" if flows.mapping_lifetime_s is None else f"{flows.mapping_lifetime_s:.0f} s"
    return (
        f"{flows.kept} kept alive, each used every {flows.keep_alive_s:.0f} s ({flows.datagrams_per_hour} datagrams an"
        f" hour); quiet ones live {life}"
    )


def _peers(
    ctx: typer.Context,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="With the trace: what was tried, why this path; and all TLS links.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """List open sessions: path, round-trip time, traffic."""
    from p2pnode.api import types as t

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    answer = invocation.client().get("/v1/peers", t.Peers)
    links = ["", *links_table(answer.links)] if verbose and answer.links else []
    if not answer.peers:
        invocation.emit(answer, "No session is open.", *links)
        return
    rows = [("PEER", "NAME", "PATH", "ADDRESS", "RTT", "OPEN", "SENT", "RECEIVED")]
    rows += [
        (
            p.peer,
            p.name or "-",
            p.path,
            p.remote,
            "-" if p.rtt_ms is None else f"{p.rtt_ms:.1f} ms",
            age(p.age_s),
            size(p.bytes_sent),
            size(p.bytes_received),
        )
        for p in answer.peers
    ]
    lines = list(table(rows))
    if verbose:
        for p in answer.peers:
            lines += ["", f"{p.peer}: {p.path}"]
            if p.relay is not None:
                lines.append(f"{size(p.relay.bytes_sent)} sent, {size(p.relay.bytes_received)} received through relays")
            if p.link is not None:
                lines.append(link_line(p.link))
            lines += [*_trace_lines(invocation, p.trace), *fold(p.explanation, invocation.stdout)]
    invocation.emit(answer, *lines, *links)


def _trace_lines(invocation: Invocation, trace: list[TraceEntry]) -> list[str]:
    return steps([(f"{step.at_s:8.3f} s", step.step, step.result) for step in trace], invocation.stdout)


def _dht(ctx: typer.Context, json: JsonOption = None) -> None:
    """Show the routing table by bucket, stored records, traffic and drops."""
    from p2pnode.api import types as t

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    dht = invocation.client().get("/v1/dht", t.DhtAnswer)
    lookups = f"{dht.lookups}" if dht.lookup_mean_s is None else f"{dht.lookups}, {dht.lookup_mean_s:.2f} s on average"
    lines = table([("TABLE", "CONTACTS", "NODES (ESTIMATE)", "BY BUCKET, FAR TO NEAR")] + [
        (f"{part.realm} {part.family}", str(part.contacts), f"{part.estimated_nodes:.0f}",
         " ".join(map(str, part.buckets)))
        for part in dht.tables if part.contacts
    ])  # fmt: skip
    lines += ["", *table([
        ("records", f"{dht.records}, {size(dht.record_bytes)} of {size(dht.record_bytes_limit)}"),
        *(("published" if i == 0 else "", _published_text(each)) for i, each in enumerate(dht.published)),
        ("topic entries", f"{dht.topic_entries}, {size(dht.topic_bytes)} of {size(dht.topic_bytes_limit)}"),
        ("forwards to", f"{dht.registered} nodes"),
        ("lookups", lookups),
        ("round trip", "-" if dht.rtt_s is None else f"{dht.rtt_s * 1000:.1f} ms"),
        ("signatures", f"{dht.signatures_checked} checked, {dht.verification_s:.2f} s"),
        ("dropped", " ".join(f"{reason} {count}" for reason, count in dht.drops.items()) or "-"),
    ])]  # fmt: skip
    lines += ["", *table([("FRAMES", "IN", "BYTES", "OUT", "BYTES")] + [
        (kind, str(count), size(dht.bytes_in[kind]), str(dht.datagrams_out[kind]), size(dht.bytes_out[kind]))
        for kind, count in dht.datagrams_in.items()
    ])]  # fmt: skip
    invocation.emit(dht, *lines)


def _published_text(record: PublishedInfo) -> str:
    ago = f"{record.realm}, {record.record}, {record.age_s:.0f} s ago"
    if not record.held:
        return f"{ago}: NOT SEEN at any of the {record.asked} nodes that answered"
    return f"{ago}: {record.held} of the {record.asked} nearest nodes hold it"


def _find(ctx: typer.Context, peer: PeerArgument, timeout: TimeoutOption = None, json: JsonOption = None) -> None:
    """Look up whether a peer is online, or when it was seen last, and where."""
    from p2pnode.api import types as t

    invocation = invocation_of(ctx)
    config = invocation.config(json=json, timeout=timeout)
    _check_peer(peer)
    client = invocation.client()
    with invocation.progress(f"Looking for {peer}"):
        found = client.get(
            "/v1/find", t.FindAnswer, t.PeerQuery(peer, config["timeout"]), timeout=2 * config["timeout"]
        )
    invocation.emit(
        found,
        f"{found.peer} {found.name}".rstrip(),
        _presence_text(found),
        f"{found.hops} {'hop' if found.hops == 1 else 'hops'}, {found.queried} nodes queried, {found.late} late,"
        f" {found.elapsed_s:.2f} s",
        *found.addresses,
    )


def _presence_text(found: FindAnswer) -> str:
    """Say whether somebody is there, who says so, and how old that is."""
    ago = f"{age(found.age_s)} ago"
    record = f"its own record of {ago}" + (f", held by {found.holders} nodes" if found.holders > 1 else "")
    said_by = {
        "session": f"session with us, heard {ago}",
        "session_lost": f"our session with it broke, heard last {ago}",
        "goodbye": f"it said goodbye {ago}",
        "record": record,
        "notice": f"{record}, told by its holders",
        "lan": "discovered on the local network",
    }
    state = {"online": "online", "last_seen": f"last seen {ago}", "offline": "offline"}.get(found.state)
    if state is None:
        state = "online" if found.online else "offline"
    seen = f", last seen {found.last_seen}" if found.last_seen is not None and found.state != "online" else ""
    return f"{state} ({said_by.get(found.evidence, f'evidence {age(found.age_s)} old')}){seen}"


def _connect(ctx: typer.Context, peer: PeerArgument, timeout: TimeoutOption = None, json: JsonOption = None) -> None:
    """Open a session with a peer; show the path and how it was found."""
    from p2pnode.api import types as t

    invocation = invocation_of(ctx)
    config = invocation.config(json=json, timeout=timeout)
    _check_peer(peer)
    client = invocation.client()
    with invocation.progress(f"Connecting to {peer}"):
        answer = client.post(
            "/v1/connect", t.ConnectAnswer, t.ConnectRequest(peer, config["timeout"]), timeout=2 * config["timeout"]
        )
    rtt = "" if answer.rtt_ms is None else f", round trip {answer.rtt_ms:.1f} ms"
    invocation.emit(
        answer,
        *fold(f"Connected to {answer.peer}: {answer.path}, {answer.seconds:.2f} s{rtt}", invocation.stdout),
        *_trace_lines(invocation, answer.trace),
        *fold(answer.explanation, invocation.stdout),
    )


def _ping(
    ctx: typer.Context,
    peer: Annotated[str, typer.Argument(metavar="PEER|HOST", help="A peer, or a host name or IP with PORT.")],
    port: Annotated[str | None, typer.Argument(metavar="[PORT]", show_default=False)] = None,
    count: Annotated[
        str | None, typer.Option("-n", "--count", metavar="N", help="Round trips (default 4).  [env: P2PNODE_COUNT]")
    ] = None,
    timeout: TimeoutOption = None,
    json: JsonOption = None,
) -> None:
    """Measure round trips to a peer; with PORT: is there a node at that address, and who."""
    invocation = invocation_of(ctx)
    config = invocation.config(json=json, timeout=timeout, count=count)
    if port is not None:
        _hello(invocation, f"{peer}:{port}" if ":" not in peer else f"[{peer.strip('[]')}]:{port}", config["timeout"])
        return
    _check_peer(peer)
    _ping_peer(invocation, peer, config["count"], config["timeout"])


def _ping_peer(invocation: Invocation, peer: str, count: int, timeout: float) -> None:
    from p2pnode.api import types as t

    client = invocation.client()
    times: list[float] = []
    for number in range(1, count + 1):
        answer = client.post("/v1/ping", t.PingAnswer, t.PingRequest(peer, timeout), timeout=3 * timeout)
        times.append(answer.rtt_ms)
        invocation.emit(answer, f"{answer.peer} {answer.path} {number}/{count}: {answer.rtt_ms:.2f} ms")
    if not invocation.json:
        middle = sorted(times)[len(times) // 2]
        invocation.line(f"{count} round trips: {min(times):.2f} / {middle:.2f} / {max(times):.2f} ms (min/median/max)")


def _hello(invocation: Invocation, where: str, timeout: float) -> None:
    from p2pnode import parse_host_port
    from p2pnode.api import types as t
    from p2pnode.cli.output import usage_error

    try:
        host, port = parse_host_port(where)
    except ValueError as exc:
        raise usage_error(f"{where!r} is not HOST PORT: {exc}.") from exc
    answer = invocation.client().post(
        "/v1/hello", t.HelloAnswer, t.HelloRequest(host, port, timeout=min(timeout, 5.0)), timeout=timeout
    )
    invocation.emit(
        answer, f"{answer.peer} answers at {where}: {answer.rtt_ms:.2f} ms; it sees us as {answer.observed}"
    )


def _check_peer(peer: str) -> None:
    """Refuse a malformed PEER before anything else, also when no node runs. Raise InvalidPeerError."""
    from p2pnode import parse_peer

    parse_peer(peer)
