"""Paths: how a connection's datagrams travel. QUIC sees one constant virtual address; which path lies beneath is ours.

A path is a remote address and the *carrier* that datagrams take there: the mux (which may use a socket beside its own,
a guessed port's, for one address) or a flow through a relay. Whoever receives a datagram of QUIC's hands it to the
endpoint with its source and its carrier, so a connection knows by which path it came, and no object is made per
datagram.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from p2pnode.core.address import Address
from p2pnode.core.ids import PeerId

__all__ = ["Carrier", "MuxCarrier", "Path", "PathKind"]

PathKind = Literal["mux", "relay"]


class Carrier(Protocol):
    """What datagrams travel by. Compared and hashed by identity; sending never raises.

    `kind`: `mux`, the node's own sockets; `relay`, a relayed flow, where the address is the relay's. `peer`: of a flow,
    whom it leads to; None: whoever proves himself.
    """

    @property
    def kind(self) -> PathKind: ...

    @property
    def peer(self) -> PeerId | None: ...

    def send(self, data: bytes, to: Address) -> None: ...

    def send_many(self, datagrams: Sequence[bytes], to: Address) -> None:
        """Send in order, by few system calls where that is possible."""


class MuxCarrier:
    """The node's own sockets."""

    kind: PathKind = "mux"
    peer = None

    def __init__(
        self,
        send: Callable[[bytes, Address], None],
        send_many: Callable[[Sequence[bytes], Address], None] | None = None,
    ) -> None:
        self._send = send
        self._send_many = send_many

    def send(self, data: bytes, to: Address) -> None:
        self._send(data, to)

    def send_many(self, datagrams: Sequence[bytes], to: Address) -> None:
        if self._send_many is not None:
            self._send_many(datagrams, to)
        else:
            for data in datagrams:
                self._send(data, to)


@dataclass(frozen=True, slots=True)
class Path:
    """One way to the other side. `remote`: where its packets go first; of a relayed path, the relay."""

    remote: Address
    carrier: Carrier

    @property
    def kind(self) -> PathKind:
        return self.carrier.kind

    @property
    def relayed(self) -> bool:
        return self.carrier.kind == "relay"

    def send(self, data: bytes) -> None:
        self.carrier.send(data, self.remote)

    def send_many(self, datagrams: Sequence[bytes]) -> None:
        self.carrier.send_many(datagrams, self.remote)

    def is_from(self, source: Address, carrier: Carrier) -> bool:
        """Whether a datagram that came so came by this path."""
        return self.carrier is carrier and self.remote == source

    def __str__(self) -> str:
        return str(self.remote) if self.kind == "mux" else f"{self.kind} {self.remote}"
