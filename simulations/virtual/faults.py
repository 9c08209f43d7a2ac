"""What goes wrong: networks that split, laptops that sleep or move, machines that crash.

Where the end of a fault is wanted, the function returns it. Hosts are given as a `VirtualNetwork` or `VirtualHost`.
Partitions work hop by hop: of hosts behind a router, name the router with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from p2pnode.simulations.virtual import processes
from p2pnode.simulations.virtual.host import VirtualHost
from p2pnode.simulations.virtual.links import LinkProfile
from p2pnode.simulations.virtual.network import VirtualNetwork
from p2pnode.simulations.virtual.wires import Block
from p2pnode.simulations.virtual.world import VirtualWorld, host_of

__all__ = ["block", "crash", "kill", "move", "partition", "resume", "suspend"]

AnyHost = VirtualNetwork | VirtualHost
Heal = Callable[[], None]
"""Ends a fault; calling it twice is harmless."""


def block(world: VirtualWorld, sources: Iterable[AnyHost], destinations: Iterable[AnyHost]) -> Heal:
    """Lose from now on whatever any of `sources` sends to any of `destinations`; the other way is not touched.

    What is on the wire arrives. Return what ends it.
    """
    return _block(world, [Block(_hosts(sources), _hosts(destinations))])


def partition(world: VirtualWorld, *groups: Iterable[AnyHost]) -> Heal:
    """Split the world: hosts of different groups do not reach each other, hosts in no group reach all.

    Raise ValueError when a host is in two groups. Return what heals it.
    """
    sides = [_hosts(group) for group in groups]
    if sum(map(len, sides)) != len(frozenset().union(*sides)):
        raise ValueError("a host is in two groups of the partition")
    return _block(world, [Block(one, other) for one in sides for other in sides if one is not other])


def move(one: AnyHost, *ips: str, lan: str | None = None, gateway: VirtualHost | None = None,
         link: LinkProfile | None = None) -> None:  # fmt: skip
    """Take a host to another network: new addresses, router and link in place of the old ones; watchers are told once.

    Sockets bound to a wildcard go on at the new addresses. Raise ValueError when an address is taken: then the host
    has none.
    """
    host = host_of(one)
    host.gateway = None
    host.links.clear()
    host.replace_addresses(ips, lan=lan)
    host.gateway = gateway
    if link is not None:
        host.world.set_link(host, link)


def suspend(one: AnyHost) -> None:
    """Close the laptop's lid: nothing on the host runs, its datagrams are lost, its monotonic clock stands still.

    Raise RuntimeError when something on the host was started outside of its process (see `VirtualNetwork.run`).
    """
    host = host_of(one)
    if host.suspended_at is not None:
        return
    _check_inside(host.networks)
    host.suspended_at = host.world.loop.now()
    processes.freeze(host.world.loop, [network.process for network in host.networks])


def resume(one: AnyHost) -> None:
    """Open it again: what ran goes on where it was; the wall clock has gone on meanwhile."""
    host = host_of(one)
    if host.suspended_at is None:
        return
    slept_s = host.world.loop.now() - host.suspended_at
    host.suspended_at = None
    host.lag_s += slept_s
    processes.thaw(host.world.loop, [network.process for network in host.networks], slept_s)


async def kill(*networks: VirtualNetwork) -> None:
    """End these nodes as `kill -9` and a lost route would: no goodbye, no RST; what they wrote to disk stays.

    Afterwards `network.network()` is for the same node started again. Killing many at once is much cheaper than one by
    one. Raise RuntimeError as `suspend` does.
    """
    _check_inside(networks)
    for network in networks:
        network.close_sockets()
        if network in network.host.networks:
            network.host.networks.remove(network)
    if networks:
        await processes.kill(networks[0].host.world.loop, [network.process for network in networks])


async def crash(*hosts: AnyHost) -> None:
    """Pull the plug: everything on these hosts is killed, and they are off. `host.up = True` turns one on again."""
    chosen = [host_of(each) for each in hosts]
    for host in chosen:
        host.up = False
    await kill(*(network for host in chosen for network in list(host.networks)))
    for host in chosen:
        resume(host)  # nobody is left to go on; it is off, not asleep


def _block(world: VirtualWorld, blocks: list[Block]) -> Heal:
    world.wires.blocks.extend(blocks)
    world.wires_changed()

    def heal() -> None:
        world.wires.blocks[:] = [each for each in world.wires.blocks if each not in blocks]
        world.wires_changed()

    return heal


def _hosts(group: Iterable[AnyHost]) -> frozenset[VirtualHost]:
    return frozenset(host_of(each) for each in group)


def _check_inside(networks: Iterable[VirtualNetwork]) -> None:
    for network in networks:
        if network.began_outside:
            raise RuntimeError(
                f"what runs on {network.host.name} was started outside of its process: start it by VirtualNetwork.run"
            )
