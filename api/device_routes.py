"""Operations on the user's own devices: list, link, revoke."""

from __future__ import annotations

from p2pnode.api import device_types as t
from p2pnode.api.routing import Route
from p2pnode.api.service import Service
from p2pnode.chat import own_device

__all__ = ["ROUTES"]


async def list_devices(service: Service, _request: None) -> t.Devices:
    """Return the devices of the account."""
    devices = service.chat.devices
    return t.Devices(
        [t.DeviceInfo(peer=str(d.peer), name=d.name, this=d.this, online=d.online) for d in devices.own()],
        devices.revoked,
    )


async def begin_link(service: Service, request: t.LinkBegin) -> t.LinkOpen:
    """Make a code that links one device; an older one is void from now on."""
    linking = service.chat.devices.linking
    code = linking.begin(request.seconds)
    return t.LinkOpen(code.text, round(linking.open_s, 1))


async def await_link(service: Service, _request: None) -> t.DeviceLinked:
    """Answer when the code was used; with the error `link_code` when it expired or another took its place."""
    peer = await service.chat.devices.linking.wait()
    return t.DeviceLinked(str(peer), service.chat.directory.name_of(peer))


async def revoke(service: Service, request: t.DeviceRevoke) -> t.Devices:
    """Take a device out of the account: nobody takes anything from it any more, or sends it anything."""
    await service.chat.devices.revoke(own_device(service.chat, request.device).peer)
    return await list_devices(service, None)


ROUTES = [
    Route("GET", "/v1/devices", "The account's devices", list_devices, None, t.Devices),
    Route("POST", "/v1/devices/link", "A code that links a device", begin_link, t.LinkBegin, t.LinkOpen),
    Route("GET", "/v1/devices/link", "Wait until the code is used", await_link, None, t.DeviceLinked),
    Route("POST", "/v1/devices/revoke", "Revoke a device", revoke, t.DeviceRevoke, t.Devices),
]
