"""What the control API takes and gives about the user's devices. As `types`: names never change, new ones may come."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["DeviceInfo", "DeviceLinked", "DeviceRevoke", "Devices", "LinkBegin", "LinkOpen"]


class DeviceInfo(Struct, kw_only=True):
    """A device of the account. `name`: as it calls itself, empty while this one has not met it."""

    peer: str
    name: str
    this: bool
    online: bool


class Devices(Struct):
    """All devices of the account, this one first. `revoked`: this one was taken out of the list."""

    devices: list[DeviceInfo]
    revoked: bool = False


class DeviceRevoke(Struct):
    """A device: its peer id, the end of it (four characters or more), or its name."""

    device: Annotated[str, Meta(min_length=1, max_length=200)]


class LinkBegin(Struct):
    """`seconds`: how long the code is good."""

    seconds: Annotated[float, Meta(gt=0, le=3600)] = 600.0


class LinkOpen(Struct):
    """`code`: what to type on the new device; good once, for `seconds`. Whoever has it gets the account."""

    code: str
    seconds: float


class DeviceLinked(Struct):
    """The device that used the code."""

    peer: str
    name: str
