"""The `Network` that a node in the virtual world is given: one program on one host."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from p2pnode.core.address import Address, Scope, scope_of
from p2pnode.core.network import (
    Cancel,
    DatagramHandler,
    DatagramSocket,
    Gateway,
    Interface,
    MulticastSocket,
    Network,
    SegmentsHandler,
    TcpStream,
)
from p2pnode.simulations.virtual.places import WALL_AT_START_S
from p2pnode.simulations.virtual.processes import RUNNING, Process
from p2pnode.simulations.virtual.sockets import VirtualDatagramSocket, VirtualMulticastSocket
from p2pnode.simulations.virtual.tcp import connect

if TYPE_CHECKING:
    from p2pnode.simulations.virtual.host import VirtualHost

__all__ = ["KilledError", "VirtualNetwork"]

T = TypeVar("T")


class KilledError(RuntimeError):
    """What was run on a host did not finish: its process was killed."""


class VirtualNetwork(Network):
    """The `Network` of one node on a virtual host, and the process in which the node runs.

    Start the node by `await network.run(node.start())` if it shall be suspended or killed: only what began inside the
    process is stopped with it.
    """

    def __init__(self, host: VirtualHost, number: int) -> None:
        self.host = host
        self.process = Process(host.lag_s)
        self.rng = random.Random(f"{host.world.seed}/{host.name}/{number}/rng")
        self.began_outside = False
        """A socket was opened from outside of the process: suspending would stop only half of the program."""
        self._tokens = random.Random(f"{host.world.seed}/{host.name}/{number}/tokens")

    def network(self) -> VirtualNetwork:
        """Return a further `Network` on the same host, for a further node or for the same one started again."""
        return self.host.network()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` inside the process and return its result. Raise KilledError when the process is killed."""
        task = self.host.world.loop.create_task(work, context=self.process.context)
        try:
            return await task
        except BaseException as exc:
            if self.process.dead and task.done() and not _is_being_cancelled():
                raise KilledError(f"killed on {self.host.name}: {task.get_name()}") from exc
            raise

    def call(self, function: Callable[..., T], *args: object) -> T:
        """Call `function` inside the process, now."""
        return function(*args) if RUNNING.get() is self.process else self.process.context.run(function, *args)

    def monotonic(self) -> float:
        return self.host.world.loop.now() - self.process.lag_s

    def wall(self) -> float:
        return WALL_AT_START_S + self.host.world.loop.now() + self.host.wall_offset

    def token_bytes(self, count: int) -> bytes:
        """Return bytes of the seed: guessable here, so that runs repeat."""
        return self._tokens.randbytes(count)

    async def open_udp(
        self,
        local: Address,
        handler: DatagramHandler,
        many: SegmentsHandler | None = None,  # noqa: ARG002 - see below
        *,
        whole: bool = False,  # noqa: ARG002 - see below
    ) -> DatagramSocket:
        """Bind. Each datagram comes alone: `many` is never called; and whole: there are no fragments."""
        self._check_alive()
        return VirtualDatagramSocket(self.host, self.process, local, handler)

    async def open_multicast(self, group: Address, handler: DatagramHandler) -> MulticastSocket:
        self._check_alive()
        if scope_of(group.ip) is not Scope.MULTICAST:
            raise _os_error(errno.EINVAL)
        return VirtualMulticastSocket(self.host, self.process, group, handler)

    async def connect_tcp(self, to: Address, *, local_port: int = 0, resets: bool = False) -> TcpStream:
        del resets  # no connection lingers here
        self._check_alive()
        return await connect(self.host, self.process, to, local_port)

    async def listen_tcp(self, local: Address, handler: Callable[[TcpStream], None]) -> Cancel:
        """Listen. With port 0 use `VirtualHost.tcp` to learn the port."""
        self._check_alive()
        listener = (self.process, handler)
        bound = self.host.bind(local, self.host.tcp, listener)

        def cancel() -> None:
            if self.host.tcp.get(bound) is listener:
                del self.host.tcp[bound]

        return cancel

    def interfaces(self) -> list[Interface]:
        return list(self.host.interfaces())

    def watch_interfaces(self, changed: Callable[[], None]) -> Cancel:
        watcher = (self.process, changed)
        self.host.watchers.append(watcher)

        def cancel() -> None:
            if watcher in self.host.watchers:
                self.host.watchers.remove(watcher)

        return cancel

    async def gateways(self) -> list[Gateway]:
        return self.host.gateways()

    async def resolve(self, host: str, port: int) -> list[Address]:
        """Look up in `VirtualWorld.names`; takes one turn of the loop."""
        await asyncio.sleep(0)
        try:
            return [Address.of(host, port)]
        except ValueError:
            return [Address.of(ip, port) for ip in self.host.world.names.get(host.lower(), ())]

    async def run_blocking(self, function: Callable[..., T], *args: object) -> T:
        if self.process.dead:  # what unwinds after the kill writes no file any more
            raise _os_error(errno.EIO)
        return function(*args)

    def close_sockets(self) -> None:
        """Close all sockets of the process without a word."""
        host = self.host
        for socket in [each for each in host.udp.values() if each.process is self.process]:
            socket.close()
        for group in host.groups.values():
            group[:] = [each for each in group if each.process is not self.process]
        host.tcp = {local: item for local, item in host.tcp.items() if item[0] is not self.process}
        for stream in [each for each in host.streams.values() if each.process is self.process]:
            stream.vanish()
        host.watchers = [watcher for watcher in host.watchers if watcher[0] is not self.process]

    def _check_alive(self) -> None:
        if self.process.dead:
            raise _os_error(errno.ENETDOWN)
        if RUNNING.get() is not self.process:
            self.began_outside = True


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
