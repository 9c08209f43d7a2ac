"""What follows from evidence: the newest decides, and time."""

from __future__ import annotations

import pytest

from p2pnode.core.address import Address, Realm
from p2pnode.evidence import GONE_AFTER_S, Knowledge, RecordHeard

WALL = 1_700_000_000.0
HERE, THERE = (Address("9.0.0.1", 1),), (Address("9.0.0.2", 1),)


def record(at: float, *, online: bool = True, holders: int = 5, how: str = "record") -> RecordHeard:
    """A record signed at `at` seconds of the story, good for fifteen minutes."""
    return RecordHeard(int((WALL + at) * 1000), int(WALL + at + 900), online, how, holders, HERE if online else ())


def state_of(known: Knowledge, now: float, *, on_lan: bool = False) -> tuple[str, str]:
    verdict = known.verdict(now, WALL + now, on_lan=on_lan)
    return verdict.state, verdict.evidence


def test_nothing_known() -> None:
    """No evidence is no answer, unless the local network knows the peer."""
    assert state_of(Knowledge(), 0) == ("unknown", "")
    assert state_of(Knowledge(), 0, on_lan=True) == ("online", "lan")


def test_a_record_is_believed_until_it_expires() -> None:
    """Its age counts from its signing; a goodbye ends it at once, an older record does not bring it back."""
    known = Knowledge()
    known.heard(Realm.PUBLIC, record(0))
    verdict = known.verdict(100, WALL + 100)
    assert (verdict.state, verdict.age_s, verdict.holders, verdict.last_seen) == ("online", 100, 5, WALL)
    assert known.changes_at(100, WALL + 100) == pytest.approx(900)
    assert state_of(known, 901) == ("offline", "record")
    known.heard(Realm.PUBLIC, record(120, online=False, how="notice"))
    known.heard(Realm.PUBLIC, record(60))
    assert state_of(known, 121) == ("offline", "goodbye")
    assert known.addresses(WALL + 121) == ()


def test_a_goodbye_in_one_realm_is_none_in_the_other() -> None:
    """Who left the Wi-Fi is still there by the other way."""
    known = Knowledge()
    known.heard(Realm.PUBLIC, record(0))
    known.heard(Realm.PRIVATE, record(10, online=False))
    assert state_of(known, 20) == ("online", "record")


def test_a_broken_session_is_last_seen_then_offline_though_the_record_lives() -> None:
    """At most a minute after it was heard; its age counts from then."""
    known = Knowledge()
    known.heard(Realm.PUBLIC, record(0))
    known.session_opened(50, WALL + 50)
    assert state_of(known, 60) == ("online", "session")
    known.session_ended(100, WALL + 100, silent_s=25, lost=True, left=False)
    verdict = known.verdict(100, WALL + 100)
    assert (verdict.state, verdict.online, verdict.age_s, verdict.last_seen) == ("last_seen", True, 25, WALL + 75)
    assert known.changes_at(100, WALL + 100) == 75 + GONE_AFTER_S
    assert state_of(known, 75 + GONE_AFTER_S) == ("offline", "session_lost")
    assert state_of(known, 75 + GONE_AFTER_S, on_lan=True) == ("offline", "session_lost")


@pytest.mark.parametrize("newer", ["record", "session"])
def test_newer_evidence_ends_the_doubt(newer: str) -> None:
    """A record signed after the peer was heard last, or another session."""
    known = Knowledge()
    known.session_opened(0, WALL)
    known.session_ended(30, WALL + 30, silent_s=25, lost=True, left=False)
    if newer == "record":
        known.heard(Realm.PUBLIC, record(4))
        assert state_of(known, 40) == ("last_seen", "session_lost")
        known.heard(Realm.PUBLIC, record(35))
    else:
        known.session_opened(40, WALL + 40)
    assert state_of(known, 41) == ("online", newer)


def test_a_goodbye_on_the_session_counts_at_once() -> None:
    """Whatever records still say; a record signed later brings it back."""
    known = Knowledge()
    known.heard(Realm.PUBLIC, record(0))
    known.session_opened(10, WALL + 10)
    known.session_ended(20, WALL + 20, silent_s=0, lost=False, left=True)
    assert state_of(known, 20) == ("offline", "goodbye")
    known.heard(Realm.PUBLIC, record(60))
    assert state_of(known, 61) == ("online", "record")


def test_a_session_that_ended_in_order_says_nothing_against_the_record() -> None:
    """Idle sessions are closed: the peer is there by its record, else it was there a moment ago."""
    known = Knowledge()
    known.session_opened(0, WALL)
    known.session_ended(300, WALL + 300, silent_s=20, lost=False, left=False)
    assert state_of(known, 310) == ("last_seen", "session")
    assert state_of(known, 400) == ("offline", "session")
    known.heard(Realm.PUBLIC, record(250))
    assert state_of(known, 400) == ("online", "record")


def test_of_two_copies_the_one_that_more_holders_have_counts() -> None:
    """A lookup that finds the same version at many holders says more than a notice of one."""
    known = Knowledge()
    known.heard(Realm.PUBLIC, record(0, holders=1, how="notice"))
    known.heard(Realm.PUBLIC, record(0, holders=7))
    known.heard(Realm.PUBLIC, record(0, holders=1, how="notice"))
    assert known.verdict(1, WALL + 1).holders == 7
