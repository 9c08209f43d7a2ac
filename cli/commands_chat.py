"""Commands about people and messages: send, messages, history, contacts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from p2pnode.cli.commands_exchange import contacts_export, contacts_import
from p2pnode.cli.invocation import Invocation, invocation_of
from p2pnode.cli.offline import offline, party_of
from p2pnode.cli.options import JsonOption, PeerArgument, examples

if TYPE_CHECKING:
    from p2pnode import PeerId, UserId
    from p2pnode.api import types as t
    from p2pnode.chat import ChatStore

__all__ = ["add"]

T = TypeVar("T")
MAX_TEXT_BYTES = 15_000  # of one message, UTF-8; chat refuses more with the same sentence
_Limit = Annotated[str, typer.Option("--last", metavar="N", help="At most the newest N, to 10,000.")]


def add(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(
        "send",
        epilog=examples(
            'p2pnode send alice "on my way"', "p2pnode send alice hi --wait 0 --json", "date | p2pnode send alice -"
        ),
    )(_send)
    app.command("messages", epilog=examples("p2pnode messages", "p2pnode messages --follow --with alice --json"))(
        _messages
    )
    app.command(
        "history",
        epilog=examples(
            "p2pnode history alice",
            "p2pnode history alice --search train",
            "p2pnode history alice --keep 30 --disappear 1w",
        ),
    )(_history)
    contacts = typer.Typer(rich_markup_mode=None, no_args_is_help=True, epilog=examples("p2pnode contacts list"))
    contacts.command("list", epilog=examples("p2pnode contacts list", "p2pnode contacts list --json"))(_list)
    contacts.command("add", epilog=examples("p2pnode contacts add p2p1... --name alice"))(_add)
    contacts.command("remove", epilog=examples("p2pnode contacts remove alice"))(_remove)
    contacts.command("rename", epilog=examples("p2pnode contacts rename alice alice2"))(_rename)
    contacts.command("verify", epilog=examples("p2pnode contacts verify alice", "p2pnode contacts verify alice --yes"))(
        _verify
    )
    contacts.command("export", epilog=examples("p2pnode contacts export --output people.jsonl"))(contacts_export)
    contacts.command("import", epilog=examples("p2pnode contacts import people.jsonl"))(contacts_import)
    contacts.command("block", epilog=examples("p2pnode contacts block mallory", "p2pnode contacts block bob --undo"))(
        _block
    )
    app.add_typer(contacts, name="contacts", help="Petnames, requests, blocks; compare safety numbers.")


def _send(
    ctx: typer.Context,
    peer: PeerArgument,
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="At most 15,000 bytes; -: standard input.", show_default=False)
    ],
    wait: Annotated[
        str | None,
        typer.Option("--wait", metavar="S", help="Seconds to wait for the delivery (default 10).  [env: P2PNODE_WAIT]"),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Send one message; say whether it is delivered, stored or queued."""
    from p2pnode import MessageTooLongError
    from p2pnode.api import types as t
    from p2pnode.cli.output import usage_error

    invocation = invocation_of(ctx)
    config = invocation.config(json=json, wait=wait)
    _check_peer(peer)
    if text == "-":
        try:
            text = invocation.stdin.read(MAX_TEXT_BYTES + 1).rstrip("\r\n")
        except UnicodeDecodeError as exc:
            raise usage_error("The text is not valid UTF-8.") from exc
    size = len(text.encode("utf-8", "surrogateescape"))
    if size > MAX_TEXT_BYTES:
        raise MessageTooLongError(f"The message has {size:,} bytes; at most {MAX_TEXT_BYTES:,} can be sent at once.")
    if not text.strip():
        raise usage_error("The text is empty.")
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise usage_error("The text is not valid UTF-8.")
    client = invocation.client()
    with invocation.progress(f"Sending to {peer}"):
        answer = client.post(
            "/v1/messages", t.SendAnswer, t.SendRequest(peer, text, config["wait"]), timeout=config["wait"] + 15
        )
    where = f" to {answer.devices} device{'s' if answer.devices != 1 else ''}" if answer.delivered else ""
    why = f" ({answer.reason.replace('_', ' ')})" if answer.reason and not answer.delivered else ""
    invocation.emit(answer, f"{answer.state}{why}{where} in {answer.seconds:.3f} s")


