"""The panel beside the messages: who this is, by which path, why so; and this node."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from p2pnode import PeerId, UserId, clean
from p2pnode.chat import Chat, Inspector, Party, PathDetails
from p2pnode.chat.model import STRANGER, Hall, RoomId, short_id
from p2pnode.chat.rooms.console import member_lines, members_text
from p2pnode.chat.strangers.console import status_of
from p2pnode.cli.screen.sidebar import PRESENCE

__all__ = ["Details", "describe"]

DEVICES_SHOWN = 5
MEMBERS_SHOWN = 40
PRESENCE_TEXTS = {"online": "here", "last_seen": "here a moment ago", "offline": "away", "": "nobody knows"}
NAT_TEXTS = {
    "none": "no router in between",
    "endpoint-independent": "router keeps ports (easy)",
    "address-dependent": "router: a port per address",
    "address-and-port-dependent": "router: a port per destination (symmetric)",
    "udp-blocked": "no UDP passes",
    "unknown": "not known yet",
}

Piece = tuple[str, str]


class Details(VerticalScroll, can_focus=False):
    """Shows `describe`; made anew every second and when another conversation is opened."""

    DEFAULT_CSS = """
    Details {
        background: $panel;
        padding: 0 1;
        scrollbar-size-vertical: 1;
    }
    """

    def compose(self) -> ComposeResult:
        yield Static(markup=False)

    _shown: Content | None = None

    def show(self, content: Content) -> None:
        """Show it, if it is news."""
        if content != self._shown:
            self._shown = content
            self.query_one(Static).update(content)


def describe(chat: Chat, inspector: Inspector | None, party: Party, presence: str) -> Content:
    """Return what is known of a conversation and of this node. Nothing in it is read as markup."""
    if party is STRANGER:
        pieces = _stranger(chat)
    elif isinstance(party, RoomId):
        pieces = _room(chat, party)
    else:
        pieces = _hall(chat, inspector) if isinstance(party, Hall) else _person(chat, inspector, party, presence)
    if inspector is not None:
        pieces += _own(chat, inspector)
    return Content.assemble(*((clean(text, limit=600, newline=True), style) for text, style in pieces))


def _person(chat: Chat, inspector: Inspector | None, party: UserId | PeerId, presence: str) -> list[Piece]:
    contact = chat.directory.contact(party)
    pieces: list[Piece] = [(f"{chat.display_name(party)}\n", "bold")]
    pieces.append((f"{PRESENCE.get(presence, '')} {PRESENCE_TEXTS.get(presence, presence)}\n", "$foreground-muted"))
    status = chat.gossip.status_of(party)
    if status:
        pieces.append((f"says: {status}\n", "italic"))
    if contact is None:
        pieces.append(("not a contact\n", "$text-warning"))
    elif contact.state == "request":
        pieces.append(("a stranger: answer, or \\add, to hear more; \\block ends it\n", "$text-warning"))
    else:
        verified = "safety number compared" if contact.verified else "not verified: \\verify"
        pieces.append((f"{verified}\n", "$text-success" if contact.verified else "$foreground-muted"))
    devices = chat.attention.devices_of(party)
    paths = [(device, inspector.path(device) if inspector is not None else None) for device in devices]
    paths.sort(key=lambda entry: entry[1] is None)
    for device, path in paths[:DEVICES_SHOWN]:
        pieces += _device(device, path)
    if len(devices) > DEVICES_SHOWN:
        pieces.append((f"and {len(devices) - DEVICES_SHOWN} more devices\n", "$foreground-muted"))
    return pieces


def _device(device: PeerId, path: PathDetails | None) -> list[Piece]:
    title: list[Piece] = [(f"\nDevice {short_id(device)}\n", "bold")]
    if path is None:
        return [*title, ("no session; the next message opens one\n", "$foreground-muted")]
    rtt = "" if path.rtt_s is None else f", {path.rtt_s * 1000:.0f} ms" if path.rtt_s >= 0.01 else (
        f", {path.rtt_s * 1000:.1f} ms"
    )  # fmt: skip
    style = "$text-warning" if path.path == "relay" else "$text-success"
    return [
        *title,
        (f"{path.path}{rtt}\n", style),
        (f"{path.remote}\n", "$foreground-muted"),
        (f"{'Why relayed? ' if path.path == 'relay' else ''}{path.text}\n", ""),
    ]


def _hall(chat: Chat, inspector: Inspector | None) -> list[Piece]:
    members = chat.members()
    pieces: list[Piece] = [
        ("The hall\n", "bold"),
        (f"{len(members)} others; all read what you type\n", "$foreground-muted"),
    ]
    for member in members[:MEMBERS_SHOWN]:
        path = inspector.path(member.peer) if inspector is not None else None
        rtt = f" {path.rtt_s * 1000:.0f} ms" if path is not None and path.rtt_s is not None else ""
        pieces.append((f"{PRESENCE['online']} ", "$text-success"))
        pieces.append((f"{chat.display_name(member.user or member.peer)}", ""))
        pieces.append((f"  {path.path if path is not None else ''}{rtt}\n", "$foreground-muted"))
    return pieces


def _room(chat: Chat, party: RoomId) -> list[Piece]:
    info = next((info for info in chat.rooms.all() if info.id == party), None)
    if info is None:
        return [(f"{chat.display_name(party)}\n", "bold"), ("you are not in it\n", "$text-warning")]
    kind = "open: whoever finds it may join" if info.open else "by invitation: \\room invite NAME"
    pieces: list[Piece] = [
        (f"{chat.display_name(party)}\n", "bold"),
        (f"{info.state}{', yours' if info.role == 'owner' else ''}\n", "$foreground-muted"),
        (f"{kind}\n", "$foreground-muted"),
        (f"{members_text(info.members)}, {info.neighbours} devices connected\n", "$foreground-muted"),
    ]
    if info.state == "joined":
        lines = member_lines(chat, party)
        pieces += [(f"{line.strip()}\n", "") for line in lines[:MEMBERS_SHOWN]]
        if len(lines) > MEMBERS_SHOWN:
            pieces.append((f"and {len(lines) - MEMBERS_SHOWN} more: \\room members\n", "$foreground-muted"))
    return pieces


def _stranger(chat: Chat) -> list[Piece]:
    strangers = chat.strangers
    hidden = "hidden: relays only" if strangers.relay_only else "a stranger's program can see it"
    return [
        ("A stranger\n", "bold"),
        (f"{status_of(strangers)}\n", ""),
        (f"your address: {hidden}\n", "$foreground-muted"),
        ("nothing of it is stored; both have keys made for this conversation\n", "$foreground-muted"),
        ("\\next another, \\report, \\quit\n", "$foreground-muted"),
    ]


def _own(chat: Chat, inspector: Inspector) -> list[Piece]:
    own = inspector.own()
    where = ", ".join(own.addresses) or "none that others can use"
    relayed = f", {own.relayed} relayed" if own.relayed else ""
    return [
        ("\nThis node\n", "bold"),
        (f"{chat.node.settings.name or 'nameless'} ~{short_id(chat.node.user_id)}\n", ""),
        *([("invisible: \\visible ends it\n", "$text-warning")] if chat.gossip.invisible else []),
        *([(f"says: {chat.gossip.text}\n", "italic")] if chat.gossip.text else []),
        (f"{own.sessions} session{'' if own.sessions == 1 else 's'}{relayed}\n", "$foreground-muted"),
        (f"NAT: {NAT_TEXTS.get(own.nat, own.nat)}\n", "$foreground-muted"),
        (f"port mapping: {own.mapping}\n", "$foreground-muted"),
        (f"addresses: {where}\n", "$foreground-muted"),
    ]
