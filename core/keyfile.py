"""Key files: created once, never overwritten, readable by their owner only (security.md, Z2).

A plain file is PEM text: what openssl reads (PKCS8, RFC 7468 section 10 "One Asymmetric Key and the Textual Encoding of
PKCS #8"), first the Ed25519 key, in a node's file then its X25519 key. Lines before the first block name the kind and
the public keys. They are compared when the file is read: one wrong bit in a seed is otherwise just another valid key,
and the node would silently be somebody else.

An encrypted file has one block with our own label, since openssl's PKCS8 encryption knows no Argon2id. Its content:

    offset  bytes   field
    0       1       version, 1
    1       1       kind: 1 node, 2 account
    2       4       Argon2id memory, KiB, big endian
    6       4       Argon2id iterations
    10      1       Argon2id lanes
    11      16      salt
    27      12      nonce
    39      80, 48  ChaCha20-Poly1305 of the seeds (node: Ed25519 32, X25519 32; account: 32) and tag 16; the
                    associated data is everything before
    end     4       first bytes of SHA-256 of everything before: tells a damaged file from a wrong passphrase

Errors are `KeyFileError` (the file is there and cannot be used) and `StorageError` (the disk refuses a new one). No
secret is ever part of an exception: errors of parsers are cut off (`from None`).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import operator
import os
import stat
import struct
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from p2pnode.core.atomic import create_file, replace_file
from p2pnode.core.errors import InvalidPeerError, KeyFileError, StorageError
from p2pnode.core.keys import AccountKey, NodeKey, SigningKey

__all__ = [
    "KdfCost",
    "change_passphrase",
    "is_encrypted",
    "key_text",
    "load_account_key",
    "load_node_key",
    "load_or_create_account_key",
    "load_or_create_node_key",
    "parse_key",
    "read_key_text",
]

Passphrase = Callable[[], str]
"""Asked only when a passphrase is needed; may prompt."""
Kind = Literal["node", "account"]

MAX_FILE_BYTES = 16_384  # ours have 200 to 500; whatever is longer is no key file
_LABEL = "P2PNODE ENCRYPTED KEY"
_PLAIN_LABEL = "PRIVATE KEY"
# RFC 8410, section 7 "Private Key Format": PKCS8 of a 32-byte seed is these 16 bytes and the seed. Fixed bytes instead
# of a parser: a damaged file has no way into an ASN.1 library. First the Ed25519 block, then a node's X25519 block.
_PKCS8_PREFIXES = (bytes.fromhex("302e020100300506032b657004220420"), bytes.fromhex("302e020100300506032b656e04220420"))
_VERSION = 1
_KINDS: dict[int, Kind] = {1: "node", 2: "account"}
_HEAD = struct.Struct(">BBIIB16s12s")
_CHECK_BYTES = 4
_TAG_BYTES = 16


@dataclass(frozen=True, slots=True)
class KdfCost:
    """Argon2id's cost (RFC 9106, section 4 "Parameter Choice", the second recommended option)."""

    memory_kib: int = 65_536
    """KiB; 8 per lane to 1 GiB, so that a crafted file cannot take all memory."""
    iterations: int = 3
    """1 to 64."""
    lanes: int = 4
    """1 to 16."""

    def __post_init__(self) -> None:
        if not (1 <= self.lanes <= 16 and 1 <= self.iterations <= 64 and 8 * self.lanes <= self.memory_kib <= 2**20):
            raise ValueError("Argon2id cost out of range")


def load_or_create_node_key(
    path: Path,
    token_bytes: Callable[[int], bytes],
    passphrase: Passphrase | None = None,
    *,
    encrypt_new: bool = False,
    cost: KdfCost | None = None,
) -> NodeKey:
    """Return the node key in `path`, made and written first when there is no such file.

    `passphrase` is asked for an encrypted file, and for a new one with `encrypt_new`. When two processes create the
    file at once, both return the key of the one that won. Raise KeyFileError, StorageError.
    """
    key = _load_or_create(path, "node", token_bytes, passphrase if encrypt_new else None, cost or KdfCost())
    return key if isinstance(key, NodeKey) else load_node_key(path, passphrase)


