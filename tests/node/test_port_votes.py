"""Whose word makes a mapped port believed: by table."""

from __future__ import annotations

import pytest

from p2pnode.port_votes import PortVerdict, PortVotes

OURS, VICTIM = "11.0.0.1", "8.8.8.8"


@pytest.mark.parametrize(
    ("known", "reached", "silent", "verdict"),
    [
        (9, "oooo", 0, PortVerdict(OURS, False)),
        (9, "ooo", 1, PortVerdict(OURS, False)),
        (9, "ooov", 0, PortVerdict(OURS, False)),  # one says that it sees us elsewhere
        (9, "oo", 0, PortVerdict(OURS, False)),  # two others were lost
        (9, "oo", 2, PortVerdict(None, False)),
        (9, "oovv", 0, PortVerdict(None, False)),
        (9, "o", 3, PortVerdict(None, True)),  # one liar
        (9, "v", 3, PortVerdict(None, True)),
        (9, "o", 0, PortVerdict(None, False)),  # the router lets nobody else's answers pass
        (9, "", 4, PortVerdict(None, True)),
        (9, "", 0, PortVerdict(None, False)),
        (2, "oo", 0, PortVerdict(OURS, False)),
        (2, "o", 1, PortVerdict(None, False)),
        (2, "o", 0, PortVerdict(None, False)),
        (1, "o", 0, PortVerdict(OURS, False)),  # nobody else is there to be asked
        (1, "", 1, PortVerdict(None, False)),
        (0, "", 0, PortVerdict(None, False)),
    ],
)
def test_verdicts(known: int, reached: str, silent: int, verdict: PortVerdict) -> None:
    """More than half of those that tried, two at least where there are two."""
    votes = PortVotes(known=known, asked=min(known, 4))
    for number, where in enumerate(reached):
        votes.tried(number)
        votes.reached(number, OURS if where == "o" else VICTIM)
    for number in range(silent):
        votes.tried(len(reached) + number)
    assert votes.verdict == verdict


def test_settled_as_soon_as_the_rest_changes_nothing() -> None:
    """The third of four; a second word of one voter adds nothing."""
    votes = PortVotes(known=9, asked=4)
    for voter in ("a", "a", "b"):
        votes.reached(voter, OURS)
        assert not votes.settled
    votes.reached("c", OURS)
    assert votes.settled
    votes.reached("d", VICTIM)
    assert votes.verdict.ip == OURS
