"""What the console says about strangers, and what its macros do: the same in line mode and on the screen."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from p2pnode import RefusedError
from p2pnode.chat.model import StrangerChanged, StrangerSaid

if TYPE_CHECKING:
    from p2pnode.chat.service import Chat
    from p2pnode.chat.strangers.service import Strangers

__all__ = ["RELAY_ONLY", "StrangerConsole", "event_lines", "status_of"]

RELAY_ONLY = ("relay-only", "--relay-only")
_ENDS = {
    "left": "The stranger has left",
    "lost": "The connection to the stranger is lost",
    "broken": "The stranger's program said something that means nothing; the conversation is over",
}
_KEYS = "\\next finds another one, \\report tells others about this one, \\quit leaves."


class StrangerConsole:
    """Of one user at one console."""

    def __init__(self, chat: Chat) -> None:
        self._strangers = chat.strangers

    @property
    def begun(self) -> bool:
        return self._strangers.phase != "off"

    async def macro(self, name: str, argument: str) -> list[str]:
        """Do `random`, `next`, `report` or `quit`; return lines to show at once. Raise P2PError."""
        if name == "random":
            return await self._begin(argument)
        if name == "next":
            await self._strangers.next()
        elif name == "report":
            await self._strangers.report()
        else:
            await self._strangers.quit()
        return []

    async def _begin(self, argument: str) -> list[str]:
        if argument and argument not in RELAY_ONLY:
            return [f"! \\random, or \\random {RELAY_ONLY[0]}: that hides your address from strangers."]
        try:
            await self._strangers.begin(relay_only=bool(argument))
        except RefusedError:
            return ["* " + status_of(self._strangers)]
        return []

    async def say(self, text: str) -> None:
        """Raise as `Strangers.say`."""
        await self._strangers.say(text)


def event_lines(event: StrangerChanged | StrangerSaid, *, echo: bool) -> list[str]:
    """Return what an event means to the user. `echo`: show our own texts too."""
    if isinstance(event, StrangerSaid):
        if event.own and not echo:
            return []
        clock, who = time.strftime("%H:%M", time.localtime(event.at)), "you" if event.own else "stranger"
        first, *others = event.text.split("\n")
        return [f"{clock} {who}: {first}", *(f"      {line}" for line in others)]
    line = _changed(event)
    return [f"* {line}"] if line else []


def _changed(event: StrangerChanged) -> str:
    if event.phase == "searching":
        if event.reason == "waiting":
            who = "One stranger has" if event.reports == 1 else f"{event.reports} strangers have"
            return f"{who} reported you this week: others are chosen before you, so it may take some minutes."
        if event.reason == "no_network":
            return "There is no network just now; trying again."
        if event.reason == "still":
            return f"Still looking for a stranger ({_span(event.seconds)})."
        if event.reason == "reported":
            return "Reported."
        if event.reason == "next":
            return "Looking for another stranger. \\quit stops."
        if event.path == "relay":
            return "Looking for a stranger, who will not see this computer's address. \\quit stops."
        return "Looking for a stranger, who can see this computer's address (not with relay-only). \\quit stops."
    if event.phase == "found":
        how = "through a relay, which hides both addresses" if event.path == "relay" else event.path
        return f"You are connected to a stranger (found in {_span(event.seconds)}, {how}). Say hi! {_KEYS}"
    if event.phase == "ended":
        if event.reason == "reported":
            return "Reported: whoever is about to choose this stranger learns of it. \\next finds another one."
        if event.reason == "next":
            return f"You left the stranger after {_span(event.seconds)}."
        return f"{_ENDS.get(event.reason, _ENDS['lost'])} (after {_span(event.seconds)}). {_KEYS}"
    return "You have left the strangers."


def status_of(strangers: Strangers) -> str:
    """Return in a few words how it stands now."""
    span = _span(strangers.elapsed_s)
    return {
        "searching": f"Looking for a stranger, {span}",
        "found": f"Talking to a stranger, {span}",
        "ended": "The stranger has gone; \\next finds another one",
    }.get(strangers.phase, "No stranger; \\random finds one")


def _span(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