def _messages(
    ctx: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with new ones as they come.")] = False,
    with_: Annotated[str | None, typer.Option("--with", metavar="PEER", help="Only with this peer.")] = None,
    last: _Limit = "100",
    json: JsonOption = None,
) -> None:
    """Show the newest messages; with --follow those that come from now on."""
    from p2pnode.api import types as t

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    if with_ is not None:
        _check_peer(with_)
    limit = _limit(last)
    query = t.MessagesQuery(with_, limit)
    if follow:
        for message in invocation.client().follow("/v1/messages/follow", t.Message, query):
            _print(invocation, message)
        return
    from p2pnode.api import people

    if invocation.home.holder() is not None:
        answer = invocation.client().get("/v1/messages", t.Messages, query)
    else:

        async def read(store: ChatStore, own: PeerId, user: UserId) -> t.Messages:
            party = None if with_ is None else await party_of(store, with_, own, user)
            return await people.messages_answer(store, own, party=party, limit=limit)

        answer = offline(invocation, read)
    _print_all(invocation, answer)


def _history(
    ctx: typer.Context,
    peer: PeerArgument,
    search: Annotated[
        str | None, typer.Option("--search", metavar="TEXT", help="Only messages that contain TEXT.")
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option("--keep", metavar="DAYS", help="Keep it so long from now on: days, forever, default."),
    ] = None,
    disappear: Annotated[
        str | None,
        typer.Option("--disappear", metavar="TIME", help="New messages disappear on both sides: 1h, 1d, 1w, or off."),
    ] = None,
    last: _Limit = "1000",
    json: JsonOption = None,
) -> None:
    """Show a conversation; or say how long it is kept, and whether its messages disappear."""
    from p2pnode.api import people
    from p2pnode.api import types as t

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    _check_peer(peer)
    limit = _limit(last)
    if keep is not None or disappear is not None:
        _change(invocation, peer, keep, disappear)
        return
    if invocation.home.holder() is not None:
        answer = invocation.client().get("/v1/history", t.Messages, t.HistoryQuery(peer, search, limit))
    else:

        async def read(store: ChatStore, own: PeerId, user: UserId) -> t.Messages:
            return await people.history_answer(
                store, own, await party_of(store, peer, own, user), search=search, limit=limit
            )

        answer = offline(invocation, read)
    _print_all(invocation, answer)


def _list(ctx: typer.Context, json: JsonOption = None) -> None:
    """List contacts and requests."""
    from p2pnode.api import people
    from p2pnode.api import types as t
    from p2pnode.cli.output import table

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    if invocation.home.holder() is not None:
        answer = invocation.client().get("/v1/contacts", t.Contacts)
    else:
        answer = offline(invocation, lambda store, _own, _user: people.contacts_answer(store))
    rows = [("NAME", "STATE", "VERIFIED", "ID")]
    rows += [(c.name or "-", c.state, "yes" if c.verified else "no", c.user or c.peer or "-") for c in answer.contacts]
    invocation.emit(
        answer, *(table(rows) if answer.contacts else ["No contacts yet; add one: p2pnode contacts add ID"])
    )


def _add(
    ctx: typer.Context,
    peer: PeerArgument,
    name: Annotated[str, typer.Option("--name", metavar="N", help="What you call them.")] = "",
    json: JsonOption = None,
) -> None:
    """Add a peer to the contacts, or accept its request."""
    from p2pnode.api import types as t

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    _check_peer(peer)
    contact = invocation.client().post("/v1/contacts", t.Contact, t.ContactAdd(peer, _name(name)))
    invocation.emit(contact, f"{contact.name or contact.user or contact.peer} is a contact now.")


def _remove(ctx: typer.Context, peer: PeerArgument, json: JsonOption = None) -> None:
    """Forget a contact; the history stays."""
    from p2pnode.api import types as t

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    _check_peer(peer)
    done = invocation.client().delete("/v1/contacts", t.Done, t.ContactQuery(peer))
    invocation.emit(done, f"{peer} is no contact any more.")


def _rename(
    ctx: typer.Context,
    peer: PeerArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new name.", show_default=False)],
    json: JsonOption = None,
) -> None:
    """Give a contact another name."""
    from p2pnode.api import types as t
    from p2pnode.cli.output import usage_error

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    _check_peer(peer)
    if not name.strip():
        raise usage_error("The new name is empty.")
    contact = invocation.client().patch("/v1/contacts", t.Contact, t.ContactChange(peer, name=_name(name)))
    invocation.emit(contact, f"{peer} is called {contact.name} now.")


