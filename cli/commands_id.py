"""Commands about this installation: id, config, doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from p2pnode.cli import commands_backup, commands_devices
from p2pnode.cli.invocation import Invocation, invocation_of
from p2pnode.cli.options import JsonOption, examples

if TYPE_CHECKING:
    from p2pnode import Config

__all__ = ["add"]


def add(app: typer.Typer) -> None:
    """Register the commands."""
    identity = typer.Typer(
        rich_markup_mode=None, invoke_without_command=True,
        epilog=examples("p2pnode id", "p2pnode id --qr", "p2pnode --home /tmp/b id --json"),
    )  # fmt: skip
    identity.callback()(_id)
    identity.command(
        "passphrase", epilog=examples("p2pnode id passphrase", "p2pnode id passphrase --remove")
    )(_passphrase)  # fmt: skip
    commands_devices.add(identity)
    commands_backup.add(identity)
    app.add_typer(identity, name="id", help="Show the own ids and safety number; make the keys if there are none.")
    settings = typer.Typer(rich_markup_mode=None, no_args_is_help=True, epilog=examples("p2pnode config show"))
    settings.command("show", epilog=examples("p2pnode config show", "p2pnode config show --json"))(_config_show)
    settings.command("check", epilog=examples("p2pnode config check"))(_config_check)
    app.add_typer(settings, name="config", help="Show or check the settings and where each came from.")
    app.command("doctor", epilog=examples("p2pnode doctor", "p2pnode doctor --json"))(_doctor)


def _id(
    ctx: typer.Context,
    qr: Annotated[bool, typer.Option("--qr", help="Also draw the user id as a QR code.")] = False,
    json: JsonOption = None,
) -> None:
    """Show the own peer id, user id and safety number; make the keys if there are none."""
    if ctx.invoked_subcommand is not None:
        return
    invocation = invocation_of(ctx)
    config = invocation.config(json=json)
    node_key, account = invocation.keys(config)
    from p2pnode import own_safety_number

    peer_id, user_id, number = str(node_key.peer_id), str(account.user_id), own_safety_number(account.user_id)
    if invocation.json:
        _print_json(invocation, {"peer_id": peer_id, "user_id": user_id, "safety_number": number})
        return
    invocation.line(f"user id        {user_id}   (share this one)")
    invocation.line(f"peer id        {peer_id}   (this node)")
    invocation.line(f"safety number  {number}")
    if qr:
        import segno

        # Upper case: QR's alphanumeric mode is a third smaller, and bech32m reads either case.
        segno.make(user_id.upper(), micro=False).terminal(out=invocation.stdout, compact=True)


def _passphrase(
    ctx: typer.Context,
    remove: Annotated[bool, typer.Option("--remove", help="Store the keys unencrypted again.")] = False,
) -> None:
    """Encrypt the keys with a passphrase, change it, or remove it.

    The old one comes from P2PNODE_PASSPHRASE, --passphrase-file or a prompt; the new one from a prompt, or
    P2PNODE_NEW_PASSPHRASE.
    """
    import secrets

    from p2pnode.core.keyfile import change_passphrase

    invocation = invocation_of(ctx)
    config = invocation.config()
    with invocation.home.locked():
        invocation.keys(config)
        old = invocation.passphrase(config, "Old passphrase: ")
        new = None if remove else commands_backup.new_passphrase(invocation)
        change_passphrase(invocation.home.node_key, "node", secrets.token_bytes, old, new)
        change_passphrase(invocation.home.account_key, "account", secrets.token_bytes, old, new)
        messages = _follow_with_messages(invocation, new)
    invocation.line(f"{'The keys are stored unencrypted now' if remove else 'The keys are encrypted now'}{messages}")


def _follow_with_messages(invocation: Invocation, passphrase: str | None) -> str:
    """Encrypt the message database where the keys are encrypted, or make it plain again; return what to say of it."""
    import asyncio

    from p2pnode.chat import ChatStore, encryption_available
    from p2pnode.core.keyfile import load_node_key

    if passphrase is not None and not encryption_available():
        return "; the messages are not: that needs pip install 'p2pnode[encryption]'."
    if not invocation.home.chat_db.exists():
        return "."
    node_key = load_node_key(invocation.home.node_key, lambda: passphrase or "")

    async def convert() -> None:
        await (await ChatStore.open(invocation.home.chat_db, key=invocation.database_key(node_key))).close()

    asyncio.run(convert())
    return ", and so are the messages."


def _config_show(ctx: typer.Context, json: JsonOption = None) -> None:
    """Show every setting and where it came from."""
    invocation = invocation_of(ctx)
    config = invocation.config(json=json)
    if invocation.json:
        _print_json(invocation, {"home": str(invocation.home), "settings": _settings(config)})
        return
    from p2pnode.cli.output import table

    rows = [("home", str(invocation.home), "")]
    rows += [(name, _toml(s.shown), s.place) for name, s in config.settings.items()]
    for line in table(rows):
        invocation.line(line)


def _config_check(ctx: typer.Context, json: JsonOption = None) -> None:
    """Check config.toml and the environment; a wrong value is named with file, line and key."""
    invocation = invocation_of(ctx)
    config = invocation.config(json=json)
    if invocation.json:
        _print_json(invocation, {"valid": True, "file": str(invocation.home.config)})
        return
    given = sum(config.explicit(name) for name in config.settings)
    invocation.line(f"{invocation.home.config}: nothing wrong; {given} of {len(config.settings)} options are set.")


def _doctor(ctx: typer.Context, json: JsonOption = None) -> None:
    """Find out what is wrong with this installation, and how to mend it. Exit 1 when something is."""
    from p2pnode.cli.doctor import examine

    invocation = invocation_of(ctx)
    if json:
        invocation.json = True
    findings = examine(invocation)
    if invocation.json:
        checks = [{"check": f.check, "ok": f.ok, "message": f.message, "advice": f.advice} for f in findings]
        _print_json(invocation, {"ok": all(f.ok is not False for f in findings), "checks": checks})
    else:
        for finding in findings:
            mark = {True: "ok     ", False: "WRONG  ", None: "unknown"}[finding.ok]
            invocation.line(f"{mark}  {finding.check}: {finding.message}")
            if finding.advice and finding.ok is not True:
                invocation.line(f"         -> {finding.advice}")
    if any(f.ok is False for f in findings):
        raise typer.Exit(1)


def _settings(config: Config) -> dict[str, Any]:
    return {name: {"value": s.shown, "origin": s.origin, "place": s.place} for name, s in config.settings.items()}


def _toml(value: Any) -> str:
    import json

    return "-" if value is None else json.dumps(value, ensure_ascii=False)


def _print_json(invocation: Invocation, value: dict[str, Any]) -> None:
    import json

    invocation.line(json.dumps(value, ensure_ascii=False))
