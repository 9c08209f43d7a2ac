"""Every network is proven by probing before anything is concluded from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from p2pnode.nat.behaviour import PRESERVING, RANDOM, SEQUENTIAL
from p2pnode.simulations.netns.errors import LabError
from p2pnode.simulations.netns.kinds import ADDRESS_AND_PORT, PUBLIC, NatKind, kind_named
from p2pnode.simulations.netns.probes import LabProbeServer, Verdict, probe_host
from p2pnode.simulations.netns.spaces import Space
from p2pnode.simulations.netns.threads import call_each
from p2pnode.simulations.netns.topology import Host
from p2pnode.simulations.netns.wire_client import WireClient
from p2pnode.simulations.probing import ProbeServers, ProbeSettings

__all__ = ["ALLOCATION", "Prover", "differences"]

_AT_A_TIME = 8  # probes wait most of the time
_LONGER = 2  # a wrong verdict is asked for again with longer waits: a busy machine answers late
ALLOCATION = {"kept": PRESERVING, "pooled": RANDOM, "random": RANDOM, "sequential": SEQUENTIAL}


class Prover:
    """A probe server on the wire, and the judgement of what it finds."""

    def __init__(self, wire: WireClient, ips: tuple[str, str], prefix: str, *, delay_s: float) -> None:
        """`ips`: two public addresses of the server; `prefix`: its IPv6 network. Raise LabError."""
        # Three round trips, and room for a link that has just come up and loses its first packets
        self._wait_s = 3 * (4 * delay_s + 0.4)
        self._space = Space(ipv6=True)
        self._servers = ProbeServers(ips, ips6=(f"{prefix}::1", f"{prefix}::2"))
        try:
            wire.connect(self._space, "probe", [*ips, *self._servers.ips6], delay_s=delay_s, loss=0.0)
            self._server = LabProbeServer(self._space, self._servers)
        except BaseException:
            self._space.close()
            raise

    def prove(self, hosts: Sequence[Host], *, tries: int) -> dict[str, Verdict]:
        """Probe each host's network, up to `tries` times; raise LabError when one is not what it is called."""
        found = call_each(lambda host: self._prove(host, tries), hosts, at_a_time=_AT_A_TIME)
        return dict(zip((host.name for host in hosts), found, strict=True))

    def _prove(self, host: Host, tries: int) -> Verdict:
        for number in range(tries):
            verdict = self.probe(host, wait_s=self._wait_s * _LONGER**number)
            wrong = list(differences(kind_named(host.kind), verdict, host.public_ip))
            if not wrong:
                return verdict
        raise LabError(f"The network of {host.name} is not {host.kind}: {'; '.join(wrong)}.", verdict=verdict)

    def probe(self, host: Host, *, wait_s: float) -> Verdict:
        """Find out what stands before a host."""
        gateway = host.router.lan_ip if host.router is not None else None
        settings = ProbeSettings(wait_s=wait_s, gateway=gateway, port_mapping=gateway is not None)
        return probe_host(host, self._servers, settings)

    def close(self) -> None:
        self._server.close()
        self._space.close()


def differences(kind: NatKind, verdict: Verdict, public_ip: str) -> Iterator[str]:
    """Yield what a probe found other than it must be behind a kind of network."""
    found: dict[str, object] = {"udp": verdict.udp, "tcp": verdict.tcp, "ipv6": verdict.ipv6}
    right: dict[str, object] = {"udp": kind.has_internet, "tcp": _tcp_ports(kind), "ipv6": _ipv6(kind)}
    if kind.has_internet:
        for name in ("nat", "mapping", "filtering", "allocation", "hairpin"):
            found[name] = getattr(verdict, name)
        found["seen as"] = verdict.public.ip if verdict.public is not None else None
        right |= {
            "nat": kind.is_router,
            "mapping": kind.mapping,
            "filtering": kind.filtering,
            "allocation": PRESERVING if kind.port_kept else ALLOCATION[kind.outermost.ports],
            "hairpin": kind.outermost.hairpin or not kind.is_router,
            "seen as": public_ip,
        }
    if kind.ipv6 and kind.name != PUBLIC:
        found["IPv6 filtering"], right["IPv6 filtering"] = verdict.ipv6_filtering, ADDRESS_AND_PORT
    if kind.is_router:
        for name in ("nat_pmp", "pcp", "upnp"):
            found[name], right[name] = getattr(verdict, name), kind.port_mapping
    for name, value in found.items():
        if value != right[name]:
            yield f"{name} {value} instead of {right[name]}"


def _tcp_ports(kind: NatKind) -> tuple[int, ...]:
    ports = ProbeServers.tcp_ports
    return ports if kind.tcp == "all" else tuple(port for port in ports if str(port) == kind.tcp)


def _ipv6(kind: NatKind) -> str:
    if not kind.ipv6:
        return "none"
    return "firewalled" if kind.is_router else "open"
