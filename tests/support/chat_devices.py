"""Lists of devices without a network: part of `chat_fakes.FakeNode`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from p2pnode import DeviceList, DevicesChanged, NodeEvent, PeerId, PeerNotFoundError, UserId

if TYPE_CHECKING:
    from support.chat_fakes import FakeWorld


class FakeDevices:
    """What a node says of its own account's devices, and of those that it looked up."""

    world: FakeWorld
    network: Any
    peer_id: PeerId
    user_id: UserId
    own_list: DeviceList
    found_lists: dict[UserId, DeviceList]

    def emit(self, event: NodeEvent) -> None:
        raise NotImplementedError

    def device_list(self, user: UserId) -> DeviceList | None:
        """As of the last look-up; of the own account the newest heard of."""
        return self.own_list if user == self.user_id else self.found_lists.get(user)

    async def change_devices(self, *, add: Iterable[PeerId] = (), remove: Iterable[PeerId] = ()) -> DeviceList:
        devices = tuple(sorted({*self.own_list.devices, *add} - {*remove}))
        number = max(self.own_list.number + 1, int(self.network.wall() * 1000))
        self.adopt_devices(DeviceList(number, devices))
        self.world.lists[self.user_id] = self.own_list
        return self.own_list

    def adopt_devices(self, devices: DeviceList) -> bool:
        if devices.number <= self.own_list.number:
            return False
        self.own_list = devices
        self.emit(DevicesChanged(devices, self.peer_id not in devices))
        return True

    async def find_user(self, user: UserId, *, timeout: float = 10.0) -> tuple[PeerId, ...]:
        await asyncio.sleep(self.world.lookup_s)
        devices = tuple(node.peer_id for node in self.world.nodes.values() if node.user_id == user and node.listed)
        if (listed := self.world.lists.get(user)) is not None:
            self.found_lists[user] = listed
            devices = listed.devices
        if not devices:
            raise PeerNotFoundError("Nobody knows this user.")
        return devices


async def eventually(condition: Callable[[], Any], *, timeout: float = 30.0) -> None:
    """Wait in virtual time until `condition` (may be a coroutine function) holds."""
    async with asyncio.timeout(timeout):
        while True:
            result = condition()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return
            await asyncio.sleep(0.05)
