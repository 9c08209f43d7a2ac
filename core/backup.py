"""Backups of a device's keys, and keys that take the place of others.

A backup is the node's key file and the account's, one after the other, both encrypted with one passphrase as
`core.keyfile` does it. Nothing is overwritten: a backup needs a new name, and a key that is replaced is kept beside.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from p2pnode.core.atomic import create_file, replace_file
from p2pnode.core.errors import KeyFileError, StorageError
from p2pnode.core.keyfile import KdfCost, key_text, parse_key, read_key_text
from p2pnode.core.keys import AccountKey, NodeKey

__all__ = ["read_backup", "replace_key", "write_backup"]

_SECOND = "p2pnode account key:"  # begins the second part


def write_backup(
    path: Path,
    node: NodeKey,
    account: AccountKey,
    token_bytes: Callable[[int], bytes],
    passphrase: str,
    *,
    cost: KdfCost | None = None,
) -> None:
    """Write both keys, encrypted, to a new file of mode 0600. Raise KeyFileError, StorageError (also: it exists)."""
    cost = cost or KdfCost()
    text = "".join(key_text(path, key, token_bytes, passphrase, cost=cost) for key in (node, account))
    try:
        created = create_file(path, text.encode("ascii"), token_bytes)
    except OSError as exc:
        raise StorageError(f"The backup {path} cannot be written: {exc.strerror}.", path=str(path)) from exc
    if not created:
        raise StorageError(f"{path} exists already; nothing was written. Choose another name.", path=str(path))


def read_backup(path: Path, passphrase: Callable[[], str]) -> tuple[NodeKey, AccountKey]:
    """Return the keys of a backup. Raise KeyFileError: no backup, damaged, open to others, wrong passphrase."""
    text = read_key_text(path)
    first, mark, second = text.partition(_SECOND)
    if not mark or not first.startswith("p2pnode node key:"):
        raise KeyFileError(f"{path} is no backup of `p2pnode id export`.", path=str(path))
    node = parse_key(path, first, "node", passphrase)
    account = parse_key(path, mark + second, "account", passphrase)
    if not isinstance(node, NodeKey) or not isinstance(account, AccountKey):
        raise KeyFileError(f"{path} is no backup of `p2pnode id export`.", path=str(path))
    return node, account


def replace_key(
    path: Path,
    key: NodeKey | AccountKey,
    token_bytes: Callable[[int], bytes],
    passphrase: str | None,
    *,
    aside: Path,
    cost: KdfCost | None = None,
) -> bool:
    """Put a key into `path`, encrypted when there is a `passphrase`; a file that is there goes to `aside` first. Return
    whether there was one. After any failure `path` is as it was. Raise KeyFileError, StorageError.
    """
    text = key_text(path, key, token_bytes, passphrase, cost=cost or KdfCost())
    parse_key(path, text, "node" if isinstance(key, NodeKey) else "account", lambda: passphrase or "")
    old = path.exists()
    try:
        if old:
            kept = read_key_text(path).encode("ascii")
            if not create_file(aside, kept, token_bytes) and aside.read_bytes() != kept:
                raise StorageError(f"{aside} is in the way of the old key; move it elsewhere.", path=str(aside))
        replace_file(path, text.encode("ascii"), token_bytes)
    except OSError as exc:
        raise StorageError(f"The key file {path} cannot be written: {exc.strerror}.", path=str(path)) from exc
    return old
