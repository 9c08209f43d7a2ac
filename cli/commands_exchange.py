"""Commands that take the history and the contacts elsewhere: export, import, contacts export, contacts import."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, BinaryIO, TextIO, TypeVar

import typer

from p2pnode.cli.invocation import Invocation, invocation_of
from p2pnode.cli.options import JsonOption, examples

if TYPE_CHECKING:
    from collections.abc import Callable

    from p2pnode import PeerId, UserId
    from p2pnode.chat import ChatStore, ExportedContact, ExportedMessage

__all__ = ["add", "contacts_export", "contacts_import"]

T = TypeVar("T")
HEAD = {"history": b'{"p2pnode":"history","format":1}', "contacts": b'{"p2pnode":"contacts","format":1}'}
BATCH = 500  # lines in one transaction
BATCH_BYTES = 60_000  # of one request
_Output = Annotated[
    str | None, typer.Option("--output", metavar="FILE", help="Write a new file, for you alone; default: print.")
]
_File = Annotated[str, typer.Argument(metavar="FILE", help="An export; -: standard input.", show_default=False)]


def add(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(
        "export",
        epilog=examples(
            "p2pnode export --output history.jsonl            everything, to be imported again",
            "p2pnode export --with alice --format markdown    one conversation, to be read",
        ),
    )(_export)
    app.command("import", epilog=examples("p2pnode import history.jsonl"))(_import)


def _export(
    ctx: typer.Context,
    with_: Annotated[str | None, typer.Option("--with", metavar="PEER", help="Only with this peer.")] = None,
    format_: Annotated[str, typer.Option("--format", metavar="json|markdown", help="Default: json.")] = "json",
    output: _Output = None,
    json: JsonOption = None,
) -> None:
    """Give the history as JSON, a message per line, or as Markdown. What will disappear is left out."""
    from p2pnode import parse_peer
    from p2pnode.chat import markdown_of
    from p2pnode.cli.output import usage_error

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    if format_ not in ("json", "markdown"):
        raise usage_error(f"--format: {format_[:40]!r} is none of json, markdown")
    if with_ is not None:
        parse_peer(with_)
    messages = _messages(invocation, with_)
    with _out(invocation, output) as out:
        if format_ == "json":
            _write(out, HEAD["history"], messages)
            return
        names, previous = _names(invocation), None
        for message in messages:
            out.write(markdown_of(message, previous, names.get(message.with_, message.with_)))
            previous = message


def _import(ctx: typer.Context, file: _File, json: JsonOption = None) -> None:
    """Take the messages of an export into the history. What is there already is passed over; nothing is sent."""
    from p2pnode.api import keeping_types as t
    from p2pnode.chat import import_messages, read_line

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    running = invocation.home.holder() is not None
    imported = total = 0
    with _lines(invocation, file, HEAD["history"], read_line) as lines, invocation.progress(f"Reading {file}"):
        if running:
            client = invocation.client()
            for batch in _batches(lines):
                answer = client.post("/v1/import", t.Imported, t.HistoryImport(batch), timeout=60.0)
                imported, total = imported + answer.imported, total + len(batch)
        else:
            from p2pnode.cli.offline import offline

            async def work(store: ChatStore, _own: PeerId, _user: UserId) -> tuple[int, int]:
                done = seen = 0
                for batch in _batches(lines):
                    done += await import_messages(store, batch, int(time.time() * 1000))
                    seen += len(batch)
                return done, seen

            imported, total = offline(invocation, work, write=True)
    known = total - imported
    invocation.emit(t.Imported(imported), f"{imported} messages are new; {known} of {total} were here already.")


def contacts_export(ctx: typer.Context, output: _Output = None, json: JsonOption = None) -> None:
    """Give the contacts as JSON, a person per line, to take them elsewhere or hand them on."""
    from p2pnode.api import keeping_types as t
    from p2pnode.chat import export_people
    from p2pnode.cli.offline import offline

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    if invocation.home.holder() is not None:
        contacts = invocation.client().get("/v1/contacts/export", t.ExportedContacts).contacts
    else:
        contacts = offline(invocation, lambda store, _own, _user: export_people(store))
    with _out(invocation, output) as out:
        _write(out, HEAD["contacts"], contacts)


def contacts_import(
    ctx: typer.Context,
    file: _File,
    verified: Annotated[
        bool, typer.Option("--verified", help="The file is your own: believe it whose safety numbers were compared.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Add the people of an export. Nobody is renamed, unblocked or removed."""
    from p2pnode.api import keeping_types as t
    from p2pnode.chat import import_people, read_contact
    from p2pnode.cli.offline import offline

    invocation = invocation_of(ctx)
    invocation.config(json=json)
    with _lines(invocation, file, HEAD["contacts"], read_contact) as lines:
        people: list[ExportedContact] = list(lines)
    imported = 0
    if invocation.home.holder() is not None:
        client = invocation.client()
        for batch in _batches(people):
            answer = client.post("/v1/contacts/import", t.Imported, t.ContactsImport(batch, verified), timeout=60.0)
            imported += answer.imported
    else:

        async def work(store: ChatStore, _own: PeerId, user: UserId) -> int:
            now = int(time.time() * 1000)
            return int(await import_people(store, people, now, own=user, verified=verified))

        imported = offline(invocation, work, write=True)
    invocation.emit(t.Imported(imported), f"{imported} of {len(people)} people are new, or have a name now.")


