"""The probes of `simulations.probing` inside namespaces: each in a thread that entered one, with its own event loop.

The same code asks the kernel's routers here and the modelled ones in virtual time.
"""

from __future__ import annotations

import asyncio
import os
import threading

from p2pnode.core.real_network import RealNetwork
from p2pnode.simulations.netns.errors import LabError
from p2pnode.simulations.netns.spaces import Space
from p2pnode.simulations.netns.topology import Host
from p2pnode.simulations.probing import ProbeServer, ProbeServers, ProbeSettings, Verdict, probe

__all__ = ["LabProbeServer", "Verdict", "probe_host"]


class LabProbeServer:
    """A probe server inside a namespace that has all its addresses."""

    def __init__(self, space: Space, servers: ProbeServers) -> None:
        """Raise LabError when it cannot listen."""
        self.servers = servers
        self._space = space
        self._listening = threading.Event()
        self._error: OSError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="lab-probe-server", daemon=True)
        self._thread.start()
        self._listening.wait()
        if self._error is not None:
            self._thread.join()
            raise LabError(f"The laboratory's probe server cannot listen: {os.strerror(self._error.errno or 0)}.")

    def close(self) -> None:
        """End the thread. Twice is harmless."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._space.enter()
            asyncio.run(self._serve())
        except OSError as exc:
            self._error = exc
        finally:
            self._listening.set()

    async def _serve(self) -> None:
        server = await ProbeServer.open(RealNetwork(), self.servers)
        self._loop = asyncio.get_running_loop()
        self._listening.set()
        try:
            await self._stop.wait()
        finally:
            server.close()


def probe_host(host: Host, servers: ProbeServers, settings: ProbeSettings | None = None) -> Verdict:
    """Find out what stands between a host of the laboratory and the servers; blocks. Raise LabError."""
    try:
        return host.run(lambda: asyncio.run(probe(RealNetwork(), servers, settings)))
    except OSError as exc:
        raise LabError(f"The laboratory cannot probe from {host.name}: {os.strerror(exc.errno or 0)}.") from exc
