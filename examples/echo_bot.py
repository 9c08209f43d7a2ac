"""A bot that says back what it is told: `python examples/echo_bot.py HOME [ID@HOST:PORT]`. Prints its user id."""

import asyncio
import secrets
import sys
from pathlib import Path

import p2pnode as p
from p2pnode.chat import Chat, ChatEvent, ChatStore, MessageReceived


async def main(home: p.Home, *bootstrap: str) -> None:
    home.create()
    key = p.load_or_create_node_key(home.node_key, secrets.token_bytes)
    account = p.load_or_create_account_key(home.account_key, secrets.token_bytes)
    settings = p.NodeSettings(name="echo", bootstrap=tuple(p.parse_peer(text) for text in bootstrap))
    node = p.Node(key=key, account=account, settings=settings, network=p.RealNetwork())
    chat = Chat(node, await ChatStore.open(home.chat_db))

    def answer(event: ChatEvent) -> None:
        if isinstance(event, MessageReceived) and event.message.party == event.message.author_user:  # not in the hall
            chat.start_task(chat.post(event.message.party, f"You said: {event.message.text}"), "answer")

    chat.subscribe(answer)
    await chat.start()
    await node.start()
    print(node.user_id, flush=True)  # noqa: T201 - what it is for
    await asyncio.Event().wait()


asyncio.run(main(p.Home(Path(sys.argv[1]).absolute()), *sys.argv[2:]))
