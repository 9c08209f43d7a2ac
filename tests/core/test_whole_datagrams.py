"""Sockets that never fragment, on a real loopback with a small MTU."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.require import require_namespaces

SCRIPT = """
import asyncio, sys
from p2pnode.core.address import Address
from p2pnode.core.real_network import RealNetwork

async def main(ip):
    got = []
    network = RealNetwork()
    inbox = await network.open_udp(Address(ip, 0), lambda data, source: got.append(len(data)))
    for whole in (True, False):
        sender = await network.open_udp(Address(ip, 0), lambda data, source: None, whole=whole)
        for size in (1300, 1390):
            sender.send(bytes(size), inbox.local)
        await asyncio.sleep(0.2)
        print(whole, got, sender.dropped)
        got.clear()

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
def test_what_is_too_large_for_the_link_is_dropped_and_counted(ip: str) -> None:
    """At 1,400 bytes: whole, 1,390 with headers do not leave; in fragments they do."""
    command = require_namespaces()
    script = 'ip link set lo up mtu 1400 && exec "$0" -c "$1" "$2"'
    done = subprocess.run(
        [*command, "sh", "-c", script, sys.executable, SCRIPT, ip], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True [1300] 1", "False [1300, 1390] 0"]
