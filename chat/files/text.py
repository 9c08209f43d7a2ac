"""Transfers in words: for the console, the screen and the command line. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from p2pnode import PeerId, UserId
from p2pnode.chat.model import Party, RoomId, Transfer

__all__ = ["explained", "is_personal", "other_side", "remark", "short", "size_text", "state_text"]

REASONS = {
    "pending": "waits for the other side to accept it",
    "request_pending": "waits until you are accepted there as a contact",
    "busy": "the other side takes no more just now; it is tried again",
    "storage": "the other side's disk refuses; it is tried again",
    "peer_not_found": "nobody in the network knows an address; it goes on when the peer comes",
    "peer_offline": "the peer is offline; it goes on when the peer comes",
    "offline": "the peer cannot be reached; it goes on when the peer comes",
    "no_path": "the peer could not be reached; it is tried again",
    "disk_full": "the disk is full: make room; it goes on within a minute",
    "blocked": "the peer is blocked",
    "no_downloads": "the other side takes no files",
    "unknown_room": "the other side does not know the room",
    "bad_offer": "the other side knows another offer of this id",
    "refused": "the other side does not want it",
    "damaged": "what came was not what was offered",
    "changed": "it was changed while it was being sent; it has to be sent again",
    "gone": "it is no longer there at the sender's; it has to be sent again",
    "unreadable": "the sender can no longer read it",
    "no_such_file": "it is no longer there",
    "not_a_file": "it is neither a file nor a folder",
    "nothing_to_send": "the folder holds nothing that can be sent",
    "too_large": "it is larger than 256 GiB",
    "too_many_files": "the folder holds too many files; pack it first",
    "too_deep": "its folders are too deep or its paths too long",
    "expired": "nobody answered for a week",
    "not_member": "no member of the room any more",
    "taken": "another device of yours took it",
    "withdrawn": "the sender took it back",
}


def explained(transfer: Transfer) -> str:
    """Return why it is as it is, as the end of a sentence; empty when there is nothing to say."""
    if not transfer.reason:
        return ""
    if transfer.reason == "storage" and not transfer.outgoing:
        return "the downloads folder cannot be written; it is tried again"
    return REASONS.get(transfer.reason, transfer.reason.replace("_", " "))


def short(transfer: Transfer) -> str:
    """Return the first characters of the id, enough to type."""
    return transfer.id[:6]


def size_text(count: float) -> str:
    """Return a number of bytes as B, kB, MB, GB."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} B"


def state_text(transfer: Transfer) -> str:
    """Return the state in some words, with progress, rate and time to go."""
    if transfer.receivers:
        return _together(transfer.receivers)
    why = explained(transfer)
    if transfer.state == "active":
        share = f"{100 * transfer.done // max(1, transfer.size)} %"
        if transfer.rate:
            text = f"{share}, {size_text(transfer.rate)}/s"
            return text + (f", {_time(transfer.eta_s)} to go" if transfer.eta_s is not None else "")
        return share + (f", {why}" if why else "")
    return transfer.state + (f": {why}" if why else "")


def _together(receivers: Sequence[Transfer]) -> str:
    """Return how far the members of a room are, in some words."""
    states = Counter(each.state for each in receivers)
    words = {"active": "fetching it", "refused": "refused", "failed": "failed", "cancelled": "left out"}
    notes = [f"{states[state]} {word}" for state, word in words.items() if states[state]]  # type: ignore[index]
    return ", ".join([f"{states['done']} of {len(receivers)} have it", *notes])


def remark(transfer: Transfer, name: str) -> str | None:
    """Return the line that a change of state is worth in a conversation with `name` (in a room: who offers it, or is
    offered it); None: none."""
    if transfer.receivers:
        return None  # each receiver has its line
    what, mark, whom = _what(transfer), short(transfer), "you" if is_personal(transfer) else "the room"
    why = explained(transfer)
    if transfer.state == "offered" and transfer.reason == "request_pending":
        return f"  ({transfer.name} for {name}: {why})"
    if transfer.outgoing:
        lines = {
            "done": f"* {name} has {what}.",
            "refused": f"! {name} does not take {what}" + (f": {why}." if transfer.reason != "refused" else "."),
            "failed": f"! {what} was not sent: {why}.",
        }
    else:
        lines = {
            "offered": f"* {name} offers {whom} {what}; \\file accept {mark} or \\file refuse {mark}.",
            "done": f"* {what} is here: {transfer.path}",
            "failed": f"! {what} of {name} did not come: {why}.",
            "cancelled": f"* {name} took back {what}."
            if transfer.reason == "withdrawn"
            else f"* {what}: {why or 'given up'}.",
        }
        if transfer.state == "active" and transfer.reason in ("disk_full", "storage"):
            return f"! {what} of {name}: {why}."
    return lines.get(transfer.state)


def is_personal(transfer: Transfer) -> bool:
    """Whether it is between two people, and not for a room."""
    return not isinstance(transfer.party, RoomId)


def other_side(transfer: Transfer, user_of: Callable[[PeerId], UserId | None]) -> Party:
    """Return whom it goes to or comes from: in a room one member, where it is about one."""
    if is_personal(transfer):
        return transfer.party
    if transfer.outgoing:
        return transfer.receiver or transfer.party
    return user_of(transfer.author) or transfer.author


def _what(transfer: Transfer) -> str:
    many = f", {transfer.count} files" if transfer.folder else ""
    return f"{transfer.name} ({size_text(transfer.size)}{many})"


def _time(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
