"""An account's list of devices: changed, published, taken over by its other devices. Whole nodes, in virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.virtual_nodes import make_node

from p2pnode import AccountKey, DeviceList, DeviceRevokedError, DevicesChanged, Node, NodeKey, P2PError
from p2pnode.core.devices import MAX_DEVICES
from p2pnode.owning import OwnDevices
from p2pnode.simulations.virtual import VirtualWorld, run_virtual
from p2pnode.state import NodeState

ACCOUNT = AccountKey(b"a" * 32)
PEERS = [NodeKey(bytes([i]) * 32, bytes(32)).peer_id for i in range(1, 30)]


def device(world: VirtualWorld, number: int, through: list[Node], **settings: Any) -> Node:
    """A device of one account."""
    node = make_node(world.host(f"10.0.0.{number}"), number, through=through)
    return Node(key=node.key, account=ACCOUNT, settings=node.settings, network=node.network, **settings)


def test_a_list_changes_by_rising_numbers_only(tmp_path: Path) -> None:
    """Newer wins, older and absurd ones do not; it is remembered; who was taken out changes nothing more."""
    state = NodeState(tmp_path / "state", bytes)
    own = OwnDevices(ACCOUNT.user_id, PEERS[0], state)
    assert own.current == DeviceList(0, (PEERS[0],))
    own.change([PEERS[1]], [], 1000)
    assert own.current.number == 1000
    own.change([PEERS[1]], [], 2000)
    assert own.current.number == 1000  # nothing changed
    own.change([PEERS[2]], [], 500)
    assert own.current.number == 1001  # a clock that went back
    state.write(state.encode())
    assert OwnDevices(ACCOUNT.user_id, PEERS[0], NodeState(tmp_path / "state", bytes)).current == own.current
    assert not own.adopt(DeviceList(1001, (PEERS[5],)), 2000)
    assert not own.adopt(DeviceList(2000 + 86_400_001, (PEERS[5],)), 2000)
    with pytest.raises(P2PError, match="at most 23"):
        own.change(PEERS[: MAX_DEVICES + 1], [], 3000)
    with pytest.raises(P2PError, match="only device"):
        own.change([], own.current.devices, 3000)
    assert own.adopt(DeviceList(1500, (PEERS[1],)), 2000)
    assert own.revoked
    with pytest.raises(DeviceRevokedError):
        own.change([PEERS[3]], [], 3000)


@pytest.mark.long
def test_devices_of_an_account_agree_and_a_revoked_one_publishes_nothing() -> None:
    """Linked: both are found. Revoked while it was away: it learns of it at its start, and nobody sees it again."""

    async def main(world: VirtualWorld) -> None:
        hub = make_node(world.host("10.0.0.66"), 66)
        await hub.start()
        alice = make_node(world.host("10.0.0.1"), 1, through=[hub])
        old, new = device(world, 2, [hub]), device(world, 3, [hub])
        for node in (alice, old):
            await node.start()
        assert await alice.find_user(ACCOUNT.user_id) == (old.peer_id,)
        both = await old.change_devices(add=[new.peer_id])
        assert both.number
        assert new.adopt_devices(both)  # linking hands it over
        await new.start()
        assert set(await alice.find_user(ACCOUNT.user_id)) == {old.peer_id, new.peer_id}
        await asyncio.sleep(9 * 3600)  # both refresh it, and neither undoes the other
        assert set(await alice.find_user(ACCOUNT.user_id)) == {old.peer_id, new.peer_id}
        assert old.own_devices.current == new.own_devices.current == both == alice.device_list(ACCOUNT.user_id)

        await new.stop()
        after = await old.change_devices(remove=[new.peer_id])
        assert await alice.find_user(ACCOUNT.user_id) == (old.peer_id,)
        lost = device(world, 4, [hub])
        lost = Node(key=new.key, account=ACCOUNT, settings=lost.settings, network=lost.network)
        lost.adopt_devices(both)  # what it remembers from before
        heard: list[Any] = []
        lost.subscribe(lambda event: heard.append(event) if isinstance(event, DevicesChanged) else None)
        await lost.start()
        await asyncio.sleep(60)
        assert heard == [DevicesChanged(after, True)]
        with pytest.raises(DeviceRevokedError):
            await lost.change_devices(add=[lost.peer_id])
        await asyncio.sleep(5 * 3600)
        assert await alice.find_user(ACCOUNT.user_id) == (old.peer_id,)
        for node in (lost, old, alice, hub):
            await node.stop()

    run_virtual(main, until=None, keep_trace=False)
