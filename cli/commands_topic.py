"""Commands about topics: announce this node under a name, see who else is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from p2pnode.cli.invocation import invocation_of
from p2pnode.cli.options import JsonOption, examples
from p2pnode.cli.output import age, table

if TYPE_CHECKING:
    from p2pnode.api.topic_types import TopicMembers
    from p2pnode.cli.invocation import Invocation

__all__ = ["add"]

_READ_S = 60.0  # a topic of thousands is read in some seconds
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The topic: any text, known to who looks for it.")]


def add(app: typer.Typer) -> None:
    """Register the commands."""
    topic = typer.Typer(rich_markup_mode=None, no_args_is_help=True, epilog=examples("p2pnode topic list chess"))
    topic.command("announce", epilog=examples("p2pnode topic announce chess 'looking for a game'"))(_announce)
    topic.command("withdraw", epilog=examples("p2pnode topic withdraw chess"))(_withdraw)
    topic.command(
        "list", epilog=examples("p2pnode topic list", "p2pnode topic list chess", "p2pnode topic list chess --json")
    )(_list)  # fmt: skip
    app.add_typer(topic, name="topic", help="Announce this node under a name, and find others that did.")


def _announce(
    ctx: typer.Context,
    name: NameArgument,
    text: Annotated[
        str, typer.Argument(metavar="[TEXT]", help="What others see; the node's name when it is missing.")
    ] = "",
    json: JsonOption = None,
) -> None:
    """Announce this node under a topic until it is withdrawn or the node stops."""
    from p2pnode.api import topic_types as t

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    _check(name)
    client = invocation.client()
    with invocation.progress(f"Announcing under {name}"):
        answer = client.post("/v1/topics", t.TopicAnnounced, t.TopicAnnounce(name, text), timeout=_READ_S)
    where = f"{answer.stored} nodes hold it" if answer.stored else "no other node holds it yet; it is tried again"
    invocation.emit(answer, f"Announced, {where}; {answer.seconds:.2f} s.")


def _withdraw(ctx: typer.Context, name: NameArgument, json: JsonOption = None) -> None:
    """Withdraw what this node announced under a topic."""
    from p2pnode.api import topic_types as t
    from p2pnode.api.types import Done

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    _check(name)
    invocation.emit(invocation.client().delete("/v1/topics", Done, t.TopicQuery(name), timeout=_READ_S), "Withdrawn.")


def _list(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="The topic; without it: what this node announced.")
    ] = "",
    sample: Annotated[
        str | None, typer.Option("--sample", metavar="N", help="N members at random.  [env: P2PNODE_SAMPLE]")
    ] = None,
    json: JsonOption = None,
) -> None:
    """List who announced itself under a topic; without NAME, what this node announced."""
    from p2pnode.api import topic_types as t

    invocation = invocation_of(ctx)
    config = invocation.config(json=json, sample=sample)
    client = invocation.client()
    if not name:
        own = client.get("/v1/topics", t.TopicsAnnounced)
        invocation.emit(own, *table([(each.topic, each.text) for each in own.topics]))
        return
    _check(name)
    query = t.TopicMembersQuery(name, sample=config["sample"] or None)
    with invocation.progress(f"Reading {name}"):
        found = client.get("/v1/topics/members", t.TopicMembers, query, timeout=_READ_S)
    _show(invocation, found, sampled=bool(config["sample"]))


def _show(invocation: Invocation, found: TopicMembers, *, sampled: bool) -> None:
    rows = [(each.peer, age(each.age_s), each.text + (" (this node)" if each.own else "")) for each in found.members]
    invocation.emit(found, *table(rows))
    if not found.answered:
        invocation.note("No other node could be asked.")
    elif not sampled and not found.complete:
        invocation.note(f"Not all: about {found.population} are announced.")


def _check(name: str) -> None:
    from p2pnode.cli.output import usage_error

    if not 1 <= len(name) <= 200:
        raise usage_error("The name of a topic has 1 to 200 characters.")
