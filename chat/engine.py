"""Which SQLite a database is opened with: the plain one, or SQLCipher (extra `encryption`) for an encrypted file.

A file tells by its first bytes which it is, so a change from one to the other may break off anywhere: either the old
file is there whole, or the new one. The key is made from the node's key, which a passphrase protects by Argon2id, so
there is no second secret to lose. Everything in the file is encrypted, page by page: texts, indexes, names, who and
when; and so are its write-ahead log and its copies.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from p2pnode import NodeKey, StorageError

__all__ = ["DatabaseKey", "MissingEngineError", "connect", "encryption_available", "errors", "is_plain", "prepare"]

HEADER = b"SQLite format 3\0"
BUSY_MS = 2000  # how long to wait for another process (`history` beside a running node)
_INFO = b"p2pnode/1/chat.db"


class MissingEngineError(StorageError):
    """The database is encrypted, and what reads it is not installed."""

    code = "missing_package"


@dataclass(frozen=True, slots=True)
class DatabaseKey:
    """32 bytes for the file of one node. `wanted`: it is to be encrypted from now on; else to be plain."""

    raw: bytes = field(repr=False)
    wanted: bool

    @classmethod
    def of(cls, key: NodeKey, *, wanted: bool) -> DatabaseKey:
        """Return the key of a node's database: HKDF-SHA256 of its seed (RFC 5869)."""
        return cls(HKDF(SHA256(), 32, None, _INFO).derive(key.seed), wanted)


def encryption_available() -> bool:
    """Whether encrypted files can be opened here."""
    return _cipher() is not None


def errors() -> tuple[type[Exception], ...]:
    """Return what connections raise."""
    cipher = _cipher()
    return (sqlite3.Error,) if cipher is None else (sqlite3.Error, cipher.Error)


def is_plain(path: Path) -> bool:
    """Whether a file is one that the plain SQLite reads."""
    with path.open("rb") as file:
        return file.read(len(HEADER)) == HEADER


def connect(target: str | Path, key: bytes | None, *, uri: bool = False) -> sqlite3.Connection:
    """Open a connection in autocommit. `key`: of an encrypted file. Both kinds have the same methods."""
    if key is None:
        return sqlite3.connect(target, uri=uri, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1000)
    cipher = _needed()
    connection = cipher.connect(
        str(target), uri=uri, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1000
    )
    connection.execute("PRAGMA cipher_log_level = NONE")  # it would write to standard error, over the screen
    connection.execute(f"PRAGMA key = \"x'{key.hex()}'\"")
    return cast("sqlite3.Connection", connection)


def prepare(path: Path, key: DatabaseKey | None, *, read_only: bool) -> bytes | None:
    """Return what a file is to be opened with, None: plain. What is not as it is wanted is changed before, with its
    older copies. Raise MissingEngineError, `errors()`, OSError."""
    exists = path.exists() and path.stat().st_size > 0
    if key is None:
        return None
    if not exists:
        return key.raw if key.wanted and encryption_available() else None
    plain = is_plain(path)
    if not plain and not encryption_available() and key.wanted:
        _needed()
    if read_only or plain is not key.wanted or not encryption_available():
        return None if plain else key.raw
    old, new = (None, key.raw) if plain else (key.raw, None)
    for copy in [*sorted(path.parent.glob(f"{path.stem}-v*{path.suffix}")), path]:
        if is_plain(copy) is plain:
            _convert(copy, old, new)
    return new


def _convert(path: Path, old: bytes | None, new: bytes | None) -> None:
    """Write a file anew under another key, then put it in the old one's place."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    cipher = _needed()
    connection = connect(path, old) if old is not None else cipher.connect(str(path), isolation_level=None)
    try:
        # the log of the old file must not be found beside the new one
        connection.execute("PRAGMA journal_mode = DELETE")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        words = "''" if new is None else f"\"x'{new.hex()}'\""
        connection.execute(f"ATTACH DATABASE ? AS converted KEY {words}", (str(part),))
        connection.execute("PRAGMA converted.synchronous = FULL")
        connection.execute("SELECT sqlcipher_export('converted')").fetchall()
        connection.execute(f"PRAGMA converted.user_version = {version}")
        connection.execute("DETACH DATABASE converted")
    finally:
        connection.close()
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)
    with contextlib.suppress(OSError):  # Windows opens no folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _cipher() -> Any | None:
    try:
        return importlib.import_module("sqlcipher3.dbapi2")
    except ImportError:
        return None


def _needed() -> Any:
    cipher = _cipher()
    if cipher is None:
        raise MissingEngineError(
            "The message database is encrypted, and what reads it is not installed: pip install 'p2pnode[encryption]'."
        )
    return cipher