def load_or_create_account_key(
    path: Path,
    token_bytes: Callable[[int], bytes],
    passphrase: Passphrase | None = None,
    *,
    encrypt_new: bool = False,
    cost: KdfCost | None = None,
) -> AccountKey:
    """Do the same as `load_or_create_node_key` for an account."""
    key = _load_or_create(path, "account", token_bytes, passphrase if encrypt_new else None, cost or KdfCost())
    return key if isinstance(key, AccountKey) else load_account_key(path, passphrase)


def load_node_key(path: Path, passphrase: Passphrase | None = None) -> NodeKey:
    """Return the node key in `path`. Raise KeyFileError, also when there is no such file."""
    key = _read_key(path, "node", passphrase)
    assert isinstance(key, NodeKey)  # noqa: S101 - `_read_key` checked the kind; this tells the type checker
    return key


def load_account_key(path: Path, passphrase: Passphrase | None = None) -> AccountKey:
    """Return the account key in `path`. Raise KeyFileError, also when there is no such file."""
    key = _read_key(path, "account", passphrase)
    assert isinstance(key, AccountKey)  # noqa: S101 - as above
    return key


def is_encrypted(path: Path) -> bool:
    """Whether the file asks for a passphrase. Raise KeyFileError when it cannot be read."""
    return f"-----BEGIN {_LABEL}-----" in _read_text(path)


def change_passphrase(
    path: Path,
    kind: Kind,
    token_bytes: Callable[[int], bytes],
    old: Passphrase | None,
    new: str | None,
    *,
    cost: KdfCost | None = None,
) -> None:
    """Write the same key under passphrase `new` (None: unencrypted), replacing the file in one step.

    `old` is asked when the file is encrypted. After any failure the old file is as it was. Raise KeyFileError,
    StorageError.
    """
    key = _read_key(path, kind, old)
    text = _plain_text(key) if new is None else _encrypted_text(path, key, new, token_bytes, cost or KdfCost())
    _parse(path, text, kind, lambda: new or "")  # never replace the only copy by something that cannot be read
    try:
        replace_file(path, text.encode("ascii"), token_bytes)
    except OSError as exc:
        raise _disk_error(path, exc) from exc


def read_key_text(path: Path) -> str:
    """Return the file's text after all checks that need no passphrase. Raise KeyFileError."""
    return _read_text(path)


def key_text(
    path: Path, key: SigningKey, token_bytes: Callable[[int], bytes], passphrase: str | None, *, cost: KdfCost
) -> str:
    """Return what a key file holds, encrypted when there is a passphrase. Raise KeyFileError when that is empty."""
    return _plain_text(key) if passphrase is None else _encrypted_text(path, key, passphrase, token_bytes, cost)


def parse_key(path: Path, text: str, kind: Kind, passphrase: Passphrase | None) -> SigningKey:
    """Read a key file's text. Raise KeyFileError, which names `path`."""
    return _parse(path, text, kind, passphrase)


def _load_or_create(
    path: Path, kind: Kind, token_bytes: Callable[[int], bytes], passphrase: Passphrase | None, cost: KdfCost
) -> SigningKey | None:
    """Create the file and return its key; None when it is there already."""
    if os.path.lexists(path):
        return None
    key: SigningKey = NodeKey.generate(token_bytes) if kind == "node" else AccountKey.generate(token_bytes)
    text = _plain_text(key) if passphrase is None else _encrypted_text(path, key, passphrase(), token_bytes, cost)
    try:
        return key if create_file(path, text.encode("ascii"), token_bytes) else None
    except OSError as exc:
        raise _disk_error(path, exc) from exc


def _read_key(path: Path, kind: Kind, passphrase: Passphrase | None) -> SigningKey:
    return _parse(path, _read_text(path), kind, passphrase)


