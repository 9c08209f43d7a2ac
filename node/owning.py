"""The devices of the own account: the list that this node publishes and changes. Part of `node.Node`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog

from p2pnode.core.devices import MAX_DEVICES, DeviceList, decode_devices_untrusted, encode_devices
from p2pnode.core.errors import BadPacket, DeviceRevokedError, P2PError
from p2pnode.core.ids import PeerId, UserId
from p2pnode.core.network import Network
from p2pnode.events import DevicesChanged, NodeEvent
from p2pnode.finding import Finder
from p2pnode.publisher import Publisher
from p2pnode.state import NodeState

__all__ = ["OwnDevices", "Owning"]

log = structlog.get_logger(__name__)

MAX_AHEAD_MS = 86_400_000  # of a number: a clock that was wrong must not make all later lists old
PUBLISH_S = 10.0  # that a changed list may take to be where others look for it; it goes on by itself afterwards


class OwnDevices:
    """The newest list of the account's devices that this one knows of, remembered on the disk. No I/O of its own."""

    def __init__(self, user: UserId, own: PeerId, state: NodeState) -> None:
        self._user, self._own, self._state = user, own, state
        self.current = DeviceList(0, (own,))
        value = state.own_list(user.raw)
        if value:
            try:
                self.current = decode_devices_untrusted(value)
            except BadPacket as bad:  # the state file is ours; what it says is looked up again
                log.warning("own_devices_unreadable", reason=bad.reason)

    @property
    def revoked(self) -> bool:
        """Whether this device is not one of the account's any more."""
        return self._own not in self.current

    def adopt(self, newer: DeviceList, now_ms: int) -> bool:
        """Take a list that the account signed, if it is newer than ours; whether it was."""
        if not self.current.number < newer.number <= now_ms + MAX_AHEAD_MS:
            return False
        self._keep(newer)
        return True

    def change(self, add: Iterable[PeerId], remove: Iterable[PeerId], now_ms: int) -> None:
        """Make the next list. Raise DeviceRevokedError, or P2PError: too many devices, or none would be left."""
        if self.revoked:
            raise DeviceRevokedError("This device was removed from your account; link it again from one that is in it.")
        devices = {*self.current.devices, *add} - {*remove}
        if not devices:
            raise P2PError("This is the account's only device; nothing would be left.")
        if len(devices) > MAX_DEVICES:
            raise P2PError(f"An account has at most {MAX_DEVICES} devices; revoke one first.")
        if devices != {*self.current.devices}:
            self._keep(DeviceList(max(self.current.number + 1, now_ms), tuple(sorted(devices))))

    def _keep(self, devices: DeviceList) -> None:
        self.current = devices
        self._state.keep_own_list(self._user.raw, encode_devices(devices.devices, devices.number))


class Owning:
    """`Node` sets what is declared here."""

    peer_id: PeerId
    user_id: UserId
    network: Network
    state: NodeState
    publisher: Publisher | None
    own_devices: OwnDevices
    _finder: Finder

    def emit(self, event: NodeEvent) -> None:
        raise NotImplementedError

    async def find_user(self, user: UserId, *, timeout: float = 10.0) -> tuple[PeerId, ...]:
        """Return the devices of an account. Raise PeerNotFoundError, P2PTimeoutError."""
        if user == self.user_id:
            return self.own_devices.current.devices
        return await self._finder.find_user(user, timeout=timeout)

    def device_list(self, user: UserId) -> DeviceList | None:
        """Return what the account's record listed when it was last found, None when it was not lately. Of the own
        account: the newest list that we know of."""
        return self.own_devices.current if user == self.user_id else self._finder.lists.get(user)

    async def change_devices(self, *, add: Iterable[PeerId] = (), remove: Iterable[PeerId] = ()) -> DeviceList:
        """Add devices to the own account or take some out; return the new list once it is where others look for it, or
        10 s later. Raise DeviceRevokedError, P2PError."""
        added, removed = tuple(add), tuple(remove)
        publisher = self.publisher
        try:
            async with asyncio.timeout(PUBLISH_S):
                if publisher is not None and self.own_devices.current.number:
                    await publisher.read_devices()  # another device may have changed it while we were away
        except TimeoutError:
            log.info("own_devices_not_read")
        before = self.own_devices.current
        self.own_devices.change(added, removed, self._now_ms())
        if self.own_devices.current != before:
            self.devices_changed()
            if publisher is not None:
                try:
                    async with asyncio.timeout(PUBLISH_S):
                        await publisher.publish_devices()
                except TimeoutError:
                    log.info("own_devices_publish_slow")
        return self.own_devices.current

    def adopt_devices(self, devices: DeviceList) -> bool:
        """Take a list that the account signed, from whoever had it, if it is newer than ours; whether it was."""
        adopted = self.own_devices.adopt(devices, self._now_ms())
        if adopted:
            self.devices_changed()
        return adopted

    def remember_account(self, user: UserId, devices: DeviceList) -> None:
        """Remember the list of an account that this home is going to belong to (linking): of use at the next start."""
        self.state.keep_own_list(user.raw, encode_devices(devices.devices, devices.number))

    def devices_changed(self) -> None:
        """Tell the subscribers."""
        current, revoked = self.own_devices.current, self.own_devices.revoked
        log.info("own_devices_changed", devices=len(current.devices), revoked=revoked)
        self.emit(DevicesChanged(current, revoked))

    def _now_ms(self) -> int:
        return int(self.network.wall() * 1000)