def _verify(
    ctx: typer.Context,
    peer: PeerArgument,
    yes: Annotated[bool, typer.Option("--yes", help="The numbers were compared and agree.")] = False,
    no: Annotated[bool, typer.Option("--no", help="Take that back.")] = False,
    json: JsonOption = None,
) -> None:
    """Show the safety number to compare over another channel; note the outcome."""
    from p2pnode.api import types as t
    from p2pnode.cli.output import usage_error

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    _check_peer(peer)
    if yes and no:
        raise usage_error("--yes and --no exclude each other.")
    client = invocation.client()
    contact = client.get("/v1/contacts/one", t.Contact, t.ContactQuery(peer))
    if not (yes or no) and not invocation.json and invocation.stdin.isatty():
        invocation.line(f"Safety number with {contact.name or peer}:\n  {contact.safety_number}")
        yes = typer.confirm("Does the other side see the same digits?", default=False)
        no = not yes
    if yes or no:
        contact = client.patch("/v1/contacts", t.Contact, t.ContactChange(peer, verified=yes))
    state = "verified" if contact.verified else "not verified; when both numbers agree: --yes"
    invocation.emit(contact, f"{contact.name or peer}: {contact.safety_number or 'no user id known yet'}", state)


def _block(
    ctx: typer.Context,
    peer: PeerArgument,
    undo: Annotated[bool, typer.Option("--undo", help="End the block.")] = False,
    json: JsonOption = None,
) -> None:
    """Block somebody everywhere: no session, no message."""
    from p2pnode.api import types as t

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    _check_peer(peer)
    contact = invocation.client().post("/v1/contacts/block", t.Contact, t.Block(peer, not undo))
    invocation.emit(contact, f"{contact.name or peer} is {'blocked' if contact.state == 'blocked' else 'not blocked'}.")


# Parts


def _change(invocation: Invocation, peer: str, keep: str | None, disappear: str | None) -> None:
    """Do `history --keep` and `--disappear`."""
    from p2pnode.api import keeping_types as k
    from p2pnode.chat.keeping.text import days_of, keep_text, seconds_of, span_text
    from p2pnode.cli.output import usage_error

    try:
        days = None if keep is None else days_of(keep)
        seconds = None if disappear is None else seconds_of(disappear)
    except ValueError as exc:
        raise usage_error(f"{str(exc)[:1].upper()}{str(exc)[1:]}.") from exc
    wanted = None if keep is None else -1 if days is None else days
    client = invocation.client()
    found = client.patch("/v1/conversations", k.ConversationInfo, k.ConversationChange(peer, wanted, seconds))
    lines = []
    if keep is not None:
        default = client.get("/v1/conversations", k.Conversations).keep_days_all
        lines.append(f"Messages with {found.name} are kept {keep_text(found.keep_days, default)}.")
    if disappear is not None:
        rule = f"disappear {span_text(found.disappear_s)} after they were read" if found.disappear_s else "stay"
        lines.append(f"New messages with {found.name} {rule}{', as agreed' if found.agreed else ''}.")
    invocation.emit(found, *lines)


def _check_peer(peer: str) -> None:
    from p2pnode import parse_peer

    parse_peer(peer)


def _limit(text: str) -> int:
    from p2pnode.cli.output import usage_error

    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= 10_000:
        raise usage_error(f"--last: {text[:40]!r} is not a number from 1 to 10,000")
    return int(text)


def _name(name: str) -> str:
    from p2pnode import clean_name
    from p2pnode.cli.output import usage_error

    if name and clean_name(name) != name.strip():
        raise usage_error(f"{clean_name(name)!r} is all that is left of this name: 1 to 32 characters, no / \\ @ :")
    return name.strip()


def _print_all(invocation: Invocation, answer: t.Messages) -> None:
    if invocation.json:
        invocation.emit(answer)
        return
    for message in answer.messages:
        _print(invocation, message)


def _print(invocation: Invocation, message: t.Message) -> None:
    from p2pnode import clean

    who = "you" if message.direction == "out" else message.from_name or (message.from_user or message.from_)[-6:]
    to = f" -> {message.to if message.to == 'hall' else message.to[-6:]}" if message.direction == "out" else ""
    who += f" (told by {message.told_by[-6:]})" if message.told_by else ""
    mark = "" if message.state in ("received", "delivered", "read") else f"  [{message.state}]"
    text = clean(message.text, limit=20_000)
    invocation.emit(message, f"{message.sent_at}  {clean(who, limit=64)}{to}: {text}{mark}")
