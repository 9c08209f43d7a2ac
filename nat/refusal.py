"""Why an attempt to connect failed, in words for who asked."""

from __future__ import annotations

from p2pnode.core.address import Address
from p2pnode.core.errors import P2PError, RefusedError, WrongKeyError, WrongNetworkError
from p2pnode.core.ids import PeerId
from p2pnode.nat.close import CloseCode, CloseReason

__all__ = ["refusal"]

# RFC 9001, section 4.8, "TLS Errors": no_application_protocol (120), for which qh3 says handshake_failure (40). Among
# nodes of ours either means that the ALPN differs: another network, or another version of the protocol.
NO_COMMON_ALPN = (0x100 + 120, 0x100 + 40)


def refusal(error: P2PError, reason: CloseReason | None, peer: PeerId, address: Address) -> P2PError:
    """Return what tells a caller why no connection came about. `reason`: how the attempt was closed, if it was."""
    if isinstance(error, WrongKeyError) or reason is None or reason.code == CloseCode.GOING_AWAY:
        return error
    if reason.origin == "local" and reason.code == CloseCode.BAD_PROOF:  # our check of the certificate failed
        return WrongKeyError(
            f"Whoever answers at {address} proves no node key ({reason.reason}).",
            expected=str(peer), answered=None, address=str(address), reason=reason.reason,
        )  # fmt: skip
    if reason.origin == "transport" and reason.code in NO_COMMON_ALPN:
        text = f"The node at {address} belongs to another network or speaks another version: compare --network."
        return WrongNetworkError(text, peer=str(peer), address=str(address), close_code=reason.code)
    if reason.origin == "remote" and reason.code == CloseCode.TOO_MANY:
        text = f"The node at {address} has as many connections as it takes; try again later."
    else:
        text = f"The node at {address} closed the connection while it was being set up."
    return RefusedError(text, peer=str(peer), address=str(address), close_code=reason.code, origin=reason.origin)
