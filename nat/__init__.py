"""The mux, STUN, ICE and QUIC sessions; knows nothing of the DHT."""

from p2pnode.nat.budget import AddressBudget
from p2pnode.nat.candidates import IceCandidate, IceParameters
from p2pnode.nat.close import CloseCode, CloseReason
from p2pnode.nat.connection import Connection
from p2pnode.nat.errors import ConnectionClosedError, StreamFullError, StreamResetError
from p2pnode.nat.guesser import Guesser
from p2pnode.nat.guessing import ATTEMPT_S, GuessPlan, GuessTerms, Role, role_of, terms_of
from p2pnode.nat.ice import IceEndpoint, IceSession
from p2pnode.nat.ice_reports import CheckReport, IceStatistics
from p2pnode.nat.link import Link
from p2pnode.nat.mux import Kind, MuxStatistics, UdpMux, kind_of
from p2pnode.nat.path import Carrier, Path, PathKind
from p2pnode.nat.probes import PROBE
from p2pnode.nat.quic import QuicEndpoint, QuicSettings, QuicStatistics
from p2pnode.nat.shares import Priority
from p2pnode.nat.streams import Stream
from p2pnode.nat.stun import StunClient, StunServer
from p2pnode.nat.tls import TlsChannel, client_context, server_context
from p2pnode.nat.transport import MAX_DATAGRAM_BYTES

__all__ = [
    "ATTEMPT_S",
    "MAX_DATAGRAM_BYTES",
    "PROBE",
    "AddressBudget",
    "Carrier",
    "CheckReport",
    "CloseCode",
    "CloseReason",
    "Connection",
    "ConnectionClosedError",
    "GuessPlan",
    "GuessTerms",
    "Guesser",
    "IceCandidate",
    "IceEndpoint",
    "IceParameters",
    "IceSession",
    "IceStatistics",
    "Kind",
    "Link",
    "MuxStatistics",
    "Path",
    "PathKind",
    "Priority",
    "QuicEndpoint",
    "QuicSettings",
    "QuicStatistics",
    "Role",
    "Stream",
    "StreamFullError",
    "StreamResetError",
    "StunClient",
    "StunServer",
    "TlsChannel",
    "UdpMux",
    "client_context",
    "kind_of",
    "role_of",
    "server_context",
    "terms_of",
]
