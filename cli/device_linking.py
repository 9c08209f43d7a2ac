"""`p2pnode id link CODE`: this home becomes a device of another's account. A node is made for as long as it takes."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from p2pnode import AccountKey, Config, LinkCodeError, Node, NodeKey, NodeSettings, RealNetwork
from p2pnode.chat import LinkCode, Linked, link_account
from p2pnode.cli.commands_run import settings_of
from p2pnode.cli.run import loop_factory
from p2pnode.core.backup import replace_key
from p2pnode.core.keyfile import is_encrypted

if TYPE_CHECKING:
    from p2pnode.cli.invocation import Invocation

__all__ = ["link_this_home"]


class LinkAnswer(msgspec.Struct):
    """What `id link CODE --json` prints. `devices`: how many the account has now. `kept`: where the old key went."""

    linked: bool
    user_id: str
    peer_id: str
    devices: int
    kept: str = ""


def link_this_home(invocation: Invocation, config: Config, code: LinkCode) -> None:
    """Do it and say so. Raise LinkCodeError, HomeInUseError, P2PError."""
    settings = settings_of(config, "peer", network_secret=invocation.network_secret(config), records_db="")
    listen = settings.listen if settings.listen_explicit else tuple(each._replace(port=0) for each in settings.listen)
    settings = replace(settings, listen=listen, relay=False, tcp=())
    invocation.set_up_log(config)
    invocation.home.lock()
    try:
        key, account = invocation.keys(config)
        with asyncio.Runner(loop_factory=loop_factory()) as runner, invocation.progress("Linking this device"):
            answer = runner.run(_link(invocation, config, settings, key, account, code))
    finally:
        invocation.home.unlock()
    others = f"{answer.devices - 1} other{'s' if answer.devices > 2 else ''}"
    lines = [f"This device belongs to {answer.user_id} now, with {others}. Start it with: p2pnode join NAME"]
    if answer.kept:
        lines.append(f"The account that was here is kept in {answer.kept}.")
    invocation.emit(answer, *lines)


async def _link(
    invocation: Invocation, config: Config, settings: NodeSettings, key: NodeKey, account: AccountKey, code: LinkCode
) -> LinkAnswer:
    home, network = invocation.home, RealNetwork()
    if code.peer == key.peer_id:
        raise LinkCodeError("That code was made by this very home; use it on the other device.")
    node = Node(key=key, account=account, settings=settings, network=network, state_path=home.state)
    kept = ""

    async def keep(linked: Linked) -> None:
        nonlocal kept
        node.remember_account(linked.account.user_id, linked.devices)
        if linked.account.user_id == account.user_id:
            return  # it was one of the account's devices before
        passphrase = invocation.passphrase(config)() if is_encrypted(home.account_key) else None
        aside = home.account_key.with_name(f"account-{str(account.user_id)[-6:]}.key")
        replace_key(home.account_key, linked.account, secrets.token_bytes, passphrase, aside=aside)
        kept = aside.name

    await node.start()
    try:
        linked = await link_account(node, code, keep)
    finally:
        await node.stop()
    return LinkAnswer(True, str(linked.account.user_id), str(key.peer_id), len(linked.devices.devices), kept)
