"""What may be sent as a message."""

from __future__ import annotations

from p2pnode import MessageTooLongError, P2PError
from p2pnode.chat.protocol import MAX_TEXT_BYTES

__all__ = ["EmptyMessageError", "check_text"]


class EmptyMessageError(P2PError):
    """Nothing to send."""

    code = "empty_message"


def check_text(text: str) -> None:
    """Raise EmptyMessageError or MessageTooLongError, in the user's words, for what is no message."""
    if not text.strip():
        raise EmptyMessageError("There is nothing to send.")
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_TEXT_BYTES:
        raise MessageTooLongError(
            f"The message has {size:,} bytes; at most {MAX_TEXT_BYTES:,} are sent at once. Send it in parts.", size=size
        )
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise EmptyMessageError("The text holds characters that are not UTF-8; it was not sent.")