def _read_text(path: Path) -> str:
    """Return the file's text, after all checks that need no passphrase."""
    # Not blocking, or a fifo in the key's place would hang us; no links, since what they name may be anybody's.
    wished = ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
    try:
        descriptor = os.open(path, os.O_RDONLY | functools.reduce(operator.or_, (getattr(os, n, 0) for n in wished)))
    except OSError as exc:
        if path.is_symlink():
            raise KeyFileError(f"{path} is a link; a key file must be an ordinary file.", path=str(path)) from exc
        raise _unreadable(path, exc) from exc
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(f"{path} is not an ordinary file, so it cannot hold a key.", path=str(path))
        if os.name == "posix" and status.st_mode & 0o077:
            raise KeyFileError(
                f"Other users can read or change the key file {path}; run: chmod 600 {path}",
                path=str(path),
                mode=oct(stat.S_IMODE(status.st_mode)),
            )
        data = os.read(descriptor, MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    finally:
        os.close(descriptor)
    if not data.strip(b"\0\r\n\t "):
        raise KeyFileError(
            f"The key file {path} is empty; restore it from a backup, or remove it to get a new identity.",
            path=str(path),
        )
    if len(data) > MAX_FILE_BYTES or not data.isascii():
        raise _damaged(path)
    return data.decode("ascii")


def _parse(path: Path, text: str, kind: Kind, passphrase: Passphrase | None) -> SigningKey:
    blocks = _pem_blocks(path, text)
    labels = [label for label, _ in blocks]
    if labels == [_LABEL]:
        found, seeds = _decrypt(path, blocks[0][1], passphrase)
    elif labels in ([_PLAIN_LABEL], [_PLAIN_LABEL] * 2):
        found = "node" if len(blocks) == 2 else "account"
        seeds = b"".join(_pkcs8_seed(path, b, p) for (_, b), p in zip(blocks, _PKCS8_PREFIXES, strict=False))
    else:
        raise _damaged(path)
    if found != kind:
        raise KeyFileError(f"{path} holds {_an(found)} key, not {_an(kind)} key.", path=str(path))
    try:
        key: SigningKey = NodeKey(seeds[:32], seeds[32:]) if kind == "node" else AccountKey(seeds)
    except (ValueError, InvalidPeerError):
        raise _damaged(path) from None
    if text.partition("-----BEGIN ")[0].split() != _heading(key).split():
        raise _damaged(path)
    return key


def _pem_blocks(path: Path, text: str) -> list[tuple[str, str]]:
    """Return (label, whole block) of each PEM block; refuse text after or between blocks, and blocks cut short."""
    parts = text.split("-----BEGIN ")[1:]
    blocks = []
    for part in parts:
        label, dashes, rest = part.partition("-----")
        body, end, tail = rest.partition(f"-----END {label}-----")
        if not dashes or not end or tail.strip() or not body.strip():
            raise _damaged(path)
        blocks.append((label, f"-----BEGIN {label}-----{body}-----END {label}-----\n"))
    return blocks


def _pkcs8_seed(path: Path, block: str, prefix: bytes) -> bytes:
    data = _block_bytes(path, block)
    if len(data) != len(prefix) + 32 or not data.startswith(prefix):
        raise _damaged(path)
    return data[len(prefix) :]


def _block_bytes(path: Path, block: str) -> bytes:
    try:
        return base64.b64decode("".join(block.split("-----")[2].split()), validate=True)
    except ValueError:
        raise _damaged(path) from None


def _block(label: str, data: bytes) -> str:
    text = base64.b64encode(data).decode("ascii")
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def _decrypt(path: Path, block: str, passphrase: Passphrase | None) -> tuple[Kind, bytes]:
    data = _block_bytes(path, block)
    body, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
    if len(body) < _HEAD.size + 32 + _TAG_BYTES or not hmac.compare_digest(_check(body), check):
        raise _damaged(path)
    version, kind, memory, iterations, lanes, salt, nonce = _HEAD.unpack_from(body)
    if version != _VERSION or kind not in _KINDS:
        raise KeyFileError(f"{path} was written by a later version of p2pnode.", path=str(path))
    try:
        cost = KdfCost(memory, iterations, lanes)
    except ValueError:
        raise _damaged(path) from None
    if passphrase is None:
        raise KeyFileError(f"The key file {path} is locked: its passphrase is needed.", path=str(path), locked=True)
    secret = _derive(path, passphrase(), salt, cost)
    try:
        seeds = ChaCha20Poly1305(secret).decrypt(nonce, body[_HEAD.size :], body[: _HEAD.size])
    except InvalidTag:
        raise KeyFileError(f"Wrong passphrase for the key file {path}.", path=str(path), wrong=True) from None
    return _KINDS[kind], seeds


def _derive(path: Path, passphrase: str, salt: bytes, cost: KdfCost) -> bytes:
    """Return the 32-byte key of a passphrase, in NFC: keyboards differ in how they compose a letter (RFC 8265)."""
    try:
        data = unicodedata.normalize("NFC", passphrase).encode()
    except UnicodeEncodeError:
        raise KeyFileError(f"This passphrase for {path} is not valid text.", path=str(path)) from None
    kdf = Argon2id(salt=salt, length=32, iterations=cost.iterations, lanes=cost.lanes, memory_cost=cost.memory_kib)
    return kdf.derive(data)


def _plain_text(key: SigningKey) -> str:
    seeds = [key.seed, key.x25519.private_bytes_raw()] if isinstance(key, NodeKey) else [key.seed]
    blocks = (_block(_PLAIN_LABEL, p + seed) for p, seed in zip(_PKCS8_PREFIXES, seeds, strict=False))
    return _heading(key) + "".join(blocks)


def _encrypted_text(
    path: Path, key: SigningKey, passphrase: str, token_bytes: Callable[[int], bytes], cost: KdfCost
) -> str:
    if not passphrase:
        raise KeyFileError("An empty passphrase protects nothing.", path=str(path))
    is_node = isinstance(key, NodeKey)
    seeds = key.seed + key.x25519.private_bytes_raw() if isinstance(key, NodeKey) else key.seed
    salt, nonce = token_bytes(16), token_bytes(12)
    head = _HEAD.pack(
        _VERSION, 1 if is_node else 2, cost.memory_kib, cost.iterations, cost.lanes, salt, nonce
    )  # a fresh salt gives a fresh key, so no nonce ever repeats under one
    body = head + ChaCha20Poly1305(_derive(path, passphrase, salt, cost)).encrypt(nonce, seeds, head)
    return _heading(key) + _block(_LABEL, body + _check(body))


def _heading(key: SigningKey) -> str:
    """Return the lines before the first block. They name public keys only."""
    if isinstance(key, NodeKey):
        return f"p2pnode node key: keep it secret\nPeer-Id: {key.peer_id}\nX25519: {key.x25519_public.hex()}\n"
    assert isinstance(key, AccountKey)  # noqa: S101 - the only other kind
    return f"p2pnode account key: keep it secret\nUser-Id: {key.user_id}\n"


def _check(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:_CHECK_BYTES]


def _an(kind: Kind) -> str:
    return "an account" if kind == "account" else "a node"


def _unreadable(path: Path, exc: OSError) -> KeyFileError:
    reason = "there is no such file" if isinstance(exc, FileNotFoundError) else (exc.strerror or "the disk refuses")
    return KeyFileError(f"The key file {path} cannot be read: {reason}.", path=str(path))


def _damaged(path: Path) -> KeyFileError:
    return KeyFileError(
        f"The key file {path} is damaged; restore it from a backup. Nothing was changed.", path=str(path)
    )


def _disk_error(path: Path, exc: OSError) -> StorageError:
    return StorageError(
        f"The key file {path} cannot be written: {exc.strerror or 'the disk refuses'}. Nothing was changed.",
        path=str(path),
    )
