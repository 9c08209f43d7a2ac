"""Who is who: contacts, the devices of people, and the names under which they are shown and found. No I/O.

A name that somebody chose is never proof of anything, so it is shown with the end of the id, `alice~7x2k9q`; a petname,
given by the user, stands alone. Whoever types a bare self-chosen name is understood as long as it fits one person only.
"""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Callable, Iterable

from p2pnode import InvalidPeerError, NotFoundError, PeerId, PeerSpec, UserId, clean_name, parse_peer
from p2pnode.chat.model import HALL, Contact, ContactState, Hall, Party, RoomId, short_id
from p2pnode.chat.store import DeviceRow

__all__ = ["Directory"]

MAX_STRANGERS = 4096  # devices of people who are no contacts, about 300 bytes each; the longest unseen goes first
MAX_USER_DEVICES = 23  # as many as a device record holds; whoever owns an account can vouch for any number
_PREFIX_MIN = 12


class Directory:
    """Everybody we know of, in memory; the service keeps it in step with the database."""

    def __init__(self, own_user: UserId, own_peer: PeerId) -> None:
        self._own = (own_user, own_peer)
        self._contacts: dict[UserId | PeerId, Contact] = {}
        self._devices: OrderedDict[PeerId, tuple[UserId | None, str]] = OrderedDict()
        self._by_user: dict[UserId, dict[PeerId, None]] = {}
        self._rooms: dict[RoomId, str] = {}
        self.aliases: dict[str, UserId | PeerId | None] = {}
        """Names of the static table, case-folded; None: kept free for somebody who has not answered yet."""
        self.counts: Callable[[UserId, PeerId], bool] = lambda _user, _device: True
        """Whether a user's device was not revoked: proofs that it is one stay in rooms' logs and old messages."""
        self.changed: Callable[[], None] = lambda: None
        """Called when a contact or a device became another one."""

    # learning

    def put(self, contact: Contact) -> None:
        """Add or replace a contact."""
        self._contacts[contact.party] = contact
        self.changed()

    def put_room(self, room: RoomId, name: str) -> None:
        """Note under which name a room is shown."""
        self._rooms[room] = name

    def replace_contacts(self, contacts: Iterable[Contact]) -> None:
        self._contacts = {contact.party: contact for contact in contacts}
        self.changed()

    def remove(self, party: UserId | PeerId) -> None:
        self._contacts.pop(party, None)
        self.changed()

    def learn(self, device: DeviceRow) -> bool:
        """Note whose device this proved to be and how it calls itself; whether that is news."""
        before = self._devices.get(device.peer)
        user = device.user or (before[0] if before is not None else None)
        if user is not None and not self.counts(user, device.peer):
            return False
        self._devices.pop(device.peer, None)
        self._devices[device.peer] = (user, device.name)
        if before is not None and before[0] is not None and before[0] != user:
            self._unlink(before[0], device.peer)
        if user is not None:
            devices = self._by_user.setdefault(user, {})
            devices.pop(device.peer, None)
            devices[device.peer] = None
            if len(devices) > MAX_USER_DEVICES:
                oldest = next(iter(devices))
                self._unlink(user, oldest)
                del self._devices[oldest]
        self._forget_strangers()
        if before is None or before[0] != user:
            self.changed()
        return before != (user, device.name)

    def unlist(self, peer: PeerId) -> None:
        """Forget a device: it is not its user's any more."""
        before = self._devices.pop(peer, None)
        if before is not None and before[0] is not None:
            self._unlink(before[0], peer)
        self.changed()

    # asking

    def contacts(self) -> list[Contact]:
        return list(self._contacts.values())

    def contact(self, party: UserId | PeerId) -> Contact | None:
        return self._contacts.get(party)

    def state_of(self, party: UserId | PeerId) -> ContactState | None:
        """Return what the user decided about somebody, None for a stranger."""
        contact = self._contacts.get(party)
        return contact.state if contact is not None else None

    def is_blocked(self, peer: PeerId) -> bool:
        """Whether this device, or the user it belongs to, is blocked."""
        user = self.user_of(peer)
        return self.state_of(peer) == "blocked" or (user is not None and self.state_of(user) == "blocked")

    def is_known(self, peer: PeerId) -> bool:
        """Whether this device, or the user it belongs to, is an accepted contact, or it is another one of ours."""
        user = self.user_of(peer)
        known = user is not None and (self.state_of(user) == "accepted" or user == self._own[0])
        return known or self.state_of(peer) == "accepted"

    def open_requests(self) -> int:
        return sum(contact.state == "request" for contact in self._contacts.values())

    def user_of(self, peer: PeerId) -> UserId | None:
        known = self._devices.get(peer)
        return known[0] if known is not None else None

    def name_of(self, peer: PeerId) -> str:
        """Return how a device calls itself; may be empty."""
        known = self._devices.get(peer)
        return known[1] if known is not None else ""

    def devices_of(self, party: UserId | PeerId) -> tuple[PeerId, ...]:
        return (party,) if isinstance(party, PeerId) else tuple(self._by_user.get(party, {}))

    def party_of(self, peer: PeerId) -> UserId | PeerId:
        """Return the user of a device, or the device itself while its user is not known."""
        return self.user_of(peer) or peer

    def display_name(self, party: Party) -> str:
        """Return the petname, else the self-chosen name with the end of the id."""
        if isinstance(party, RoomId):
            name = self._rooms.get(party, "")
            alike = sum(other.casefold() == name.casefold() for other in self._rooms.values())
            return f"#{name}" if alike == 1 else f"#{name}~{party.short}"
        if isinstance(party, Hall):
            return str(party)
        if isinstance(party, PeerId):
            party = self.party_of(party)
        contact = self._contacts.get(party)
        if contact is not None and contact.petname:
            return contact.petname
        return f"{self._chosen_name(party)}~{short_id(party)}"

    def names(self) -> list[str]:
        """Return the names to type for everybody known, shortest unambiguous form, sorted."""
        by_name: dict[str, list[Party]] = {}
        for party in self._everybody():
            by_name.setdefault(self._typed_name(party), []).append(party)
        found = []
        for name, parties in by_name.items():
            found += [name] if name and len(parties) == 1 else [self.display_name(party) for party in parties]
        return sorted(found + [self.display_name(room) for room in self._rooms], key=str.casefold)

    def resolve_room(self, text: str) -> RoomId:
        """Return which room `NAME`, `NAME~ID` or an id means, with or without `#`; ID: the beginning of it.

        Raise NotFoundError, InvalidPeerError (several).
        """
        name, tilde, start = text.strip().lstrip("#").casefold().partition("~")
        found = [
            room
            for room, known in self._rooms.items()
            if (known.casefold() == name and str(room)[1:].startswith(start))
            or (not tilde and len(name) >= 10 and str(room)[1:].startswith(name))
        ]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(self.display_name(room) for room in found)
            raise InvalidPeerError(f"Several rooms are called {text.strip()[:40]!r}: {names}.")
        raise NotFoundError(f"There is no room {text.strip()[:40]!r} here.")

    def resolve(self, text: str) -> Party:
        """Return whom a typed name, id or prefix of an id means. `hall` is the hall unless a petname takes it.

        Raise NotFoundError (nobody; with a suggestion) or InvalidPeerError (several, or not a PEER at all).
        """
        wanted = text.strip().casefold()
        people = self._everybody()
        for form in (self._petname, self.display_name, self._chosen_name, lambda party: f"~{short_id(party)}"):
            if form == self._chosen_name and "~" in wanted:
                continue  # nobody takes over `alice~7x2k9q` by calling himself so
            if form == self._chosen_name and wanted in self.aliases:
                return self._alias(wanted)  # nor a name of the user's own table
            matches = [party for party in people if form(party).casefold() == wanted]
            if len(matches) == 1:
                return matches[0]
            if matches and wanted:
                names = ", ".join(self.display_name(party) for party in matches)
                raise InvalidPeerError(f"Several people are called {text.strip()[:40]!r}: {names}.")
        if wanted == "hall":
            return HALL
        if wanted[:1] == "#":
            return self.resolve_room(wanted)
        if any(name.casefold() == wanted.partition("~")[0] for name in self._rooms.values()):
            return self.resolve_room(wanted)
        return self.resolve_spec(parse_peer(text))

    def _alias(self, name: str) -> UserId | PeerId:
        party = self.aliases[name]
        if party is None:
            raise NotFoundError(f"{name!r} stands in the table of peers, but has not answered yet.")
        return party

    def resolve_spec(self, spec: PeerSpec) -> UserId | PeerId:
        """The same for a PEER that `p2pnode.parse_peer` has read."""
        if spec.user is not None:
            return spec.user
        if spec.peer is not None:
            return self.party_of(spec.peer)
        name = spec.name or ""
        if spec.is_prefix:
            found = {self.party_of(who) if isinstance(who, PeerId) else who for who in self._ids_with_prefix(name)}
            if len(found) == 1:
                return found.pop()
            if found:
                raise InvalidPeerError(f"Several known ids begin with {name!r}; type more of it.")
            raise NotFoundError(f"No known id begins with {name!r}.")
        forms = (self._petname,) if "~" in name else (self._petname, self._chosen_name)
        known = any(name.casefold() == form(party).casefold() for party in self._everybody() for form in forms)
        if known or name.casefold() in self.aliases:
            party = self.resolve(name)
            if not isinstance(party, Hall):
                return party
        close = self.suggest(name)
        raise NotFoundError(f"Nobody known is called {name[:40]!r}" + (f"; did you mean {close!r}?" if close else "."))

    def suggest(self, name: str) -> str | None:
        """Return the known name that is most like this one, None when none is."""
        names = {known.casefold(): known for known in self.names()}
        names |= {known.casefold().partition("~")[0]: known for known in self.names()}
        close = difflib.get_close_matches(clean_name(name).casefold(), [n for n in names if n], n=1)
        return names[close[0]] if close else None

    def _everybody(self) -> list[UserId | PeerId]:
        parties = dict.fromkeys(self._contacts)
        parties |= dict.fromkeys(user or peer for peer, (user, _) in self._devices.items())
        return [party for party in parties if party not in self._own]

    def _petname(self, party: Party) -> str:
        contact = None if isinstance(party, Hall) else self._contacts.get(party)
        return contact.petname if contact is not None else ""

    def _chosen_name(self, party: Party) -> str:
        if isinstance(party, Hall):
            return ""
        contact = self._contacts.get(party)
        names = [self.name_of(peer) for peer in self.devices_of(party)]
        return next((name for name in reversed(names) if name), contact.name if contact is not None else "")

    def _typed_name(self, party: UserId | PeerId) -> str:
        return self._petname(party) or self._chosen_name(party)

    def _ids_with_prefix(self, prefix: str) -> set[UserId | PeerId]:
        known: set[UserId | PeerId] = {*self._contacts, *self._devices, *self._by_user}
        return {who for who in known if len(prefix) >= _PREFIX_MIN and str(who).startswith(prefix)}

    def _forget_strangers(self) -> None:
        if len(self._devices) <= MAX_STRANGERS:
            return
        for peer, (user, _) in self._devices.items():
            if peer not in self._contacts and (user is None or user not in self._contacts):
                del self._devices[peer]
                if user is not None:
                    self._unlink(user, peer)
                return

    def _unlink(self, user: UserId, peer: PeerId) -> None:
        devices = self._by_user.get(user, {})
        devices.pop(peer, None)
        if not devices:
            self._by_user.pop(user, None)
