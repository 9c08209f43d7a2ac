"""The lab's side of the wire: starts the process that carries packets, connects links, asks what it saw."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pnode.nat.mux import kind_of
from p2pnode.simulations.netns.errors import LabError
from p2pnode.simulations.netns.spaces import Space

__all__ = ["Counts", "SeenFlow", "WireClient", "WireSocket"]

_ANSWER_S = 20.0
# Only the first byte is known here; what follows makes a STUN header of it, so that the mux's own table decides.
_COOKIE_TAIL = bytes(3) + bytes.fromhex("2112A442") + bytes(12)


@dataclass(frozen=True)
class SeenFlow:
    """One direction of UDP or TCP between two public addresses, as seen outside of all routers.

    `delivered`: packets that reached the other link (its router may still have dropped them).
    """

    source: tuple[str, int]
    destination: tuple[str, int]
    packets: int
    delivered: int
    bytes: int
    kinds: Counter[str]

    @property
    def reverse(self) -> tuple[tuple[str, int], tuple[str, int]]:
        return self.destination, self.source


@dataclass(frozen=True)
class Counts:
    """What one link carried. Keys: `udp:05` (first byte of the payload, hex), `quic`, `tcp`, `icmp`, `ip`."""

    sent: Counter[str]
    received: Counter[str]
    sent_bytes: int
    received_bytes: int

    def __sub__(self, earlier: Counts) -> Counts:
        """Return what came since `earlier`."""
        return Counts(
            self.sent - earlier.sent,
            self.received - earlier.received,
            self.sent_bytes - earlier.sent_bytes,
            self.received_bytes - earlier.received_bytes,
        )

    @property
    def packets(self) -> int:
        """Both directions."""
        return self.sent.total() + self.received.total()

    def by_kind(self) -> dict[str, int]:
        """Return packets of both directions by the mux's kinds: stun, dht, relay, quic; the rest as it is."""
        kinds: Counter[str] = Counter()
        for name, count in (self.sent + self.received).items():
            kinds[_mux_kind(name)] += count
        return dict(kinds)


class WireSocket:
    """Sends orders to the wire process, one at a time, from any thread."""

    def __init__(self, control: socket.socket) -> None:
        control.settimeout(_ANSWER_S)
        self._control = control
        self._lock = threading.Lock()
        self._rest = b""

    def order(self, do: str, *fds: int, **fields: Any) -> Any:
        """Return the answer. Raise LabError when the wire has died."""
        line = json.dumps({"do": do, **fields}).encode() + b"\n"
        with self._lock:
            try:
                socket.send_fds(self._control, [line], fds)
                while b"\n" not in self._rest:
                    data = self._control.recv(1 << 20)
                    if not data:
                        raise LabError("The laboratory's wire has died.")
                    self._rest += data
            except OSError as exc:
                raise LabError("The laboratory's wire does not answer.") from exc
            answer, _, self._rest = self._rest.partition(b"\n")
            return json.loads(answer)

    def close(self) -> None:
        self._control.close()


class WireClient:
    """The wire of one laboratory."""

    def __init__(self, spawn: Callable[..., subprocess.Popen[bytes]], *, seed: int, pcap: Path | None = None) -> None:
        """`spawn`: starts a process that dies with the laboratory. `pcap`: file for all packets that left a link."""
        ours, theirs = socket.socketpair()
        self._socket = WireSocket(ours)
        with theirs:
            self.process = spawn(
                [sys.executable, "-m", "p2pnode.simulations.netns.wire_process", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        self._socket.order("seed", seed=seed)
        if pcap is not None:
            self._socket.order("pcap", path=str(pcap))

    def connect(self, space: Space, name: str, addresses: Sequence[str], *, delay_s: float, loss: float) -> None:
        """Give the namespace an interface `wan0` with these addresses, whose other end is the wire.

        Of each IPv6 address the wire leads the whole /48 here.
        """
        fd = space.tun("wan0")
        try:
            ipv6 = any(":" in ip for ip in addresses)
            if ipv6:
                space.write("ipv6/conf/wan0/addr_gen_mode", "1")  # no link-local address: nobody is on this link
            space.ip(
                *(_add_address(ip) for ip in addresses),
                "link set wan0 multicast off up",
                "route add default dev wan0",
                *(["route add ::/0 dev wan0"] if ipv6 else []),
            )
            self._socket.order("link", fd, name=name, addresses=list(addresses), delay_s=delay_s, loss=loss)
        finally:
            os.close(fd)

    def readdress(self, space: Space, name: str, old: Sequence[str], new: Sequence[str]) -> None:
        """Exchange the IPv4 addresses of a link and of its namespace's `wan0`."""
        self._socket.order("readdress", name=name, addresses=list(new))
        space.ip(
            *(f"address delete {ip}/32 dev wan0" for ip in old if ip not in new),
            *(_add_address(ip) for ip in new if ip not in old),
            "route replace default dev wan0",
        )

    def remove(self, name: str) -> None:
        """Take a link away for good."""
        self._socket.order("remove", name=name)

    def set(self, name: str | None = None, **values: float | bool) -> None:
        """Change `delay_s`, `loss` or `up` of one link; None: of all."""
        self._socket.order("set", name=name, values=values)

    def counts(self, name: str) -> Counts:
        """Return what a link has carried since it was connected."""
        answer = self._socket.order("counts", name=name)
        return Counts(
            Counter(answer["sent"]), Counter(answer["received"]), answer["sent_bytes"], answer["received_bytes"]
        )

    def flows(self, one: str, other: str, *, tcp: bool = False) -> list[SeenFlow]:
        """Return the UDP (or TCP) flows between two public IP addresses, each direction for itself."""
        answer = self._socket.order("flows", a=one, b=other, tcp=tcp)
        return [
            SeenFlow((a, ap), (b, bp), v["packets"], v["delivered"], v["bytes"], Counter(v["kinds"]))
            for a, ap, b, bp, v in answer
        ]

    def answered(self, one: str, other: str, kind: str | None = None) -> list[SeenFlow]:
        """Return those flows whose reverse was delivered as well, `one`'s direction only.

        `kind`: only flows that carried packets of this kind of the mux both ways.
        """
        if (":" in one) != (":" in other):
            return []
        flows = {(f.source, f.destination): f for f in self.flows(one, other) if f.delivered and _has(f, kind)}
        return [f for f in flows.values() if f.source[0] == one and f.reverse in flows]

    def dropped(self) -> dict[str, int]:
        """Return packets that the wire dropped, by reason."""
        return dict(self._socket.order("dropped"))

    def flush(self) -> None:
        """Write what is captured so far to the file."""
        self._socket.order("flush")

    def close(self) -> None:
        """End the process."""
        self._socket.close()
        try:
            self.process.wait(3)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _add_address(ip: str) -> str:
    return f"address add {ip}/128 dev wan0 nodad" if ":" in ip else f"address add {ip}/32 dev wan0"


def _mux_kind(name: str) -> str:
    prefix, _, byte = name.partition(":")
    if prefix != "udp" or not byte:
        return prefix
    return kind_of(bytes.fromhex(byte) + _COOKIE_TAIL) or "other"


def _has(flow: SeenFlow, kind: str | None) -> bool:
    return kind is None or any(_mux_kind(name) == kind for name in flow.kinds)
