"""Two processes with one device key, a copied home: the newer one stays, the older one notices and is silent."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.virtual_nodes import make_node

from p2pnode import KeyInUse, Node
from p2pnode.core.address import Realm
from p2pnode.core.errors import BadPacket
from p2pnode.presence import Presence
from p2pnode.simulations.virtual import VirtualWorld, run_virtual
from p2pnode.state import NodeState


def noted(node: Node) -> list[Any]:
    heard: list[Any] = []
    node.subscribe(lambda event: heard.append(event) if isinstance(event, KeyInUse) else None)
    return heard


@pytest.mark.parametrize("copied_while_running", [True, False])
def test_the_older_of_two_processes_with_one_key_gives_way(tmp_path: Path, copied_while_running: bool) -> None:
    """Within seconds when the home was copied from under a running node, else within an hour by the read-backs; the
    newer one is found from then on, and the older one's leaving takes nothing of it away."""

    async def main(world: VirtualWorld) -> None:
        hub = make_node(world.host("10.0.0.66"), 66)
        await hub.start()
        alice = make_node(world.host("10.0.0.1"), 1, through=[hub])
        older = make_node(world.host("10.0.0.2"), 2, through=[hub], state_path=tmp_path / "old")
        gone = noted(older)
        for node in (alice, older):
            await node.start()
        await asyncio.sleep(30)
        if copied_while_running:
            shutil.copy(tmp_path / "old", tmp_path / "copy")
        newer = make_node(world.host("10.0.0.3"), 2, through=[hub], state_path=tmp_path / "copy")
        still = noted(newer)
        assert newer.peer_id == older.peer_id
        await newer.start()
        await asyncio.sleep(10 if copied_while_running else 2 * 3600)
        assert gone == [KeyInUse()]
        await older.stop()
        await asyncio.sleep(60)
        found = await alice.find(newer.peer_id)
        assert [address.ip for address in found.addresses] == ["10.0.0.3"]
        await asyncio.sleep(1200)
        assert (await alice.find(newer.peer_id)).online
        assert not still
        for node in (newer, alice, hub):
            await node.stop()

    run_virtual(main, until=None, keep_trace=False)


def test_a_node_that_crashed_and_starts_again_is_nobody_elses_copy(tmp_path: Path) -> None:
    """Its own earlier presence, from the same address or another, stops nobody."""

    async def main(world: VirtualWorld) -> None:
        hub = make_node(world.host("10.0.0.66"), 66)
        await hub.start()
        first = make_node(world.host("10.0.0.2"), 2, through=[hub], state_path=tmp_path / "state")
        await first.start()
        await asyncio.sleep(30)
        shutil.copy(tmp_path / "state", tmp_path / "crashed")
        await first.stop()
        shutil.copy(tmp_path / "crashed", tmp_path / "state")
        again = make_node(world.host("10.0.0.4"), 2, through=[hub], state_path=tmp_path / "state")
        gone = noted(again)
        await again.start()
        await asyncio.sleep(400)
        assert not gone
        assert (await hub.find(again.peer_id)).online
        for node in (again, hub):
            await node.stop()

    run_virtual(main, until=None, keep_trace=False)


def test_a_clock_that_went_back_makes_no_later_run_older(tmp_path: Path) -> None:
    """The number rises with each start, and says whether the last one was ended."""
    state = NodeState(tmp_path / "state", bytes)
    assert state.begin(2_000.0) == (2_000_000, False)
    state.write(state.encode())
    again = NodeState(tmp_path / "state", bytes)
    assert again.begin(1_000.0) == (2_000_001, True)
    again.end()
    again.write(again.encode())
    assert NodeState(tmp_path / "state", bytes).begin(3_000.0) == (3_000_000, False)


def test_a_presence_says_when_its_process_began() -> None:
    """It comes back; values without it are read; nonsense is refused."""
    value = Presence((), bytes(32), None, run=1_790_000_000_000)
    assert Presence.decode_untrusted(value.encode(), Realm.PUBLIC).run == 1_790_000_000_000
    without = Presence((), bytes(32), None)
    assert Presence.decode_untrusted(without.encode(), Realm.PUBLIC).run == 0
    assert len(value.encode()) == len(without.encode()) + 9
    negative = value.encode().replace((1_790_000_000_000).to_bytes(8, "big"), b"\xff" * 8)
    with pytest.raises(BadPacket):
        Presence.decode_untrusted(negative, Realm.PUBLIC)
