"""p2pnode: any two computers find and reach each other by public key, and chat.

The public face. Names are loaded on first use (PEP 562), so that `import p2pnode` and the command line stay fast.

    import asyncio
    from p2pnode import Node, NodeSettings, ...

docs/design.md holds the architecture; what is not in `__all__` is private.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from p2pnode.config import Config as Config
    from p2pnode.core.address import Address as Address
    from p2pnode.core.address import Realm as Realm
    from p2pnode.core.address import Scope as Scope
    from p2pnode.core.clean import clean as clean
    from p2pnode.core.clean import clean_name as clean_name
    from p2pnode.core.devices import DeviceList as DeviceList
    from p2pnode.core.devices import decode_devices_untrusted as decode_devices_untrusted
    from p2pnode.core.devices import encode_devices as encode_devices
    from p2pnode.core.envelope import signing_input as signing_input
    from p2pnode.core.errors import (
        BadPacket as BadPacket,
    )
    from p2pnode.core.errors import (
        BothNatsRandomError as BothNatsRandomError,
    )
    from p2pnode.core.errors import (
        CorruptFileError as CorruptFileError,
    )
    from p2pnode.core.errors import (
        DeviceRevokedError as DeviceRevokedError,
    )
    from p2pnode.core.errors import (
        HomeInUseError as HomeInUseError,
    )
    from p2pnode.core.errors import (
        InvalidConfigError as InvalidConfigError,
    )
    from p2pnode.core.errors import (
        InvalidPeerError as InvalidPeerError,
    )
    from p2pnode.core.errors import (
        KeyFileError as KeyFileError,
    )
    from p2pnode.core.errors import (
        KeyInUseError as KeyInUseError,
    )
    from p2pnode.core.errors import (
        LinkCodeError as LinkCodeError,
    )
    from p2pnode.core.errors import (
        MessageTooLongError as MessageTooLongError,
    )
    from p2pnode.core.errors import (
        NoPathError as NoPathError,
    )
    from p2pnode.core.errors import (
        NotFoundError as NotFoundError,
    )
    from p2pnode.core.errors import (
        NotRunningError as NotRunningError,
    )
    from p2pnode.core.errors import (
        P2PError as P2PError,
    )
    from p2pnode.core.errors import (
        P2PTimeoutError as P2PTimeoutError,
    )
    from p2pnode.core.errors import (
        PeerBlockedError as PeerBlockedError,
    )
    from p2pnode.core.errors import (
        PeerNotFoundError as PeerNotFoundError,
    )
    from p2pnode.core.errors import (
        PeerOfflineError as PeerOfflineError,
    )
    from p2pnode.core.errors import (
        PortInUseError as PortInUseError,
    )
    from p2pnode.core.errors import (
        RefusedError as RefusedError,
    )
    from p2pnode.core.errors import (
        StorageError as StorageError,
    )
    from p2pnode.core.errors import (
        UdpBlockedError as UdpBlockedError,
    )
    from p2pnode.core.errors import (
        WrongKeyError as WrongKeyError,
    )
    from p2pnode.core.errors import (
        WrongNetworkError as WrongNetworkError,
    )
    from p2pnode.core.ids import PeerId as PeerId
    from p2pnode.core.ids import UserId as UserId
    from p2pnode.core.keyfile import (
        load_or_create_account_key as load_or_create_account_key,
    )
    from p2pnode.core.keyfile import (
        load_or_create_node_key as load_or_create_node_key,
    )
    from p2pnode.core.keys import AccountKey as AccountKey
    from p2pnode.core.keys import NodeKey as NodeKey
    from p2pnode.core.network import Network as Network
    from p2pnode.core.real_network import RealNetwork as RealNetwork
    from p2pnode.core.safety import own_safety_number as own_safety_number
    from p2pnode.core.safety import safety_number as safety_number
    from p2pnode.dht import HelloResult as HelloResult
    from p2pnode.events import (
        DevicesChanged as DevicesChanged,
    )
    from p2pnode.events import (
        Joined as Joined,
    )
    from p2pnode.events import (
        KeyInUse as KeyInUse,
    )
    from p2pnode.events import (
        LanPeerSeen as LanPeerSeen,
    )
    from p2pnode.events import (
        NetworkChanged as NetworkChanged,
    )
    from p2pnode.events import (
        NodeEvent as NodeEvent,
    )
    from p2pnode.events import (
        PresenceChanged as PresenceChanged,
    )
    from p2pnode.events import (
        SessionClosed as SessionClosed,
    )
    from p2pnode.events import (
        SessionMoved as SessionMoved,
    )
    from p2pnode.events import (
        SessionOpened as SessionOpened,
    )
    from p2pnode.home import Home as Home
    from p2pnode.home import default_home as default_home
    from p2pnode.mailing import POOL_PLACES as POOL_PLACES
    from p2pnode.mailing import Mailed as Mailed
    from p2pnode.mailing import Mailing as Mailing
    from p2pnode.mailing import MailRecord as MailRecord
    from p2pnode.nat import Priority as Priority
    from p2pnode.nat import Stream as Stream
    from p2pnode.netcheck_report import FamilyReport as FamilyReport
    from p2pnode.netcheck_report import NetcheckReport as NetcheckReport
    from p2pnode.node import Node as Node
    from p2pnode.peerspec import DEFAULT_PORT as DEFAULT_PORT
    from p2pnode.peerspec import PeerSpec as PeerSpec
    from p2pnode.peerspec import parse_host_port as parse_host_port
    from p2pnode.peerspec import parse_peer as parse_peer
    from p2pnode.presence import FindResult as FindResult
    from p2pnode.presence import Presence as Presence
    from p2pnode.session import Session as Session
    from p2pnode.settings import NodeSettings as NodeSettings
    from p2pnode.status import LinkStatus as LinkStatus
    from p2pnode.status import NodeStatus as NodeStatus
    from p2pnode.status import Ready as Ready
    from p2pnode.topics import Announced as Announced
    from p2pnode.topics import TopicListing as TopicListing
    from p2pnode.topics import TopicMember as TopicMember
    from p2pnode.trace import Trace as Trace
    from p2pnode.trace import TraceStep as TraceStep

__version__ = "0.1.0"

_ERRORS = (
    "BadPacket BothNatsRandomError CorruptFileError DeviceRevokedError HomeInUseError InvalidConfigError "
    "InvalidPeerError KeyFileError KeyInUseError LinkCodeError MessageTooLongError NoPathError NotFoundError "
    "NotRunningError P2PError P2PTimeoutError PeerBlockedError PeerNotFoundError PeerOfflineError PortInUseError "
    "RefusedError StorageError UdpBlockedError WrongKeyError WrongNetworkError"
)
_MODULES = {
    "config": "Config",
    "core.address": "Address Realm Scope",
    "core.clean": "clean clean_name",
    "core.devices": "DeviceList decode_devices_untrusted encode_devices",
    "core.envelope": "signing_input",
    "core.errors": _ERRORS,
    "core.ids": "PeerId UserId",
    "core.keyfile": "load_or_create_account_key load_or_create_node_key",
    "core.keys": "AccountKey NodeKey",
    "core.network": "Network",
    "core.real_network": "RealNetwork",
    "core.safety": "own_safety_number safety_number",
    "dht": "HelloResult",
    "events": "DevicesChanged Joined KeyInUse LanPeerSeen NetworkChanged NodeEvent PresenceChanged SessionClosed "
    "SessionMoved SessionOpened",
    "home": "Home default_home",
    "mailing": "POOL_PLACES MailRecord Mailed Mailing",
    "nat": "Priority Stream",
    "netcheck_report": "FamilyReport NetcheckReport",
    "node": "Node",
    "peerspec": "DEFAULT_PORT PeerSpec parse_host_port parse_peer",
    "presence": "FindResult Presence",
    "session": "Session",
    "settings": "NodeSettings",
    "status": "LinkStatus NodeStatus Ready",
    "topics": "Announced TopicListing TopicMember",
    "trace": "Trace TraceStep",
}
_WHERE = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = ["__version__", *sorted(_WHERE)]  # noqa: PLE0604 - the names of _WHERE are strings


def __getattr__(name: str) -> object:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module 'p2pnode' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"p2pnode.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
