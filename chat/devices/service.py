"""All devices of a user, a part of the chat: the lists that say who they are, linking and revoking, receipts, and what
the own devices tell each other. The decisions are those of docs/design.md, "Devices"."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from p2pnode import (
    BadPacket,
    DeviceList,
    DeviceRevokedError,
    DevicesChanged,
    NodeEvent,
    NotFoundError,
    P2PError,
    PeerId,
    SessionOpened,
    UserId,
    decode_devices_untrusted,
)
from p2pnode.chat.devices import tables
from p2pnode.chat.devices.linking import LINK_PROTOCOL, Linking
from p2pnode.chat.devices.lists import KnownList, Lists
from p2pnode.chat.devices.receipts import Receipts
from p2pnode.chat.devices.syncing import Syncing
from p2pnode.chat.devices.wire import DEVICES_PROTOCOL, FrameBuffer, Listed, Noted, Read, encode
from p2pnode.chat.limits import Buckets
from p2pnode.chat.link import BROKEN
from p2pnode.chat.model import Device, OwnDevicesChanged, Party
from p2pnode.chat.ports import Cancel, SessionPort, StreamPort
from p2pnode.chat.store import DeviceRow

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat

__all__ = ["Devices"]

log = structlog.get_logger(__name__)

# Chosen by us.
MAX_REMEMBERED = 1024  # sessions that were told our list; beyond it they are told again
STREAM_S = 30.0  # that a stream of a list or receipts may take
FRAMES_MAX = 64  # of one stream
LOOK_AGAIN_S = 600.0  # how often a user's list is looked up because a device turned up that is not in it
LOOKUP_TIMEOUT_S = 10.0
READ_BYTES = 8_192


class Devices:
    """The devices of one chat's user, and those of all others."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self.linking = Linking(chat)
        self.receipts = Receipts(chat)
        self.syncing = Syncing(chat)
        self._lists = Lists(self._is_contact)
        chat.directory.counts = self._lists.counts
        self._own: KnownList | None = None
        self._told: dict[PeerId, SessionPort] = {}
        self._looked: Buckets = Buckets(rate=1 / LOOK_AGAIN_S, burst=1)
        self._news = Buckets(rate=1 / 60, burst=8)  # per user: each list that changes is a commit
        self._streams = Buckets(rate=10.0, burst=60.0)  # per peer: each may cost a signature
        self._cancel: Cancel | None = None

    # life

    async def load(self) -> None:
        """Read what is known, before anybody is let in."""
        for each in await self._chat.store.database.read(tables.lists):
            if each.user == self._chat.node.user_id:
                self._chat.node.adopt_devices(each.devices)
            else:
                self._lists.learn(each)

    async def start(self) -> None:
        chat = self._chat
        for contact in chat.directory.contacts():
            if isinstance(contact.party, UserId):
                await self._drop_unlisted(contact.party)  # where a crash came between list and consequences
        self._cancel = chat.node.subscribe(self._node_event)
        await self.receipts.start()
        await self.syncing.start()
        chat.node.handle(DEVICES_PROTOCOL, self._serve)
        chat.node.handle(LINK_PROTOCOL, self.linking.serve)
        own = chat.node.device_list(chat.node.user_id)
        if own is not None and own.number:
            await self._take_own(own, is_news=self.revoked)
        for session in chat.node.sessions():
            self.introduce(session.peer)

    async def stop(self) -> None:
        if self._cancel is not None:
            self._cancel()
        await self.syncing.stop()

    # what applications call

    def own(self) -> tuple[Device, ...]:
        """Return the account's devices, this one first."""
        chat, node = self._chat, self._chat.node
        found = node.device_list(node.user_id) or DeviceList(0, (node.peer_id,))
        order = sorted(found.devices, key=lambda peer: (peer != node.peer_id, peer.raw))
        return tuple(self._device(chat, peer) for peer in order)

    @property
    def revoked(self) -> bool:
        """Whether this device was taken out of the account's list."""
        node = self._chat.node
        found = node.device_list(node.user_id)
        return found is not None and bool(found.number) and node.peer_id not in found

    def ensure_counts(self) -> None:
        """Raise DeviceRevokedError when others no longer take what this device sends."""
        if self.revoked:
            raise DeviceRevokedError(
                "This device was removed from your account, and others take nothing from it any more; link it again"
                " with: p2pnode id link CODE"
            )

    async def revoke(self, device: PeerId) -> DeviceList:
        """Take a device of the account out of its list, and tell everybody who is here. Raise NotFoundError, P2PError:
        it is this device, or the list could not be changed."""
        node = self._chat.node
        if device == node.peer_id:
            raise P2PError("That is this device itself; revoke it from another one.")
        found = node.device_list(node.user_id)
        if found is None or device not in found:
            raise NotFoundError("This is not one of your devices; p2pnode id devices lists them.")
        return await node.change_devices(remove=[device])

    def seen(self, party: Party, position: int) -> None:
        """The user has seen a conversation up to this position: our other devices and the author will hear of it."""
        self._chat.store.mark_seen(party, position)
        self.receipts.seen(party)
        self.syncing.news()

    # what the parts of the chat ask

    def check(self, peer: PeerId, user: UserId) -> None:
        """Raise BadPacket("not_listed") when the newest list of the user's devices does not name `peer`."""
        if user == self._chat.node.user_id:
            own = self._chat.node.device_list(user)
            counts = own is None or not own.number or peer in own
        else:
            counts = self._lists.counts(user, peer)
            known = self._lists.of(user)
            if (not counts or (known is not None and len(known.devices.devices) > 1)) and self._look_is_due(user):
                self._chat.start_task(self._look_up(user), "chat-devices")
        if not counts:
            raise BadPacket("not_listed")

    def is_own(self, peer: PeerId) -> bool:
        """Whether a device is another one of this account."""
        own = self._chat.node.device_list(self._chat.node.user_id)
        return own is not None and bool(own.number) and peer in own and peer != self._chat.node.peer_id

    def introduce(self, peer: PeerId) -> None:
        """We say Hello to somebody: tell our list as well, once in each session."""
        session = self._chat.node.session(peer)
        if self._own is None or session is None or self._told.get(peer) is session:
            return
        if len(self._told) >= MAX_REMEMBERED:
            self._told.clear()
        self._told[peer] = session
        self._chat.start_task(self._tell(session, self._own), f"chat-devices {peer}")

    def newest(self, user: UserId) -> KnownList | None:
        """Return the newest list of a user's devices that we know."""
        return self._own if user == self._chat.node.user_id else self._lists.of(user)

    async def learn(self, user: bytes, value: bytes, signature: bytes) -> int:
        """Take a list that somebody told; unsigned it is not believed. Return its number. Raise BadPacket."""
        if signature:
            found = KnownList.from_untrusted(Listed(user, value, signature), self._chat.now_ms())
            await self._take(found)
        return decode_devices_untrusted(value).number

    def listed(self, user: UserId, devices: tuple[PeerId, ...]) -> tuple[PeerId, ...]:
        """Return those of `devices` that the newest list names."""
        return tuple(device for device in devices if self._lists.counts(user, device))

    def addressees(self, party: UserId | PeerId) -> tuple[PeerId, ...]:
        """Return the devices that a message goes to at once; none: they are looked up first. So it is with somebody who
        has several, when that was not done lately: one of them may have been revoked."""
        known = self._lists.of(party) if isinstance(party, UserId) else None
        if isinstance(party, UserId) and known is not None and not self._chat.resolver.is_fresh(party):
            return ()
        return self._chat.directory.devices_of(party)

    async def found(self, user: UserId, confirmed: Sequence[PeerId] = ()) -> None:
        """The network was asked for the user's devices: take its list, if it is newer. `confirmed`: those listed that
        name no other user as theirs; messages go to them before we have met them."""
        devices, directory = self._chat.node.device_list(user), self._chat.directory
        if devices is None or user == self._chat.node.user_id:
            return
        await self._take(KnownList(user, devices))
        if devices.number:
            for device in self.listed(user, tuple(confirmed)):
                if directory.user_of(device) is None:
                    directory.learn(DeviceRow(device, user, directory.name_of(device)))

    # inside

    def _device(self, chat: Chat, peer: PeerId) -> Device:
        this = peer == chat.node.peer_id
        name = chat.node.settings.name if this else chat.directory.name_of(peer)
        presence = None if this else chat.node.presence(peer)
        name = name or (presence.name if presence is not None else "")
        online = this or chat.node.session(peer) is not None or (presence is not None and presence.online)
        return Device(peer, name, this, online)

    def _is_contact(self, user: UserId) -> bool:
        return self._chat.directory.state_of(user) == "accepted"

    def _look_is_due(self, user: UserId) -> bool:
        return self._is_contact(user) and self._looked.take(user, self._chat.node.network.monotonic())

    async def _look_up(self, user: UserId) -> None:
        """Somebody speaks for the user: is it still one of its devices?"""
        try:
            await self.found(user, await self._chat.node.find_user(user, timeout=LOOKUP_TIMEOUT_S))
        except P2PError as exc:
            log.debug("device_list_not_found", user=str(user), reason=exc.code)

    def _node_event(self, event: NodeEvent) -> None:
        if isinstance(event, SessionOpened):
            if self._chat.directory.is_known(event.session.peer) or self.is_own(event.session.peer):
                self.introduce(event.session.peer)
            self.receipts.came(event.session.peer)
            self.syncing.came(event.session.peer)
        elif isinstance(event, DevicesChanged):
            self._chat.start_task(self._take_own(event.devices), "chat-own-devices")

    async def _take_own(self, devices: DeviceList, *, is_news: bool = True) -> None:
        """The account's own list is another one. `is_news`: for the user, too."""
        chat = self._chat
        if self._own is not None and self._own.devices.number >= devices.number:
            return
        before = self._own.devices.devices if self._own is not None else ()
        own = self._own = KnownList.sign(chat.node.account, devices)
        chat.rooms.devices_changed(own.user)
        await chat.store.database.write(lambda c: tables.put_list(c, own))
        for gone in set(before) - {*devices.devices, chat.node.peer_id}:
            await self._drop(chat.node.user_id, gone, ())
        for peer in devices.devices:
            if peer != chat.node.peer_id:
                chat.directory.learn(DeviceRow(peer, chat.node.user_id, chat.directory.name_of(peer)))
        await self.syncing.peers_changed([peer for peer in devices.devices if peer != chat.node.peer_id])
        chat.attention.look()
        for session in chat.node.sessions():
            self.introduce_anew(session.peer)
        if is_news:
            chat.emit(OwnDevicesChanged(self.own(), self.revoked))

    def introduce_anew(self, peer: PeerId) -> None:
        """Our list has changed: whoever is here hears of it."""
        self._told.pop(peer, None)
        self.introduce(peer)

    async def _take(self, found: KnownList) -> None:
        """Somebody's list, proven: keep it if it is newer, and do what follows from it."""
        chat, user = self._chat, found.user
        if user == chat.node.user_id:
            chat.node.adopt_devices(found.devices)
            return
        if not self._lists.learn(found):
            return
        chat.rooms.devices_changed(user)
        if self._is_contact(user) and self._news.take(user, chat.node.network.monotonic()):
            await chat.store.database.write(lambda c: tables.put_list(c, found))
        if await self._drop_unlisted(user) or set(found.devices.devices) - set(chat.directory.devices_of(user)):
            chat.resolver.begin_anew(user)

    async def _drop_unlisted(self, user: UserId) -> bool:
        known = self._chat.directory.devices_of(user)
        staying = self.listed(user, known)
        for gone in set(known) - set(staying):
            log.info("device_revoked", device=str(gone), user=str(user))
            await self._drop(user, gone, staying)
        return len(staying) < len(known)

    async def _drop(self, user: UserId, device: PeerId, others: tuple[PeerId, ...]) -> None:
        chat = self._chat
        chat.directory.unlist(device)
        chat.hall.lost(device)
        chat.links.drop(device)
        chat.mail.forget(device)
        await chat.store.database.write(lambda c: tables.drop_device(c, user, device, others))
        chat.directory.replace_contacts(await chat.store.contacts())
        for other in others:
            chat.links.reload(other)

    async def _tell(self, session: SessionPort, own: KnownList) -> None:
        frame = own.frame
        if frame is None:
            return
        try:
            async with _limit():
                stream = await session.open_stream(DEVICES_PROTOCOL)
                await stream.write(encode(frame))
                stream.finish()
                await self._read(session, stream, answering=False)
        except BadPacket as bad:
            self._chat.drops[f"devices_{bad.reason}"] += 1
        except (*BROKEN, TimeoutError) as exc:
            log.debug("device_list_not_told", peer=str(session.peer), why=str(exc))
        else:
            self._chat.links.came(session.peer)  # what was refused because of an old list may go now

    async def _serve(self, session: SessionPort, stream: StreamPort) -> None:
        peer, drops = session.peer, self._chat.drops
        if not self._streams.take(peer, self._chat.node.network.monotonic()):
            drops["devices_too_fast"] += 1
            stream.reset(1)
            return
        try:
            async with _limit():
                await self._read(session, stream, answering=True)
                stream.finish()
        except BadPacket as bad:
            drops[f"devices_{bad.reason}"] += 1
            stream.reset(1)
        except (*BROKEN, TimeoutError):
            stream.reset(0)

    async def _read(self, session: SessionPort, stream: StreamPort, *, answering: bool) -> None:
        """Take frames until the other side ends. Raise BadPacket, or what a broken stream raises."""
        buffer, count = FrameBuffer(), 0
        while data := await stream.read(READ_BYTES):
            for frame in buffer.feed_untrusted(data):
                count += 1
                if count > FRAMES_MAX:
                    raise BadPacket("too_many_frames")
                if isinstance(frame, Listed):
                    found = KnownList.from_untrusted(frame, self._chat.now_ms())
                    await self._take(found)
                    if answering and (newer := self._newer_than(found)) is not None:
                        await stream.write(encode(newer))
                elif isinstance(frame, Read) and answering:
                    await self.receipts.heard(session.peer, frame.ids)
                    await stream.write(encode(Noted()))
                else:
                    raise BadPacket("unexpected_frame")

    def _newer_than(self, found: KnownList) -> Listed | None:
        """Return the list of that user which we know, when it is newer than the one that we were told."""
        known = self.newest(found.user)
        return known.frame if known is not None and known.devices.number > found.devices.number else None


def _limit() -> asyncio.Timeout:
    return asyncio.timeout(STREAM_S)
