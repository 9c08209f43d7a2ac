"""Addresses of the container that this process runs in."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct

import ifaddr

__all__ = ["add_address", "interface_of"]

# netdevice(7); a slim image has no `ip`
_SET_ADDRESS, _SET_MASK = 0x8916, 0x891C  # SIOCSIFADDR, SIOCSIFNETMASK
_MASK = "255.255.255.0"  # of every network in compose.yaml


def interface_of(ip: str) -> str:
    """Return the name of the interface whose network an IPv4 address is in. Raise LookupError."""
    wanted = ipaddress.ip_address(ip)
    for adapter in ifaddr.get_adapters():
        for own in adapter.ips:
            if own.is_IPv4 and wanted in ipaddress.ip_network(f"{own.ip}/{own.network_prefix}", strict=False):
                return adapter.name
    raise LookupError(f"no interface is in the network of {ip}")


def add_address(ip: str) -> None:
    """Give the interface in the network of an IPv4 address that address, too.

    Wants CAP_NET_ADMIN. Raise LookupError, OSError.
    """
    name = interface_of(ip)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for command, value in ((_SET_ADDRESS, ip), (_SET_MASK, _MASK)):
            # struct ifreq: the name of an alias, then a struct sockaddr_in
            request = struct.pack("=16sHH4s16x", f"{name}:1".encode(), socket.AF_INET, 0, socket.inet_aton(value))
            fcntl.ioctl(any_socket, command, request)
