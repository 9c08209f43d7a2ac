"""`\\devices` of the input language, and what happens with the user's devices, as lines to show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from p2pnode import NotFoundError
from p2pnode.chat.model import Device, MessagesSynced, OwnDevicesChanged, Party

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["REVOKED", "device_event_lines", "device_lines", "last_seen", "own_device"]

REVOKED = (
    "! This device was removed from your account: others take nothing from it any more. To use it again: leave, then"
    " p2pnode id link CODE with a code of another device."
)
PREFIX_MIN = 4


async def device_lines(chat: Chat, argument: str) -> list[str]:
    """Do what stands after `\\devices`. Raise P2PError."""
    word, _, rest = argument.partition(" ")
    if word == "link":
        code = chat.devices.linking.begin()
        return [
            "* On the new device, within ten minutes, once:",
            f"    p2pnode id link {code.text}",
            "* Whoever has this line gets your account: show it to nobody. p2pnode id link shows it as a QR code.",
        ]
    if word == "revoke" and rest.strip():
        device = own_device(chat, rest.strip())
        await chat.devices.revoke(device.peer)
        return [f"* {_called(device)} is not one of your devices any more."]
    if argument:
        return ["! \\devices, \\devices link, \\devices revoke ID"]
    return [_line(device) for device in chat.devices.own()]


def own_device(chat: Chat, text: str) -> Device:
    """Return the device that an id, an end of an id (four characters or more) or a name means. Raise NotFoundError."""
    devices = chat.devices.own()
    found = [device for device in devices if str(device.peer) == text]
    found = found or [device for device in devices if len(text) >= PREFIX_MIN and str(device.peer).endswith(text)]
    found = found or [device for device in devices if device.name and device.name.casefold() == text.casefold()]
    if len(found) != 1:
        few = (
            "means several of your devices; give the id"
            if found
            else "is not one of your devices; \\devices lists them"
        )
        raise NotFoundError(f"{text[:60]!r} {few}.")
    return found[0]


def device_event_lines(event: OwnDevicesChanged) -> list[str]:
    """Return what a change of the own devices means to the user."""
    if event.revoked:
        return [REVOKED]
    count = len(event.devices)
    others = ", ".join(_called(device) for device in event.devices if not device.this)
    return [
        f"* Your account has {count} device{'s' if count > 1 else ''} now{': this one, ' if others else ''}{others}."
    ]


def last_seen(event: MessagesSynced) -> dict[Party, int]:
    """Return the last position of each conversation that messages came into."""
    return {message.party: message.position for message in event.messages}


def _called(device: Device) -> str:
    end = str(device.peer)[-6:]
    return f"{device.name}~{end}" if device.name else f"~{end}"


def _line(device: Device) -> str:
    state = "this one" if device.this else "online" if device.online else "offline or unknown"
    return f"  {_called(device):<24} {state:<20} {device.peer}"
