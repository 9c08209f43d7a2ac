"""PEER as people type it."""

import pytest

from p2pnode import InvalidPeerError, PeerId, UserId, parse_peer

PEER = "12D3KooWPK7MsXCzqaJX1zWetqBFaLs9JA2pfjfMgmf6wHNeDBCE"
USER = "p2p1keknafetf00apqhqp5msukfq92yyt2cyaufrcdc792v86ge7gqssee3ye8"


def test_each_way_to_name_a_peer_is_read() -> None:
    """User id, peer id, prefix, name, and an id with addresses."""
    assert parse_peer(USER).user == UserId.parse(USER)
    assert parse_peer(USER.upper()).user == UserId.parse(USER)
    assert parse_peer(f" {PEER} ").peer == PeerId.parse(PEER)
    assert parse_peer(PEER[:12]).is_prefix
    assert not parse_peer("alice").is_prefix
    assert parse_peer("alice~7x2k9q").name == "alice~7x2k9q"
    spec = parse_peer(f"{PEER}@example.org:1,[::1]:2,10.0.0.1")
    assert spec.hosts == (("example.org", 1), ("::1", 2), ("10.0.0.1", 4747))
    spec = parse_peer(f"{USER}@tcp:h:443,h:1")
    assert (spec.hosts, spec.tcp_hosts) == ((("h", 1),), (("h", 443),))


@pytest.mark.parametrize("position", range(4, len(USER), 7))
def test_one_wrong_character_in_a_user_id_is_found(position: int) -> None:
    """The checksum finds every typing error of one character."""
    wrong = USER[:position] + ("q" if USER[position] != "q" else "p") + USER[position + 1 :]
    with pytest.raises(InvalidPeerError, match="not a user id"):
        parse_peer(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "", "  ", PEER[:-1], PEER + "x", PEER[:11], "12D3KooW", "p2p1", "x" * 33, "a/b", "a:b", "a\nb", "alice@host:1",
        f"{PEER}@", f"{PEER}@:1", f"{PEER}@host:0", f"{PEER}@host:99999", f"{PEER}@host:1,", f"{PEER}@ho st:1",
        f"{PEER}@" + ",".join(["h:1"] * 17), PEER.replace("W", "0"), "\ud800",
    ],
)  # fmt: skip
def test_malformed_peer_is_one_sentence(text: str) -> None:
    """Nothing but InvalidPeerError, with one line."""
    with pytest.raises(InvalidPeerError) as caught:
        parse_peer(text)
    assert "\n" not in caught.value.message
