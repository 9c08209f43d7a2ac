"""Word of the system that links, addresses or routes have changed: Linux' rtnetlink(7). Nobody is asked, one listens.

A message says that something changed, seldom all of what (a card that changes its network sends a dozen within some
milliseconds), so its content is not read: whoever listens looks at the interfaces himself. Other systems are polled.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable

__all__ = ["InterfaceWatch", "LinkEvents"]

# <linux/rtnetlink.h>
_RTMGRP_LINK = 0x1
_RTMGRP_IPV4_IFADDR, _RTMGRP_IPV4_ROUTE = 0x10, 0x40
_RTMGRP_IPV6_IFADDR, _RTMGRP_IPV6_ROUTE = 0x100, 0x400
_GROUPS = _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV4_ROUTE | _RTMGRP_IPV6_IFADDR | _RTMGRP_IPV6_ROUTE
_MESSAGE_BYTES = 65_536  # the kernel cuts off what does not fit, and nothing of it is read
_AT_ONCE = 1000  # messages read per wake-up: a machine that starts a thousand containers must not stop the loop
# Chosen by us.
_POLL_S, _POLL_BESIDE_EVENTS_S = 5.0, 60.0
_GATHER_S = 0.05  # a change comes as several messages; long enough for them, short against a round trip


class LinkEvents:
    """Calls `changed` some hundredths of a second after a change, once for all messages of that time."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """Raise OSError where the system does not offer it (another system, a sandbox)."""
        if sys.platform != "linux":
            raise OSError("rtnetlink is Linux'")
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        try:
            self._socket.setblocking(False)
            self._socket.bind((0, _GROUPS))
            self._loop.add_reader(self._socket, self._readable)
        except (OSError, NotImplementedError) as exc:
            self._socket.close()
            raise OSError("the system does not tell of changes") from exc

    def close(self) -> None:
        """Twice is harmless."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _readable(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                self._socket.recv(_MESSAGE_BYTES)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:  # ENOBUFS: more came than the socket holds; that something changed is known all the same
                continue
        if self._timer is None:
            self._timer = self._loop.call_later(_GATHER_S, self._tell)

    def _tell(self) -> None:
        self._timer = None
        self._changed()


class InterfaceWatch:
    """Tells of changes at the system's word where it gives one, else by polling.

    Where it does, looking every minute is for words that got lost.
    """

    def __init__(self, look: Callable[[], object], changed: Callable[[], None]) -> None:
        """`look` returns what is watched, within a millisecond or so; compared by equality."""
        self._look = look
        self._changed = changed
        self._seen = look()
        self._loop = asyncio.get_running_loop()
        self._events: LinkEvents | None = None
        with contextlib.suppress(OSError):
            self._events = LinkEvents(self._compare)
        self._pause_s = _POLL_S if self._events is None else _POLL_BESIDE_EVENTS_S
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(self._pause_s, self._poll)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._events is not None:
            self._events.close()

    def _poll(self) -> None:
        self._timer = self._loop.call_later(self._pause_s, self._poll)
        self._compare()

    def _compare(self) -> None:
        now = self._look()
        if now != self._seen:
            self._seen = now
            self._changed()
