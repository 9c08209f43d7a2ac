"""A TCP segment of the virtual world: what crosses links and routers.

Routers look at the flags and translate the addresses that come beside the packet; they pass the packet itself on
unchanged (a router may lower `mss` in a SYN, as home routers do for a smaller MTU).
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["TcpPacket"]


class TcpPacket(NamedTuple):
    """One segment (RFC 9293, section 3.1 "Header Format").

    `seq`: place of the first byte in its direction's stream; data begins at 0 and FIN takes one place after it.
    `acked`: the next place that the sender of this packet waits for. `window`: bytes that it can take beyond that.
    `mss`: in a SYN, the most data bytes that it takes in one packet. `held`: ranges beyond `acked` that it has
    (RFC 2018), first place and the one after the last.
    """

    syn: bool = False
    ack: bool = False
    fin: bool = False
    rst: bool = False
    seq: int = 0
    acked: int = 0
    window: int = 0
    mss: int = 0
    data: bytes = b""
    held: tuple[tuple[int, int], ...] = ()
