"""What stands round the messages: the top line, the keys at the bottom, which parts a width has room for. Pure."""

from __future__ import annotations

from textual.content import Content

from p2pnode import clean
from p2pnode.chat import Chat, Party
from p2pnode.chat.model import STRANGER, Hall, RoomId
from p2pnode.chat.rooms.console import members_text
from p2pnode.chat.strangers.console import status_of
from p2pnode.cli.screen.sidebar import PRESENCE

__all__ = ["KEYS", "fits", "is_light", "title"]

WIDE = 110  # columns from which the panel is there without being asked for
NARROW = 60  # columns below which the list of conversations is not
KEYS = "F1 help  F2 me  F3 panel  F4 list  ^F search  ^N ^P switch  ^C leave"


def fits(width: int, rooms: bool | None, details: bool | None) -> tuple[bool, bool]:
    """Return whether list and panel are shown; `rooms`, `details`: what the user asked for, None for nothing."""
    show_details = details if details is not None else width >= WIDE
    show_rooms = rooms if rooms is not None else width >= NARROW and not (show_details and width < WIDE)
    return show_rooms, show_details


def title(
    chat: Chat, party: Party, presence: str, unread: int, port: int, width: int, *, scrolled: bool = False
) -> Content:
    """Return the line at the top: whom plain text goes to, what is unread, and who we are. `scrolled`: the newest
    messages are out of view."""
    if party is STRANGER:
        about = f"# {status_of(chat.strangers)}"
    elif isinstance(party, RoomId):
        info = next((info for info in chat.rooms.all() if info.id == party), None)
        about = clean(chat.display_name(party), limit=60)
        if info is not None:
            about += f": {members_text(info.members)}, {info.neighbours} connected"
    elif isinstance(party, Hall):
        count = len(chat.members())
        about = f"# hall: {count} other{'' if count == 1 else 's'}" if count else "# hall: nobody else yet"
    else:
        about = f"{PRESENCE.get(presence, '')} {clean(chat.display_name(party), limit=60)}"
    news = (f"  ({unread} unread)" if unread else "") + ("  (older; ^End: newest)" if scrolled else "")
    own = f"{clean(chat.node.settings.name, limit=40) or 'you'}, port {port}"
    room = width - 2 - len(own) - len(about) - len(news)
    return Content.assemble((about, "bold"), (news, "$text-accent"), " " * max(2, room), (own, "$foreground-muted"))


def is_light(colorfgbg: str) -> bool:
    """Whether COLORFGBG, which some terminals set (`0;15`), says that the background is light."""
    return colorfgbg.rpartition(";")[2] in ("7", "15")
