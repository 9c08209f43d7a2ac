"""Why a node refuses a request: the codes of `messages.Error`, which hands them on."""

from __future__ import annotations

import enum

__all__ = ["ErrorCode", "code_name"]


class ErrorCode(enum.IntEnum):
    """Why a request was refused. Numbers are never given a new meaning."""

    CLOCK = 1
    """The signed request's wall time is more than ten minutes off; `detail` is our wall time, unix milliseconds."""
    BAD_TOKEN = 2
    """The put token is not one of ours for this address and key, or too old."""
    BAD_RECORD = 3
    """The record's signature or key does not hold."""
    LOWER_SEQ = 4
    """We hold a higher `seq`, which `detail` says, or the same with another content."""
    EXPIRES = 5
    """`expires` is past, or too far ahead."""
    FULL = 6
    """No room for this prefix."""
    NOT_SERVING = 7
    """This node stores nothing in this realm."""
    UNPROVEN = 8
    """The answer is larger than the request, or the request needs a proven address, and this one has not proven
    itself: ask again, signed."""
    NOT_HERE = 9
    """The target is not registered here, or does not answer; nobody is known who could dial."""
    BUSY = 10
    """Over a limit; another node may help."""
    DEEPER = 11
    """The shard of the topic is full: announce one deeper."""


def code_name(code: int) -> str:
    """Return the code's name in lower case; `unknown` for one of a later version."""
    try:
        return ErrorCode(code).name.lower()
    except ValueError:
        return "unknown"
