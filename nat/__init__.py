"""The mux, STUN, ICE and QUIC sessions; knows nothing of the DHT."""

from p2pnode.nat.candidates import IceCandidate, IceParameters
from p2pnode.nat.close import CloseCode, CloseReason
from p2pnode.nat.connection import Connection
from p2pnode.nat.errors import ConnectionClosedError, StreamFullError, StreamResetError
from p2pnode.nat.ice import CheckReport, IceEndpoint, IceSession, IceStatistics
from p2pnode.nat.mux import Kind, MuxStatistics, UdpMux, kind_of
from p2pnode.nat.path import Carrier, Path, PathKind
from p2pnode.nat.quic import QuicEndpoint, QuicSettings, QuicStatistics
from p2pnode.nat.streams import Stream
from p2pnode.nat.stun import StunClient, StunServer
from p2pnode.nat.transport import MAX_DATAGRAM_BYTES

__all__ = [
    "MAX_DATAGRAM_BYTES",
    "Carrier",
    "CheckReport",
    "CloseCode",
    "CloseReason",
    "Connection",
    "ConnectionClosedError",
    "IceCandidate",
    "IceEndpoint",
    "IceParameters",
    "IceSession",
    "IceStatistics",
    "Kind",
    "MuxStatistics",
    "Path",
    "PathKind",
    "QuicEndpoint",
    "QuicSettings",
    "QuicStatistics",
    "Stream",
    "StreamFullError",
    "StreamResetError",
    "StunClient",
    "StunServer",
    "UdpMux",
    "kind_of",
]
