"""Which router stands between this machine and the world: its default routes, at most one per address family.

Linux tells them in /proc (proc(5)); macOS and the BSDs by `route -n get default` (route(8)); Windows by GetBestRoute
(IP Helper). The parsers are pure; `default_gateways` blocks for some milliseconds.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from p2pnode.core.address import Address
from p2pnode.core.network import Gateway

__all__ = ["default_gateways", "parse_linux_ipv4", "parse_linux_ipv6", "parse_route_get", "quick_gateway_ips"]

_PATIENCE_S = 3.0
_UP, _VIA_GATEWAY = 0x1, 0x2  # RTF_UP, RTF_GATEWAY
_PORT_CONTROL = 5351


def default_gateways() -> list[Gateway]:
    """Return the routers of the default routes; empty where there are none, or the system does not say. No packet."""
    found = []
    for ip in _gateway_ips():
        local = _local_toward(ip)
        if local is not None:
            found.append(Gateway(ip, local))
    return found


def quick_gateway_ips() -> list[str]:
    """Return the gateways' addresses where reading them takes less than a millisecond (Linux); elsewhere none."""
    return _gateway_ips() if sys.platform == "linux" else []


def parse_linux_ipv4(text: str) -> str | None:
    """Return the IPv4 gateway with the lowest metric out of /proc/net/route, None without one.

    Columns: Iface, Destination, Gateway, Flags, RefCnt, Use, Metric, Mask, ...; addresses are hexadecimal in the byte
    order of the machine.
    """
    best: tuple[int, str] | None = None
    for line in text.splitlines()[1:]:
        parts = line.split()
        with contextlib.suppress(ValueError, IndexError):
            flags = int(parts[3], 16)
            if parts[1] != "00000000" or parts[7] != "00000000" or flags & (_UP | _VIA_GATEWAY) != _UP | _VIA_GATEWAY:
                continue
            ip = str(ipaddress.IPv4Address(int(parts[2], 16).to_bytes(4, sys.byteorder)))
            route = (int(parts[6]), ip)
            best = route if best is None or route[0] < best[0] else best
    return best[1] if best is not None else None


def parse_linux_ipv6(text: str) -> str | None:
    """Return the IPv6 gateway with the lowest metric out of /proc/net/ipv6_route, None without one.

    Columns: destination, its prefix length, source, its prefix length, next hop, metric, references, use, flags,
    interface; all hexadecimal. A link-local gateway comes with its zone.
    """
    best: tuple[int, str] | None = None
    for line in text.splitlines():
        parts = line.split()
        with contextlib.suppress(ValueError, IndexError):
            flags = int(parts[8], 16)
            if int(parts[0], 16) or int(parts[1], 16) or flags & (_UP | _VIA_GATEWAY) != _UP | _VIA_GATEWAY:
                continue
            ip = Address.of(f"{ipaddress.IPv6Address(bytes.fromhex(parts[4]))}%{parts[9]}", 0).ip
            route = (int(parts[5], 16), ip)
            best = route if best is None or route[0] < best[0] else best
    return best[1] if best is not None else None


def parse_route_get(text: str) -> str | None:
    """Return the gateway that `route -n get default` names, None for a route through an interface alone."""
    found = re.search(r"(?m)^\s*gateway:\s*(\S{1,80})\s*$", text)
    if found is None:
        return None
    try:
        return Address.of(found[1], 0).ip
    except ValueError:
        return None


def _gateway_ips() -> list[str]:
    if sys.platform == "linux":
        folder = Path("/proc/net")
        found = [_read(folder / "route", parse_linux_ipv4), _read(folder / "ipv6_route", parse_linux_ipv6)]
    elif sys.platform == "win32":
        found = [_windows_gateway()]
    else:
        found = [_route_get(), _route_get("-inet6")]
    return [ip for ip in found if ip is not None]


def _read(path: Path, parse: Callable[[str], str | None]) -> str | None:
    try:
        return parse(path.read_text(encoding="ascii", errors="replace"))
    except OSError:  # a system without that family, or a sandbox without /proc
        return None


def _route_get(*family: str) -> str | None:
    command = ["/sbin/route", "-n", "get", *family, "default"]
    try:
        done = subprocess.run(  # noqa: S603 - our own words, no shell
            command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_route_get(done.stdout)


def _windows_gateway() -> str | None:
    """GetBestRoute toward 0.0.0.0 fills a MIB_IPFORWARDROW: 14 DWORDs, of which the fourth is the next hop."""
    import ctypes

    row = (ctypes.c_uint32 * 14)()
    try:
        failed = ctypes.WinDLL("iphlpapi").GetBestRoute(0, 0, ctypes.byref(row))  # type: ignore[attr-defined, unused-ignore]
    except (OSError, AttributeError):
        return None
    ip = str(ipaddress.IPv4Address(int(row[3]).to_bytes(4, "little")))
    return None if failed or ip == "0.0.0.0" else ip


def _local_toward(ip: str) -> str | None:
    """Return our address toward the gateway: connecting a UDP socket chooses one and sends nothing."""
    base, _, zone = ip.partition("%")
    try:
        with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect((base, _PORT_CONTROL, 0, socket.if_nametoindex(zone) if zone else 0) if ":" in ip
                         else (ip, _PORT_CONTROL))  # fmt: skip
            return Address.of(sock.getsockname()[0], 0).ip
    except OSError:
        return None
