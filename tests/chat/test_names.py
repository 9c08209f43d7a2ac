"""Names that people chose for themselves: many may claim one, and whoever looks for it chooses."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.chat_fakes import FakeWorld, Person, befriend

from p2pnode import AccountKey, InvalidPeerError
from p2pnode.chat import ChatSettings, Conversation
from p2pnode.chat.names.claims import encode_claim, folded, topic_of
from p2pnode.chat.protocol import device_proof
from p2pnode.simulations.virtual import VirtualLoop


def run(main: Callable[[FakeWorld], Awaitable[None]], until: float = 10_000.0) -> None:
    VirtualLoop().run(main(FakeWorld()), until=until)  # type: ignore[arg-type]  # async functions give coroutines


def test_names_that_look_alike_are_one() -> None:
    assert folded("  ALICE \u00a0 Smith ") == folded("alice smith") == "alice smith"
    assert folded("\uff21lice") == "alice"
    assert topic_of("Zo\u0308e") == topic_of("zo\u0308e".upper())
    assert folded("\u202e\u200b") == ""


def test_all_claimants_are_shown_and_one_is_chosen(tmp_path: Path) -> None:
    """Whom a contact knows comes first, whoever claimed first; the choice becomes a contact with that petname."""

    async def main(world: FakeWorld) -> None:
        impostor = await Person(world, "alice", device="2", account=AccountKey(bytes(range(32)))).start()
        await asyncio.sleep(100)
        alice = await Person(world, "alice", tmp_path / "a.db").start()
        bob, carol = await Person(world, "bob").start(), await Person(world, "carol").start()
        for one, other in ((bob, carol), (bob, alice)):
            await befriend(one, other)
            await one.chat.send(other.node.user_id, "hi")
        await asyncio.sleep(5)
        found = await carol.chat.names.look_up(" Alice ")
        assert [each.user for each in found.claimants] == [alice.node.user_id, impostor.node.user_id]
        assert [each.common for each in found.claimants] == [(bob.node.user_id,), ()]
        assert found.claimants[0].devices == (alice.node.peer_id,)
        lines: list[str] = []
        console = Conversation(carol.chat, own_port=4747, show=lines.append, listen=False)
        await console.handle("\\add alice")
        assert lines[0].startswith("! Nobody known is called 'alice'")
        assert lines[1] == "* 2 in the network call themselves so; anybody can:"
        assert "known to bob" in lines[2]
        assert str(alice.node.user_id) in lines[2]
        assert "nobody of yours here knows it" in lines[3]
        await console.handle(f"\\add alice~{found.claimants[0].fingerprint}")
        assert lines[-1] == "* alice is a contact now."
        assert carol.chat.resolve("alice") == alice.node.user_id
        await console.handle("\\find nobody")
        assert lines[-1] == "* Nobody in the network calls itself nobody."
        with pytest.raises(InvalidPeerError):
            await carol.chat.names.look_up(" ")
        since = found.claimants[0].since
        await alice.stop()
        await asyncio.sleep(100)
        await alice.start()
        await asyncio.sleep(5)
        again = (await carol.chat.names.look_up("alice")).claimants[0]
        assert (again.since, again.state) == (since, "accepted")
        assert again.age_s < 10

    run(main)


def test_false_claims_are_left_out() -> None:
    """A claim needs the account's proof of the device that signed the entry; a copied one is worth nothing."""

    async def main(world: FakeWorld) -> None:
        alice, carol = await Person(world, "alice").start(), await Person(world, "carol").start()
        await asyncio.sleep(1)
        mallory = await Person(world, "mallory").start()
        [(value, _)] = world.topics.entries[topic_of("alice")].values()
        stranger = AccountKey.generate(random.Random(1).randbytes)
        foreign = encode_claim(stranger.user_id, device_proof(stranger, alice.node.peer_id), 1)
        for number, forged in enumerate((value, b"", value[:-1], b"\xff" * 110, foreign)):
            device = AccountKey.generate(random.Random(number).randbytes).public_raw
            world.topics.entries[topic_of("alice")][type(mallory.node.peer_id)(device)] = (forged, 0.0)
        found = await carol.chat.names.look_up("alice")
        assert [each.user for each in found.claimants] == [alice.node.user_id]

    run(main)


def test_who_does_not_want_to_is_not_found_and_tells_nothing() -> None:
    """Setting off, or invisible: no claim. A contact who does not tell of others is silent about them."""

    async def main(world: FakeWorld) -> None:
        quiet = ChatSettings(claim_name=False, tell_contacts=False)
        bob = await Person(world, "bob", settings=quiet).start()
        alice, carol = await Person(world, "alice").start(), await Person(world, "carol").start()
        for other in (alice, carol):
            await befriend(bob, other)
            await bob.chat.send(other.node.user_id, "hi")
        await asyncio.sleep(5)
        assert (await carol.chat.names.look_up("bob")).claimants == ()
        [found] = (await carol.chat.names.look_up("alice")).claimants
        assert found.common == ()
        await alice.chat.gossip.set_invisible(True)
        assert (await carol.chat.names.look_up("alice")).claimants == ()
        await alice.chat.gossip.set_invisible(False)
        await asyncio.sleep(1)
        assert len((await carol.chat.names.look_up("alice")).claimants) == 1

    run(main)


def test_x3_a_contact_cannot_walk_through_our_contacts() -> None:
    """Each "yes, I know that one" costs a token: ten, then two a minute."""

    async def main(world: FakeWorld) -> None:
        bob, eve = await Person(world, "bob").start(), await Person(world, "eve").start()
        await befriend(bob, eve)
        await bob.chat.send(eve.node.user_id, "hi")
        users = [AccountKey.generate(random.Random(n).randbytes).user_id for n in range(40)]
        for user in users:
            await bob.chat.add_contact(user)
        await asyncio.sleep(5)
        said = 0
        for _ in range(20):
            known = await eve.chat.gossip.who_knows(users, 1.5)
            said += sum(bool(friends) for friends in known.values())
        print(f"contacts told to one who asked 20 times for all 40: {said}")
        assert 10 <= said <= 12

    run(main)


def test_x3_a_claimant_with_the_same_last_characters_is_not_taken_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six characters can be made at will: whoever is shown under the same ones as another has to be named in full."""

    async def main(world: FakeWorld) -> None:
        alice = await Person(world, "alice").start()
        impostor = await Person(world, "alice", device="2", account=AccountKey(bytes(range(32)))).start()
        carol = await Person(world, "carol").start()
        await asyncio.sleep(5)
        monkeypatch.setattr("p2pnode.chat.names.service.short_id", lambda _user: "7x2k9q")
        found = await carol.chat.names.look_up("alice")
        assert {each.user for each in found.claimants} == {alice.node.user_id, impostor.node.user_id}
        assert carol.chat.names.chosen("alice~7x2k9q") is None

    run(main)
