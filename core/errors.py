"""Errors with stable codes.

Every error a user can see is a `P2PError`: a stable `code` (docs/cli.md lists them), one fixed clear sentence, and the
facts as attributes. `BadPacket` is what every parser of network bytes raises, and the only thing it may raise.
"""

from __future__ import annotations

__all__ = [
    "BadPacket",
    "BothNatsRandomError",
    "CorruptFileError",
    "DeviceRevokedError",
    "HomeInUseError",
    "InvalidConfigError",
    "InvalidPeerError",
    "KeyFileError",
    "KeyInUseError",
    "LinkCodeError",
    "MessageTooLongError",
    "NoPathError",
    "NotFoundError",
    "NotRunningError",
    "P2PError",
    "P2PTimeoutError",
    "PeerBlockedError",
    "PeerNotFoundError",
    "PeerOfflineError",
    "PortInUseError",
    "RefusedError",
    "StorageError",
    "UdpBlockedError",
    "WrongKeyError",
    "WrongNetworkError",
]


class P2PError(Exception):
    """Base of all errors a user can see.

    `code`: stable, snake case, never renamed. `message`: one sentence, with what to try. `facts`: for logs and JSON.
    """

    code = "failed"

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts


class PeerNotFoundError(P2PError):
    """Nobody in the network holds a presence for this peer."""

    code = "peer_not_found"


class PeerOfflineError(P2PError):
    """The peer is known but said goodbye, or its addresses do not answer."""

    code = "peer_offline"


class NoPathError(P2PError):
    """The peer is online but none of its addresses could be reached."""

    code = "no_path"


class BothNatsRandomError(P2PError):
    """Both routers choose a new random port per destination."""

    code = "both_nats_random"


class UdpBlockedError(P2PError):
    """No UDP datagram comes back from anywhere."""

    code = "udp_blocked"


class RefusedError(P2PError):
    """The other side said no."""

    code = "refused"


class WrongKeyError(P2PError):
    """Somebody else's key answers at this address."""

    code = "wrong_key"


class WrongNetworkError(P2PError):
    """The node at this address belongs to another network, or its secret differs."""

    code = "wrong_network"


class PeerBlockedError(P2PError):
    """The peer is blocked by the user."""

    code = "blocked"


class NotRunningError(P2PError):
    """No node runs on this home."""

    code = "not_running"


class HomeInUseError(P2PError):
    """Another process uses this home."""

    code = "home_in_use"


class PortInUseError(P2PError):
    """The UDP port is taken by another program."""

    code = "port_in_use"


class InvalidPeerError(P2PError):
    """A PEER that cannot be read."""

    code = "invalid_peer"


class InvalidConfigError(P2PError):
    """A setting with a wrong value; `facts` name file, line and key."""

    code = "invalid_config"


class DeviceRevokedError(P2PError):
    """This device was taken out of its account's list."""

    code = "device_revoked"


class KeyInUseError(P2PError):
    """A newer process uses this device's key: a copied home."""

    code = "key_in_use"


class LinkCodeError(P2PError):
    """A code for linking a device that is malformed, used, or expired."""

    code = "link_code"


class P2PTimeoutError(P2PError):
    """It took longer than the caller allowed."""

    code = "timeout"


class KeyFileError(P2PError):
    """The key file cannot be used: unreadable, open to others, wrong passphrase, damaged."""

    code = "key_file"


class CorruptFileError(P2PError):
    """A file of the home is damaged; it was left as it is."""

    code = "corrupt_file"


class StorageError(P2PError):
    """The disk refuses: full, read-only, gone."""

    code = "storage"


class MessageTooLongError(P2PError):
    """A text above the limit."""

    code = "message_too_long"


class NotFoundError(P2PError):
    """A named thing (contact, conversation, file) that does not exist."""

    code = "not_found"


class BadPacket(Exception):  # noqa: N818 - the field's word; it is not an error of ours but a verdict on bytes
    """Bytes from the network that are not what they should be.

    `reason`: a short stable word, used as the drop counter's name.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
