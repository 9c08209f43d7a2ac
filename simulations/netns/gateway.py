"""miniupnpd on a router: real UPnP-IGD, NAT-PMP and PCP (Debian package miniupnpd-nftables)."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from p2pnode.simulations.netns.errors import LabError
from p2pnode.simulations.netns.rules import PORT_MAPPING_RULES
from p2pnode.simulations.netns.spaces import find_tool

if TYPE_CHECKING:
    from p2pnode.simulations.netns.topology import Router

__all__ = ["PortMapper"]

_CONFIG = """\
ext_ifname=wan0
listening_ip=lan0
http_port=0
enable_natpmp=yes
enable_upnp=yes
secure_mode=yes
ipv6_disable=yes
upnp_table_name=upnp
upnp_nat_table_name=upnp
upnp_forward_chain=forward_upnp
upnp_nat_chain=prerouting_upnp
upnp_nat_postrouting_chain=postrouting_upnp
uuid={uuid}
allow 1024-65535 {network} 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""
_READY = "Listening for NAT-PMP/PCP traffic"
_START_S = 10.0


class PortMapper:
    """The daemon of one router. Gone when the laboratory ends, like every process inside."""

    def __init__(
        self, router: Router, directory: Path, spawn: Callable[..., subprocess.Popen[bytes]], number: int
    ) -> None:
        """`directory`: for its files. `number`: makes its UUID. Start it. Raise LabError."""
        self._router = router
        self._spawn = spawn
        self._program = _daemon()
        self._log = directory / f"{router.name}-miniupnpd.log"
        self._config = directory / f"{router.name}-miniupnpd.conf"
        network = f"{router.lan_ip.rpartition('.')[0]}.0/24"
        self._config.write_text(_CONFIG.format(uuid=uuid.UUID(int=number), network=network))
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it without any mapping, and wait until it answers."""
        self._router.space.nft(PORT_MAPPING_RULES)
        command = [self._program, "-d", "-f", str(self._config), "-P", str(self._config.with_suffix(".pid"))]
        with self._log.open("wb") as log:
            self._process = self._spawn(
                command, space=self._router.space, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + _START_S
        while _READY not in (text := self._log.read_text(errors="replace")):
            if self._process.poll() is not None or time.monotonic() > deadline:
                last = (text.strip().splitlines() or ["it gave no reason"])[-1]
                raise LabError(f"miniupnpd does not start on {self._router.name}: {last[:200]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it at once, as a power failure would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """The router was restarted: its mappings are gone."""
        self.stop()
        self.start()


def _daemon() -> str:
    """Return the path of a miniupnpd that makes nftables rules. Raise LabError."""
    program = find_tool("miniupnpd")
    done = subprocess.run(  # noqa: S603 - our own words, no shell
        [program, "--version"], capture_output=True, text=True, timeout=20, check=False
    )
    if "nftables" not in done.stdout + done.stderr:
        raise LabError("The installed miniupnpd is not the one for nftables: apt-get install miniupnpd-nftables")
    return program
