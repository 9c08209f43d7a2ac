"""The newest list of each user's devices that was ever seen: who is one of them, and who is not any more (V3). No I/O.

A list without a number was never changed: its device speaks for itself, and nothing is judged by it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from p2pnode import AccountKey, BadPacket, DeviceList, PeerId, UserId, decode_devices_untrusted, encode_devices
from p2pnode.chat.devices.wire import Listed, list_holds, list_signature

__all__ = ["KnownList", "Lists"]

MAX_LISTS = 1024  # of strangers, 3 KB each; those of contacts are as many as these
MAX_AHEAD_MS = 86_400_000  # of a number: two clocks wrong by more do not talk at all


@dataclass(frozen=True, slots=True)
class KnownList:
    """A user's list. `signature`: the account's, empty where the network's record told us."""

    user: UserId
    devices: DeviceList
    signature: bytes = b""

    @property
    def value(self) -> bytes:
        return encode_devices(self.devices.devices, self.devices.number)

    @property
    def frame(self) -> Listed | None:
        """What others are told, None when nothing proves it to them."""
        return Listed(self.user.raw, self.value, self.signature) if self.signature else None

    @classmethod
    def sign(cls, account: AccountKey, devices: DeviceList) -> KnownList:
        value = encode_devices(devices.devices, devices.number)
        return cls(account.user_id, devices, list_signature(account, value))

    @classmethod
    def from_untrusted(cls, frame: Listed, now_ms: int) -> KnownList:
        """Raise BadPacket: `bad_list_signature`, `no_number`, `too_new`, those of the value."""
        user, devices = UserId.from_untrusted(frame.user), decode_devices_untrusted(frame.value)
        if not devices.number:
            raise BadPacket("no_number")
        if devices.number > now_ms + MAX_AHEAD_MS:
            raise BadPacket("too_new")
        if not list_holds(user, frame.value, frame.signature):
            raise BadPacket("bad_list_signature")
        return cls(user, devices, frame.signature)


class Lists:
    """By user. `keep`: whether a user's list must not be forgotten (a contact's; it is on the disk as well)."""

    def __init__(self, keep: Callable[[UserId], bool], known: Iterable[KnownList] = ()) -> None:
        self._keep = keep
        self._lists: OrderedDict[UserId, KnownList] = OrderedDict((each.user, each) for each in known)

    def of(self, user: UserId) -> KnownList | None:
        return self._lists.get(user)

    def learn(self, found: KnownList) -> bool:
        """Take a list whose signature holds; whether it is newer than what was known."""
        before = self._lists.get(found.user)
        if not found.devices.number or (before is not None and found.devices.number <= before.devices.number):
            if before is not None and found.devices == before.devices and not before.signature:
                self._lists[found.user] = found  # the same, and now it can be shown to others
            return False
        self._lists.pop(found.user, None)
        self._lists[found.user] = found
        if len(self._lists) > MAX_LISTS:
            stranger = next((user for user in self._lists if not self._keep(user) and user != found.user), None)
            if stranger is not None:
                del self._lists[stranger]
        return True

    def counts(self, user: UserId, device: PeerId) -> bool:
        """Whether the device may speak for the user, as far as we know."""
        known = self._lists.get(user)
        return known is None or device in known.devices

    def __len__(self) -> int:
        return len(self._lists)
