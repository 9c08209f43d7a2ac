"""The process that carries the wire's packets. Started by `WireClient`; ends when that closes the control socket.

Control: JSON lines on the socket whose number is the first argument. `link` comes with the link's TUN descriptor.
Standard library only, so that it starts at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import socket
import struct
import sys
import time
from typing import Any, BinaryIO

from p2pnode.simulations.netns.wire import Flow, Link, Wire

__all__ = ["main"]

_BURST = 64  # packets taken from one link before the others get their turn
_PACKET_BYTES = 65_536
_PCAP_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 101)  # 101: LINKTYPE_RAW, an IP packet
_PRIORITY = -10  # a wire that waits for the processor would add delay that nobody asked for


class WireProcess:
    """The loop: packets due go out, packets that came in are taken, control lines are answered."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._wire = Wire(random.Random(1))
        self._links: dict[int, Link] = {}  # by TUN descriptor
        self._fds: dict[str, int] = {}
        self._received_fds: list[int] = []
        self._text = b""
        self._pcap: BinaryIO | None = None
        self._open = True

    def run(self) -> None:
        """Serve until the control socket ends."""
        while self._open:
            now = time.monotonic()
            for link, data in self._wire.due(now):
                self._write(link, data)
            next_at = self._wire.next_at()
            timeout = None if next_at is None else max(0.0, next_at - time.monotonic())
            # select, not poll: its time-out is exact to the microsecond, poll's to the millisecond
            control = self._control.fileno()
            for fd in select.select([control, *self._links], [], [], timeout)[0]:
                if fd == control:
                    self._read_control()
                elif fd in self._links:
                    self._read(fd)
        if self._pcap is not None:
            self._pcap.close()

    def _write(self, link: Link, data: bytes) -> None:
        try:
            os.write(self._fds[link.name], data)
        except OSError:  # its queue is full, or the interface is down
            self._wire.dropped["interface"] += 1

    def _read(self, fd: int) -> None:
        link = self._links[fd]
        for _ in range(_BURST):
            try:
                data = os.read(fd, _PACKET_BYTES)
            except BlockingIOError:
                return
            except OSError:  # the namespace is gone
                self._remove(link.name)
                return
            if self._wire.packet_untrusted(link, data, time.monotonic()) and self._pcap is not None:
                self._capture(data)

    def _capture(self, data: bytes) -> None:
        seconds, micro = divmod(time.time_ns() // 1000, 1_000_000)
        if self._pcap is not None:
            self._pcap.write(struct.pack("<IIII", seconds, micro, len(data), len(data)) + data)

    def _remove(self, name: str) -> None:
        fd = self._fds.pop(name, None)
        if fd is not None:
            self._wire.remove(name)
            del self._links[fd]
            os.close(fd)

    def _read_control(self) -> None:
        data, fds, _, _ = socket.recv_fds(self._control, 65_536, 16)
        self._received_fds += fds
        if not data:
            self._open = False
            return
        *lines, self._text = (self._text + data).split(b"\n")
        for line in lines:
            answer = self._do(json.loads(line))
            self._control.sendall(json.dumps(answer).encode() + b"\n")

    def _do(self, order: dict[str, Any]) -> Any:
        what = order["do"]
        if what == "link":
            link = Link(order["name"], _packed(order["addresses"]), order["delay_s"], order["loss"])
            self._wire.add(link)
            fd = self._received_fds.pop(0)
            self._links[fd], self._fds[link.name] = link, fd
        elif what == "remove":
            self._remove(order["name"])
        elif what == "readdress":
            self._wire.readdress(order["name"], _packed(order["addresses"]))
        elif what == "set":
            names = self._wire.links if order["name"] is None else [order["name"]]
            for name in names:
                for field, value in order["values"].items():
                    setattr(self._wire.links[name], field, value)
        elif what == "seed":
            self._wire.rng.seed(order["seed"])
        elif what == "flows":
            pair = {order["a"], order["b"]}
            flows = self._wire.tcp if order["tcp"] else self._wire.flows
            return [[*k, _shown(v)] for k, v in flows.items() if {k[0], k[2]} == pair]
        elif what == "counts":
            link = self._wire.links[order["name"]]
            return {"sent": link.sent, "received": link.received,
                    "sent_bytes": link.sent_bytes, "received_bytes": link.received_bytes}  # fmt: skip
        elif what == "dropped":
            return self._wire.dropped
        elif what == "pcap":
            self._pcap = open(order["path"], "wb")  # noqa: SIM115 - open as long as the wire is
            self._pcap.write(_PCAP_HEADER)
        elif what == "flush" and self._pcap is not None:
            self._pcap.flush()
        return None


def _packed(addresses: list[str]) -> frozenset[bytes]:
    """Return IPv4 addresses as they are, of IPv6 ones the /48: what a link gets."""
    return frozenset(
        socket.inet_pton(socket.AF_INET6, ip)[:6] if ":" in ip else socket.inet_aton(ip) for ip in addresses
    )


def _shown(flow: Flow) -> dict[str, Any]:
    return {"packets": flow.packets, "delivered": flow.delivered, "bytes": flow.bytes, "kinds": flow.kinds}


def main() -> None:
    """Run on the control socket named by the first argument."""
    with contextlib.suppress(PermissionError):
        os.nice(_PRIORITY)
    with socket.socket(fileno=int(sys.argv[1])) as control:
        WireProcess(control).run()


if __name__ == "__main__":
    main()
