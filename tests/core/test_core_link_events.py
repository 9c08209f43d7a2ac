"""The system's word of changed interfaces and routes, in a network namespace of its own."""

import subprocess
import sys

from support.require import require_namespaces

_SCRIPT = """
import asyncio, subprocess, time
from p2pnode.core.real_network import RealNetwork

async def main():
    network, changed = RealNetwork(), asyncio.Queue()
    cancel = network.watch_interfaces(lambda: changed.put_nowait(time.monotonic()))
    async def after(*command):
        await asyncio.to_thread(subprocess.run, ["ip", *command], check=True)
        began = time.monotonic()
        async with asyncio.timeout(4):  # below the seconds between two polls
            await changed.get()
        return f"{' '.join(command)}: {time.monotonic() - began:.3f} s"
    for command in (
        "link set lo up", "link add card0 type veth peer name card1", "link set card1 up",
        "address add 10.1.0.2/24 dev card0", "link set card0 up",
        "route add default via 10.1.0.1", "route change default via 10.1.0.3", "address del 10.1.0.2/24 dev card0",
    ):
        if command.startswith(("link add", "link set card1", "address add")):
            subprocess.run(["ip", *command.split()], check=True)  # not up yet: nothing that anybody could use
        else:
            print(await after(*command.split()), [each.name for each in network.interfaces()])
    cancel()
    cancel()
    subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
    await asyncio.sleep(0.2)
    assert changed.empty(), "told after the end"

asyncio.run(main())
"""


def test_changes_are_told_at_once() -> None:
    """A link, an address, a default route that come, change or go: told long before a poll would see them."""
    done = subprocess.run(
        [*require_namespaces(), sys.executable, "-c", _SCRIPT],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5
