"""Topics through the public face and the control API's operations: whole nodes in virtual time."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.virtual_nodes import lan_of, network_of

from p2pnode import MessageTooLongError, NodeKey, NotFoundError
from p2pnode.api import topic_routes, topic_types
from p2pnode.api.service import Service
from p2pnode.simulations.virtual import VirtualWorld, run_virtual


def test_nodes_announce_find_each_other_and_say_goodbye() -> None:
    """By name or by 20 bytes, under the node's key or another one; who withdraws or stops is gone at once."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 5) as nodes:
            one, other, reader = nodes[1], nodes[2], nodes[4]
            secret = bytes(range(20))
            mask = NodeKey.generate(random.Random(5).randbytes)
            assert (await one.announce("chess", b"one")).stored >= 1
            await other.announce("chess", b"other")
            await other.announce("chess", b"masked", key=mask)
            await other.announce(secret, b"hidden")
            listing = await reader.topic("chess")
            by_peer = {member.peer: member.value for member in listing.members}
            assert by_peer == {one.peer_id: b"one", other.peer_id: b"other", mask.peer_id: b"masked"}
            assert (listing.complete, listing.population, listing.answered > 0) == (True, 3, True)
            assert all(member.age_s < 10 for member in listing.members)
            assert [member.value for member in (await reader.topic(secret)).members] == [b"hidden"]
            assert len((await reader.topic("chess", limit=2, sample=True)).members) == 2
            assert (await reader.topic("Chess")).members == ()
            assert await other.unannounce("chess", key=mask)
            assert not await other.unannounce("chess", key=mask)
            assert {member.value for member in (await reader.topic("chess")).members} == {b"one", b"other"}
            await network_of(one).run(one.stop())
            assert [member.value for member in (await reader.topic("chess")).members] == [b"other"]
            for wrong in ("", "x" * 201, b"short"):
                with pytest.raises(ValueError, match="topic"):
                    await reader.announce(wrong, b"x")
            await asyncio.sleep(1)

    run_virtual(main, delay=0.01)


def test_operations_of_the_control_api() -> None:
    """Announce with a text or the node's name, list the own ones, the members, a sample; withdraw."""

    async def main(world: VirtualWorld) -> None:
        async with lan_of(world, 3) as nodes:
            here, there = (Service(node, cast("Any", SimpleNamespace())) for node in nodes[1:])
            said = await topic_routes.announce(here, topic_types.TopicAnnounce("chess", "a game?"))
            assert (said.topic, said.text, said.stored) == ("chess", "a game?", said.tried)
            assert (await topic_routes.announce(there, topic_types.TopicAnnounce("chess"))).text == "node2"
            own = await topic_routes.list_announced(here, None)
            assert [(each.topic, each.text) for each in own.topics] == [("chess", "a game?")]
            found = await topic_routes.list_topic(here, topic_types.TopicMembersQuery("chess"))
            assert {(each.text, each.own) for each in found.members} == {("a game?", True), ("node2", False)}
            assert found.complete
            sample = await topic_routes.list_topic(here, topic_types.TopicMembersQuery("chess", sample=1))
            assert len(sample.members) == 1
            await topic_routes.withdraw(here, topic_types.TopicQuery("chess"))
            with pytest.raises(NotFoundError):
                await topic_routes.withdraw(here, topic_types.TopicQuery("chess"))
            assert (await topic_routes.list_announced(here, None)).topics == []
            left = await topic_routes.list_topic(here, topic_types.TopicMembersQuery("chess"))
            assert [each.text for each in left.members] == ["node2"]
            with pytest.raises(MessageTooLongError):
                await topic_routes.announce(here, topic_types.TopicAnnounce("chess", "\u00e9" * 101))

    run_virtual(main, delay=0.01)
