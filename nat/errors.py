"""What goes wrong on a connection or a stream, as callers see it."""

from __future__ import annotations

from p2pnode.core.errors import P2PError

__all__ = ["ConnectionClosedError", "StreamFullError", "StreamResetError"]


class ConnectionClosedError(P2PError):
    """The connection ended; `facts`: reason (text), close_code (int)."""

    code = "connection_closed"


class StreamResetError(P2PError):
    """One side gave this stream up; the connection goes on. `facts`: reset_code (int)."""

    code = "stream_reset"


class StreamFullError(P2PError):
    """`write_nowait` was called while too much is unsent."""

    code = "stream_full"
