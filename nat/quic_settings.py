"""Tunables of the QUIC endpoint, and the snapshot that it gives of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["QuicSettings", "QuicStatistics"]


@dataclass(frozen=True)
class QuicSettings:
    """Tunables of the endpoint; seconds and bytes."""

    proof_timeout_s: float = 5.0
    """From a client's first packet to its valid proof."""
    max_unproven_bytes: int = 16 << 10
    """UDP payload accepted from a client before its proof; an undisturbed handshake has about 4,000."""
    keep_alive_s: float = 20.0
    """Silence after which a PING is sent."""
    key_update_packets: int = 1 << 22
    """Packets sent after which keys change; AES-GCM may protect 2^23 (RFC 9001, section 6.6)."""
    lost_after_s: float = 5.0
    """How long probes may stay unanswered until the connection is given up."""
    idle_timeout_s: float = 60.0
    """QUIC's own idle timeout; three missed keep-alives."""
    initial_rtt_s: float = 0.1
    """Taken for the round trip until one is measured; probes go out after twice that. RFC 9002, section 6.2.2,
    "Handshakes and New Paths", has 0.333, with which a lost first packet costs a second."""
    retry_above: int = 64
    """Unproven incoming connections from which on Retry is asked."""
    max_unproven: int = 256
    """Unproven incoming connections at most: 256 of about 60 KiB."""
    max_unproven_per_prefix: int = 64
    """The same per /24 or /48, above `retry_above`."""
    max_connections: int = 1024
    """Open connections, both directions; more incoming ones are refused."""

    def __post_init__(self) -> None:
        for name in ("proof_timeout_s", "keep_alive_s", "lost_after_s", "idle_timeout_s", "initial_rtt_s"):
            if not 0 < getattr(self, name) < 86_400:
                raise ValueError(f"{name} is a number of seconds above 0")
        if self.key_update_packets < 1:
            raise ValueError("keys change after a number of packets above 0")
        if not 0 <= self.retry_above <= self.max_unproven or self.max_connections < 1:
            raise ValueError("0 <= retry_above <= max_unproven, and max_connections is at least 1")


@dataclass(frozen=True)
class QuicStatistics:
    """A snapshot. `dropped` and `failed` count by reason."""

    connections: int
    """Open and proven."""
    unproven: int
    """Incoming, not proven yet."""
    tracked: int
    """All that hold memory, also connecting and draining ones."""
    accepted: int
    connected: int
    retries_sent: int
    dropped: Mapping[str, int]
    failed: Mapping[str, int]
