"""Files for rooms: what goes to a room is one offer to each member, who takes or refuses it for itself.

What goes to the room (`Job.parts`) holds list and sources; each part is a transfer like any other, to one user: so
whoever is away gets it later, and a newcomer is offered what still stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from p2pnode import PeerId, RefusedError, UserId
from p2pnode.chat.files.jobs import Job
from p2pnode.chat.files.wire import ID_BYTES
from p2pnode.chat.model import FileChanged, FileState, RoomId

if TYPE_CHECKING:
    from p2pnode.chat.files.service import Files

__all__ = ["Sharing"]

# Chosen by us.
MAX_RECEIVERS = 256  # each is a row and an object of 1 KB, and a session


class Sharing:
    """What goes to the rooms of one chat."""

    def __init__(self, files: Files) -> None:
        self._files = files

    async def load(self) -> None:
        """After a start: put together what belongs together. Raise StorageError."""
        files = self._files
        shared = {job.record.position: job for job in files.jobs.values() if _is_shared(job)}
        for job in list(files.jobs.values()):
            if job.record.parent and job.record.parent not in shared:  # a crash came while all of it was given up
                job.devices = await files.records.devices(job.record.position)
                await files.outgoing.end(job, "cancelled", "")
        for job in shared.values():
            await self.load_parts(job)

    async def load_parts(self, job: Job) -> None:
        """Find those that are over, too. Raise StorageError."""
        for record in await self._files.records.parts(job.record.position):
            part = self._files.jobs.get((record.author, record.id)) or Job(record)
            part.parent = job
            if isinstance(record.party, UserId):
                job.parts[record.party] = part

    async def begin(self, target: RoomId, path: str) -> Job:
        """Offer what is at `path` to all members. Raise NotFoundError, RefusedError, SourceError, StorageError."""
        self._files.chat.rooms.room(target)
        count = len(self._receivers(target))
        if not 0 < count <= MAX_RECEIVERS:
            few = "Nobody else is in this room yet."
            raise RefusedError(f"A file goes to at most {MAX_RECEIVERS} members; this room has more." if count else few)
        return await self._files.outgoing.begin(target, path)

    def members_changed(self, target: RoomId) -> None:
        """Newcomers are offered what stands; from those who are out it is taken back."""
        for job in list(self._files.jobs.values()):
            if _is_shared(job) and job.record.party == target and job.record.state == "offered":
                self._files.chat.start_task(self.spread(job), "file-share")

    async def spread(self, job: Job) -> None:
        """Offer it to whom it was not offered. Raise StorageError."""
        files, record = self._files, job.record
        room = files.chat.rooms.rooms.get(record.party) if isinstance(record.party, RoomId) else None
        if room is None or record.ended:
            return  # the rooms are read after the files, and say so
        if not room.active:
            await files.outgoing.end(job, "cancelled", "not_member")
            return
        receivers = self._receivers(room.id)
        for user in receivers:
            before = job.parts.get(user)
            if (before is None and len(job.parts) < MAX_RECEIVERS) or (
                before is not None and before.record.reason == "not_member"
            ):
                await self._offer(job, user)
        for user, part in list(job.parts.items()):
            if user not in receivers and not part.record.ended:
                await files.outgoing.end(part, "cancelled", "not_member")

    async def _offer(self, job: Job, user: UserId) -> None:
        files, before = self._files, job.parts.get(user)
        offer = files.chat.node.network.token_bytes(ID_BYTES)
        part = Job(replace(job.record, id=offer, party=user, position=0, parent=job.record.position), parent=job)
        job.parts[user] = part  # before the disk: two changes of the members may come at once
        try:
            await files.records.add(part.record)
        except BaseException:
            del job.parts[user]
            if before is not None:
                job.parts[user] = before
            raise
        files.jobs[part.record.author, offer] = part
        files.chat.emit(FileChanged(files.snapshot(part)))
        part.task = files.chat.start_task(files.outgoing.address(part), "file-address")

    async def ended(self, job: Job) -> None:
        """One is over: what goes to the room is over with the last of its parts, and they with it. Raise
        StorageError."""
        outgoing = self._files.outgoing
        for part in list(job.parts.values()):
            await outgoing.end(part, "cancelled", job.record.reason)
        whole = job.parent
        if whole is None or whole.record.ended or not all(part.record.ended for part in whole.parts.values()):
            return
        states = {part.record.state for part in whole.parts.values()}
        order: Sequence[FileState] = ("done", "refused", "failed", "cancelled")
        await outgoing.end(whole, next(state for state in order if state in states), "")

    def hindrance(self, target: RoomId, peer: PeerId) -> str:
        """Return why a device may offer nothing to us in a room, "" when it may."""
        room, user = self._files.chat.rooms.rooms.get(target), self._files.chat.directory.user_of(peer)
        if room is None or not room.active or user is None or not room.log.roll.is_member(user.raw):
            return "unknown_room"
        return ""

    def _receivers(self, target: RoomId) -> list[UserId]:
        chat = self._files.chat
        members = [member.user for member in chat.rooms.members(target) if member.state == "member"]
        return [user for user in members if user != chat.node.user_id and chat.directory.state_of(user) != "blocked"]


def _is_shared(job: Job) -> bool:
    return job.record.outgoing and isinstance(job.record.party, RoomId)
