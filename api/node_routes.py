"""Operations on the node: status, sessions, presence, connect, ping, hello."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from p2pnode import LinkStatus, P2PError, PresenceChanged, Session, Trace
from p2pnode.api import types as t
from p2pnode.api.metrics import CONTENT_TYPE, metrics_text
from p2pnode.api.netcheck_types import FlowInfo
from p2pnode.api.routing import Route
from p2pnode.api.service import Service

__all__ = ["ROUTES"]


async def get_status(service: Service, _request: None) -> t.Status:
    """Return ids, addresses, NAT, counters and sizes of the running node."""
    status = service.node.status()
    return t.Status(
        peer_id=str(service.node.peer_id),
        user_id=str(service.node.user_id),
        name=service.node.settings.name,
        network=service.node.settings.network_id,
        role=status.role,
        nat=status.nat,
        addresses=list(status.addresses),
        bootstrap=f"{status.peer_id}@{status.addresses[0]}" if status.addresses else None,
        alone=status.routing_table == 0,
        peers=status.peers,
        routing_table=status.routing_table,
        records=status.records,
        uptime_s=status.uptime_s,
        rss_bytes=status.rss_bytes,
        seen_as=list(status.seen_as),
        rendezvous=list(status.rendezvous),
        flows=FlowInfo(**asdict(status.flows)),
        port_mapping=[
            t.PortMapping(
                state=each.state,
                reason=each.reason,
                protocol=each.protocol,
                gateway=each.gateway,
                internal=each.internal,
                external=each.external,
                lifetime_left_s=each.lifetime_left_s,
            )
            for each in status.port_mapping
        ],
        relay=t.RelayService(
            flows=status.relay.pairs,
            datagrams=status.relay.datagrams,
            bytes=status.relay.bytes,
            refused=sum(status.relay.refused.values()),
        ),
        relayed_sessions=status.relayed_sessions,
        relayed_bytes=status.relayed_bytes,
        links=_link_summary(status.links),
        clock_skew_s=status.clock_skew_s,
    )


def _link_summary(links: Sequence[LinkStatus]) -> t.LinkSummary:
    kinds = Counter(link.kind for link in links)
    return t.LinkSummary(
        ours=kinds["ours"],
        theirs=kinds["theirs"],
        punched=kinds["punched"],
        proxied=sum(link.proxied for link in links),
        bytes_sent=sum(link.bytes_sent for link in links),
        bytes_received=sum(link.bytes_received for link in links),
    )


def _link_info(link: LinkStatus) -> t.LinkInfo:
    return t.LinkInfo(
        kind=link.kind,
        peer=None if link.peer is None else str(link.peer),
        address=link.where,
        proxy=link.proxied,
        age_s=round(link.age_s, 3),
        bytes_sent=link.bytes_sent,
        bytes_received=link.bytes_received,
        dropped=link.dropped,
    )


async def get_dht(service: Service, _request: None) -> t.DhtAnswer:
    """Return routing tables, stored records, traffic by kind and drops by reason."""
    dht = service.node.dht
    now = dht.statistics()
    lookups = sum(now.lookups.counts)
    return t.DhtAnswer(
        tables=[
            t.DhtTable(
                realm=overlay.realm.value,
                family=overlay.family,
                contacts=contacts,
                buckets=list(now.by_bucket[overlay]),
                estimated_nodes=round(now.estimated_nodes[overlay], 1),
            )
            for overlay, contacts in now.contacts.items()
        ],
        records=now.records,
        record_bytes=now.record_bytes,
        record_bytes_limit=dht.settings.storage_bytes,
        topic_entries=now.topic_entries,
        topic_shards=now.topic_shards,
        topic_bytes=now.topic_bytes,
        topic_bytes_limit=dht.settings.topic_bytes,
        registered=now.registered,
        keyed_peers=now.sessions,
        lookups=lookups,
        lookup_mean_s=round(now.lookups.sums[0] / lookups, 4) if lookups else None,
        published=[
            t.PublishedInfo(
                realm=each.realm.value,
                record=each.what,
                held=each.held,
                asked=each.asked,
                age_s=round(service.node.network.monotonic() - each.at, 1),
            )
            for each in service.node.status().published
        ],
        rtt_s=now.rtt_s,
        datagrams_in=now.datagrams_in,
        datagrams_out=now.datagrams_out,
        bytes_in=now.bytes_in_by,
        bytes_out=now.bytes_out_by,
        drops=dict(sorted(now.drops.items())),
        signatures_checked=now.signatures_checked,
        verification_s=round(now.verify_s, 4),
    )


async def get_metrics(service: Service, _request: None) -> str:
    """Return all counters in Prometheus' text format 0.0.4."""
    return metrics_text(service.node)


def _relay_use(service: Service, session: Session) -> t.RelayUse | None:
    sent, received = service.node.reaching.pathways.relaying.usage(session.peer)
    if session.path != "relay" and not sent + received:
        return None
    return t.RelayUse(reason=service.node.reaching.explain(session).text, bytes_sent=sent, bytes_received=received)


