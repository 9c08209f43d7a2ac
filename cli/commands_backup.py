"""`p2pnode id export`, `id import`: the keys of this device as an encrypted backup."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from p2pnode.cli.invocation import Invocation, invocation_of
from p2pnode.cli.options import JsonOption, examples

__all__ = ["add", "new_passphrase"]

_File = Annotated[str, typer.Argument(metavar="FILE", help="The backup.", show_default=False)]


def add(identity: typer.Typer) -> None:
    """Register the commands under `id`."""
    identity.command("export", epilog=examples("p2pnode id export keys.backup"))(_export)
    identity.command("import", epilog=examples("p2pnode --home ~/new id import keys.backup"))(_import)


def new_passphrase(invocation: Invocation) -> str:
    """Return the new passphrase: P2PNODE_NEW_PASSPHRASE, or asked for twice. Raise KeyFileError."""
    given = invocation.environ.get("P2PNODE_NEW_PASSPHRASE", "")
    if given:
        return given
    from p2pnode import KeyFileError

    if not invocation.stdin.isatty():
        raise KeyFileError("No new passphrase: run this on a terminal, or set P2PNODE_NEW_PASSPHRASE.")
    import getpass

    first = getpass.getpass("New passphrase: ", stream=invocation.stderr)
    if not first or first != getpass.getpass("Once more: ", stream=invocation.stderr):
        raise KeyFileError("The new passphrase is empty or the two differ; nothing was changed.")
    return first


def _export(ctx: typer.Context, file: _File, json: JsonOption = None) -> None:
    """Write this device's keys, encrypted with a passphrase, to a new file. Messages: p2pnode export.

    The backup's passphrase comes from a prompt or P2PNODE_NEW_PASSPHRASE.
    """
    import secrets

    from p2pnode.core.backup import write_backup

    invocation = invocation_of(ctx)
    config = invocation.config(json=json)
    node, account = invocation.keys(config)
    write_backup(Path(file).expanduser(), node, account, secrets.token_bytes, new_passphrase(invocation))
    _say(invocation, {"exported": str(file), "user_id": str(account.user_id), "peer_id": str(node.peer_id)},
         f"The keys of {account.user_id} are in {file}; without its passphrase they are lost.")  # fmt: skip


def _import(ctx: typer.Context, file: _File, json: JsonOption = None) -> None:
    """Make this home the device that a backup was made of; keys that are here are kept beside.

    The backup's passphrase comes from P2PNODE_PASSPHRASE, --passphrase-file or a prompt. The device that the backup was
    made of must not run any more: of two with one key the older one stops.
    """
    import secrets

    from p2pnode.core.backup import read_backup, replace_key

    invocation = invocation_of(ctx)
    config = invocation.config(json=json)
    home, kept = invocation.home, []
    with home.locked():
        node, account = read_backup(
            Path(file).expanduser(), invocation.passphrase(config, "Passphrase of the backup: ")
        )
        for key, path in ((node, home.node_key), (account, home.account_key)):
            aside = path.with_name(f"{path.stem}-{secrets.token_hex(3)}.key")
            if replace_key(path, key, secrets.token_bytes, None, aside=aside):
                kept.append(aside.name)
        home.restored(account.user_id, node.peer_id)
    lines = [f"This home is the device {node.peer_id} of {account.user_id} now."]
    lines += [f"The keys that were here are kept in {' and '.join(kept)}."] if kept else []
    lines += ["The keys are stored unencrypted here; p2pnode id passphrase encrypts them."]
    _say(invocation, {"imported": str(file), "user_id": str(account.user_id), "peer_id": str(node.peer_id),
                      "kept": kept}, *lines)  # fmt: skip


def _say(invocation: Invocation, answer: dict[str, object], *lines: str) -> None:
    import json

    if invocation.json:
        invocation.line(json.dumps(answer, ensure_ascii=False))
    else:
        for line in lines:
            invocation.line(line)
