"""The kernel's connection table."""

from __future__ import annotations

import os
import socket
import struct

from p2pnode.simulations.netns.errors import LabError

__all__ = ["forget_connections"]

# Fixed by the kernel (nfnetlink_conntrack.h)
_NETLINK_NETFILTER = 12
_CT_DELETE = (1 << 8) | 2
_REQUEST_ACK = 1 | 4


def forget_connections() -> None:
    """Flush the table of the network namespace that the thread is in (what `conntrack -F` does). Raise LabError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.bind((0, 0))
        netlink.settimeout(10)
        netlink.send(struct.pack("=IHHII", 20, _CT_DELETE, _REQUEST_ACK, 1, 0) + bytes(4))
        answer = netlink.recv(4096)
    number = -struct.unpack_from("=i", answer, 16)[0]
    if number:
        raise LabError(f"The kernel keeps the router's connections: {os.strerror(number)}.")