def _messages(invocation: Invocation, with_: str | None) -> Iterable[ExportedMessage]:
    from p2pnode.api import keeping_types as t

    if invocation.home.holder() is not None:
        return invocation.client().follow("/v1/export", t.ExportedMessage, t.ExportQuery(with_))
    from p2pnode.chat import export_messages
    from p2pnode.cli.offline import offline, party_of

    async def work(store: ChatStore, own: PeerId, user: UserId) -> list[ExportedMessage]:
        party = None if with_ is None else await party_of(store, with_, own, user)
        return [message async for message in export_messages(store, party)]

    return offline(invocation, work)


def _names(invocation: Invocation) -> dict[str, str]:
    from p2pnode import clean_name
    from p2pnode.api import people
    from p2pnode.api import types as t
    from p2pnode.cli.offline import offline

    if invocation.home.holder() is not None:
        answer = invocation.client().get("/v1/contacts", t.Contacts)
    else:
        answer = offline(invocation, lambda store, _own, _user: people.contacts_answer(store))
    names = {key: clean_name(c.name) for c in answer.contacts for key in (c.user, c.peer) if key and c.name}
    return {"hall": "The hall", **names}


@contextlib.contextmanager
def _out(invocation: Invocation, output: str | None) -> Iterator[TextIO]:
    """Standard output, or a new file of mode 0600. Raise StorageError."""
    from p2pnode import StorageError

    if output is None:
        yield invocation.stdout
        invocation.stdout.flush()
        return
    try:
        fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8", newline="\n") as file:
            yield file
    except FileExistsError as exc:
        raise StorageError(f"{output} is there already; choose another name.") from exc
    except OSError as exc:
        raise StorageError(f"{output} cannot be written: {exc.strerror}.") from exc


def _write(out: TextIO, head: bytes, items: Iterable[object]) -> None:
    import msgspec

    out.write(head.decode() + "\n")
    for item in items:
        out.write(msgspec.json.encode(item).decode() + "\n")


@contextlib.contextmanager
def _lines(invocation: Invocation, file: str, head: bytes, read: Callable[[bytes], T]) -> Iterator[Iterator[T]]:
    """Give what an export holds. Raise InvalidConfigError, which names file and line."""
    from p2pnode import InvalidConfigError

    try:
        with contextlib.ExitStack() as stack:
            source: BinaryIO = invocation.stdin.buffer if file == "-" else stack.enter_context(open(file, "rb"))
            yield _parsed(source, file, head, read)
    except OSError as exc:
        raise InvalidConfigError(f"{file} cannot be read: {exc.strerror}.", key="FILE") from exc


def _parsed(source: BinaryIO, file: str, head: bytes, read: Callable[[bytes], T]) -> Iterator[T]:
    from p2pnode import InvalidConfigError
    from p2pnode.chat import MAX_LINE_BYTES, BadLineError

    first = source.readline(MAX_LINE_BYTES).strip()
    if first != head:
        kind = "one of a newer p2pnode" if first.startswith(head.split(b",")[0]) else "none that p2pnode wrote"
        raise InvalidConfigError(f"{file} is no export to be read here, but {kind}.", file=file, line=1)
    number = 1
    while line := source.readline(MAX_LINE_BYTES + 1):
        number += 1
        if not line.strip():
            continue
        try:
            yield read(line)
        except BadLineError as exc:
            raise InvalidConfigError(f"{file}, line {number}: {exc}.", file=file, line=number) from exc


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    """Cut into pieces that fit into one request and one transaction."""
    import msgspec

    batch: list[T] = []
    size = 0
    for item in items:
        length = len(msgspec.json.encode(item))
        if batch and (len(batch) >= BATCH or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += length
    if batch:
        yield batch
