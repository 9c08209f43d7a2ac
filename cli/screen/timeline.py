"""The loaded part of one conversation, in order of showing, with the remarks between its messages. Pure."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from p2pnode.chat import Message, Party
from p2pnode.chat.model import MessageState, RoomId

__all__ = ["Item", "Remark", "Timeline"]

KEPT = 2000  # messages in memory, about 1 kB each with their layout; what is beyond is read again when scrolled to
REMARKS_KEPT = 200


@dataclass(frozen=True, slots=True)
class Remark:
    """A line that is not stored: an answer to a macro, somebody entered the hall. `after`: position of the message that
    it follows, 0 for none. `at`: Unix seconds."""

    text: str
    at: float
    after: int


Item = Message | Remark


class Timeline:
    """A window on a conversation. `at_start`, `at_end`: whether nothing older, nothing newer is left out."""

    def __init__(self, party: Party, remarks: Sequence[Remark] = ()) -> None:
        self.party = party
        self.at_start = False
        self.at_end = True
        self.several = False
        """Whether the other side has several devices."""
        self.unread_after: int | None = None
        """Position behind which the user has seen nothing when the conversation was opened; None: all was seen."""
        self._messages: list[Message] = []
        self._positions: set[int] = set()
        self._remarks = list(remarks)[-REMARKS_KEPT:]

    @property
    def messages(self) -> Sequence[Message]:
        return self._messages

    @property
    def remarks(self) -> Sequence[Remark]:
        return self._remarks

    @property
    def last_position(self) -> int:
        """The highest position that is loaded, 0 when none is."""
        return max(self._positions, default=0)

    def items(self) -> list[Item]:
        """Return messages and remarks in the order of showing; remarks of a part that is not loaded are left out."""
        first = self._messages[0].position if self._messages and not self.at_start else 0
        waiting = [remark for remark in self._remarks if remark.after >= first]
        items: list[Item] = []
        for message in self._messages:
            while waiting and waiting[0].after < message.position:
                items.append(waiting.pop(0))
            items.append(message)
        return [*items, *waiting] if self.at_end else items

    def load(self, messages: Sequence[Message], *, at_start: bool, at_end: bool) -> None:
        """Begin anew with these messages, given in the order of showing; what came while they were read stays."""
        came = self._messages if at_end and self.at_end else []
        self._messages = list(messages)
        self._positions = {message.position for message in messages}
        self.at_start, self.at_end = at_start, at_end
        for message in came:
            self.add(message)

    def mark_unread(self, count: int) -> None:
        """Say how many messages of others the user has not seen, of those at the end."""
        unseen = [message.position for message in self._messages if not message.outgoing][-count:] if count else []
        self.unread_after = unseen[0] - 1 if unseen else None

    def add(self, message: Message) -> bool:
        """Put a new message where it is shown; False when it is there already, or belongs beyond a window's end.

        As the database orders it: at the end, or just before the first later message of its author.
        """
        if message.position in self._positions or not self.at_end:
            return False
        place = len(self._messages)
        if isinstance(self.party, RoomId):  # the same place on every device, whenever it came
            place = bisect(self._messages, _place(message), key=_place)
        elif self._is_late(message):
            later = (m.author == message.author and m.sequence > message.sequence for m in self._messages)
            place = list(later).index(True)
        self._messages.insert(place, message)
        self._positions.add(message.position)
        return True

    def add_older(self, messages: Sequence[Message], *, at_start: bool) -> None:
        """Put messages before all others; the newest beyond KEPT go."""
        self._messages[:0] = [m for m in messages if m.position not in self._positions]
        self.at_start = at_start
        if len(self._messages) > KEPT:
            del self._messages[KEPT:]
            self.at_end = False
        self._positions = {message.position for message in self._messages}

    def add_newer(self, messages: Sequence[Message], *, at_end: bool) -> None:
        """Put messages behind all others; the oldest beyond KEPT go."""
        self._messages += [m for m in messages if m.position not in self._positions]
        self.at_end = at_end
        self.trim()
        self._positions = {message.position for message in self._messages}

    def trim(self) -> None:
        """Drop the oldest messages beyond KEPT."""
        if len(self._messages) > KEPT:
            gone = self._messages[:-KEPT]
            del self._messages[:-KEPT]
            self._positions -= {message.position for message in gone}
            self.at_start = False

    def change(self, states: dict[str, tuple[MessageState, str, bool]], gone: Collection[int] = ()) -> bool:
        """Give own messages, by id, their new state and reason, and drop those that are gone; whether one is loaded."""
        wanted, changed = set(states), bool(self._positions.intersection(gone))
        if changed:
            self._messages = [message for message in self._messages if message.position not in gone]
            self._positions.difference_update(gone)
        for index in range(len(self._messages) - 1 if states else -1, -1, -1):
            message = self._messages[index]
            if message.outgoing and message.id in wanted:
                wanted.discard(message.id)
                state, reason, everywhere = states[message.id]
                self._messages[index] = replace(message, state=state, reason=reason, everywhere=everywhere)
                changed = True
                if not wanted:
                    break
        return changed

    def remark(self, text: str, at: float) -> None:
        """Add a line behind everything that is there."""
        self._remarks.append(Remark(text, at, self.last_position))
        del self._remarks[:-REMARKS_KEPT]

    def _is_late(self, message: Message) -> bool:
        """Whether a later message of the same author is among the loaded ones; usually the newest one tells."""
        newest = next((m for m in reversed(self._messages) if m.author == message.author), None)
        return newest is not None and newest.sequence > message.sequence


def _place(message: Message) -> tuple[int, int, int]:
    return message.ordinal, message.sequence, message.position