async def list_peers(service: Service, _request: None) -> t.Peers:
    """Return the open sessions with path, round-trip time and traffic."""
    directory = service.chat.directory
    petnames = {device: c.petname for c in directory.contacts() for device in directory.devices_of(c.party)}
    links = service.node.status().links
    by_address = {link.stands_for: _link_info(link) for link in links}
    infos = []
    for session in service.node.sessions():
        why = service.node.reaching.explain(session)
        user = service.chat.user_of(session.peer)
        infos.append(
            t.SessionInfo(
                peer=str(session.peer),
                name=petnames.get(session.peer) or directory.name_of(session.peer),
                user=None if user is None else str(user),
                path=session.path,
                remote=str(session.remote),
                rtt_ms=_ms(session.rtt_s),
                age_s=round(service.now - session.opened_at, 3),
                bytes_sent=session.bytes_sent,
                bytes_received=session.bytes_received,
                initiator=session.initiator,
                relay=_relay_use(service, session),
                link=by_address.get(session.remote),
                reason=why.reason.value,
                explanation=why.text,
                trace=trace_entries(session.trace),
            )
        )
    return t.Peers(infos, [_link_info(link) for link in links])


async def find(service: Service, request: t.PeerQuery) -> t.FindAnswer:
    """Look a peer's presence up; of a user's devices the one that is online, or was last."""
    started = service.now
    target = await service.target(request.peer)
    found = []
    error: P2PError | None = None
    for device in await service.devices(target, timeout=request.timeout):
        try:
            found.append(await service.node.find(device, timeout=request.timeout))
        except P2PError as exc:
            error = exc
    if not found:
        raise error or P2PError("This user has no device that can be found.")
    best = min(found, key=lambda r: (not r.online, r.age_s))
    return t.FindAnswer(
        peer=str(best.peer),
        online=best.online,
        age_s=round(best.age_s, 3),
        addresses=[str(a) for a in best.addresses],
        name=best.name,
        user=None if best.user is None else str(best.user),
        hops=best.hops,
        seconds=round(service.now - started, 4),
        queried=best.queried,
        late=best.late,
        state=best.state,
        evidence=best.evidence,
        holders=best.holders,
        last_seen=None if best.last_seen is None else t.rfc3339(best.last_seen),
        elapsed_s=round(best.seconds, 4),
    )


async def list_presences(service: Service, _: None) -> t.Presences:
    """Say of each watched peer whether it is there, and what that is known from; nobody is asked."""
    events = [event for peer in service.node.watched() if (event := service.node.presence(peer)) is not None]
    return t.Presences([presence_entry(event) for event in events])


def presence_entry(event: PresenceChanged) -> t.PresenceEntry:
    return t.PresenceEntry(
        peer=str(event.peer),
        online=event.online,
        state=event.state,
        age_s=round(event.age_s, 3),
        evidence=event.evidence,
        holders=event.holders,
        last_seen=None if event.last_seen is None else t.rfc3339(event.last_seen),
        addresses=[str(address) for address in event.addresses],
        name=event.name,
        user=None if event.user is None else str(event.user),
    )


async def connect(service: Service, request: t.ConnectRequest) -> t.ConnectAnswer:
    """Open a session, or use the open one, and have the peer echo one byte."""
    started = service.now
    target = await service.target(request.peer)
    deadline = started + request.timeout
    while True:
        session = await service.session(target, timeout=max(1.0, deadline - service.now))
        try:
            rtt = await session.ping(timeout=max(1.0, deadline - service.now))
        except P2PError:
            if not session.closed or service.now >= deadline:
                raise
            continue  # it ended while it was being proven, or gave way to another one
        break
    why = service.node.reaching.explain(session)
    return t.ConnectAnswer(
        connected=True,
        reason=why.reason.value,
        explanation=why.text,
        peer=str(session.peer),
        path=session.path,
        seconds=round(service.now - started, 4),
        rtt_ms=_ms(rtt),
        trace=trace_entries(session.trace),
    )


async def ping(service: Service, request: t.PingRequest) -> t.PingAnswer:
    """Measure one round trip to the peer's program."""
    target = await service.target(request.peer)
    session = await service.session(target, timeout=request.timeout)
    before = service.now  # uvloop's own clock has whole milliseconds only
    await session.ping(timeout=request.timeout)
    rtt = service.now - before
    return t.PingAnswer(peer=str(session.peer), path=session.path, rtt_ms=round(rtt * 1000, 3))


async def hello(service: Service, request: t.HelloRequest) -> t.HelloAnswer:
    """Say whether a node listens at an address, and who it is."""
    answer = await service.node.hello(request.host, request.port, timeout=request.timeout)
    if request.join:
        await service.node.join_through(request.host, request.port)
        service.chat.enter_hall(answer.peer_id)
    return t.HelloAnswer(peer=str(answer.peer_id), rtt_ms=round(answer.rtt_s * 1000, 3), observed=str(answer.observed))


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def trace_entries(trace: Trace) -> list[t.TraceEntry]:
    """A trace in the form in which answers, and refusals of a connect, carry it."""
    return [t.TraceEntry(step.at_s, step.step, step.result) for step in trace.steps]


ROUTES = [
    Route("GET", "/v1/status", "The node as a whole", get_status, None, t.Status),
    Route("GET", "/v1/peers", "Open sessions", list_peers, None, t.Peers),
    Route("GET", "/v1/dht", "Routing tables, records, traffic", get_dht, None, t.DhtAnswer),
    Route("GET", "/metrics", "Counters for Prometheus", get_metrics, text=CONTENT_TYPE),
    Route("GET", "/v1/find", "Presence of a peer", find, t.PeerQuery, t.FindAnswer),
    Route("GET", "/v1/presence", "Watched peers", list_presences, None, t.Presences),
    Route("POST", "/v1/connect", "Open a session", connect, t.ConnectRequest, t.ConnectAnswer),
    Route("POST", "/v1/ping", "One round trip over a session", ping, t.PingRequest, t.PingAnswer),
    Route("POST", "/v1/hello", "Who listens at an address", hello, t.HelloRequest, t.HelloAnswer),
]
