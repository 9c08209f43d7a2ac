"""What a node remembers between runs: contacts to start from, own sequence numbers, highest sequence numbers seen.

One MessagePack file, replaced atomically, validated on load (never pickled). A damaged file costs a warm start, not the
node: it is set aside and said so. The highest `seq` seen of records that outlive us guards against old ones (V3).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import structlog

from p2pnode.core.address import Address
from p2pnode.core.atomic import replace_file
from p2pnode.core.errors import BadPacket, StorageError

__all__ = ["NodeState", "RememberedContact"]

log = structlog.get_logger(__name__)

MAX_CONTACTS = 200  # a table's nearest and best; 200 x 40 bytes
MAX_SEEN = 4096  # keys whose records we read: people; 4,096 x 100 bytes in memory. The longest unused goes first
MAX_ACCOUNTS = 4  # that this home belonged to, one after the other
MAX_AHEAD_S = 86_400.0  # of a clock that was wrong: two clocks wrong by more do not talk at all
MAX_FILE_BYTES = 1 << 20


class RememberedContact(msgspec.Struct, array_like=True, frozen=True):
    """A node that answered us: node id (20 bytes), packed address (6 or 18), public key (32) or empty."""

    node_id: Annotated[bytes, msgspec.Meta(min_length=20, max_length=20)]
    address: Annotated[bytes, msgspec.Meta(min_length=6, max_length=18)]
    public_key: Annotated[bytes, msgspec.Meta(max_length=32)] = b""

    def unpacked(self) -> Address | None:
        """None when the bytes are no address."""
        try:
            return Address.unpack_untrusted(self.address)
        except BadPacket:
            return None


class _File(msgspec.Struct, array_like=True):
    version: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    contacts: Annotated[list[RememberedContact], msgspec.Meta(max_length=MAX_CONTACTS)] = []
    own_seq: dict[bytes, int] = {}
    seen_seq: Annotated[dict[bytes, int], msgspec.Meta(max_length=MAX_SEEN)] = {}
    own_lists: Annotated[dict[bytes, bytes], msgspec.Meta(max_length=MAX_ACCOUNTS)] = {}
    running: bool = False
    last_run: int = 0


class NodeState:
    """The remembered state; `path` None keeps it in memory only."""

    def __init__(self, path: Path | None, token_bytes: Callable[[int], bytes]) -> None:
        """`token_bytes` names the temporary file, as in `core.atomic`."""
        self._path = path
        self._token_bytes = token_bytes
        self._file = _File()
        self.dirty = False
        if path is not None:
            self._load(path)

    @property
    def is_on_disk(self) -> bool:
        return self._path is not None

    @property
    def contacts(self) -> list[RememberedContact]:
        return self._file.contacts

    def remember_contacts(self, contacts: list[RememberedContact]) -> None:
        """Replace the contacts; an empty list keeps the old ones (the network may just be away)."""
        if contacts and contacts != self._file.contacts:
            self._file.contacts = contacts[:MAX_CONTACTS]
            self.dirty = True

    def next_seq(self, salt: bytes, now_wall: float) -> int:
        """Return a sequence number for an own record: unix milliseconds, above every earlier one."""
        seq = max(self._file.own_seq.get(salt, 0) + 1, int(now_wall * 1000))
        self._file.own_seq[salt] = seq
        self.dirty = True
        return seq

    def own_seq(self, salt: bytes) -> int:
        """Return the highest sequence number given to an own record, 0 when there is none."""
        return self._file.own_seq.get(salt, 0)

    def raise_seq(self, salt: bytes, seq: int, now_wall: float) -> None:
        """Note that others say to hold `seq` of an own record (our clock or file went back).

        More than a day ahead is not believed: a liar who names the highest number would end our publishing for ever.
        """
        if seq <= (now_wall + MAX_AHEAD_S) * 1000:
            self._file.own_seq[salt] = max(self._file.own_seq.get(salt, 0), seq)

    def seen_seq(self, key: bytes) -> int:
        """Return the highest `seq` accepted under `key`, 0 when there is none."""
        return self._file.seen_seq.get(key, 0)

    def begin(self, now_wall: float) -> tuple[int, bool]:
        """Note that a node runs on this state. Return (when it began, Unix milliseconds, above every earlier one, also
        where the clock went back; whether the last one ended without saying goodbye)."""
        before, self._file.running = self._file.running, True
        self._file.last_run = max(self._file.last_run + 1, int(now_wall * 1000))
        self.dirty = True
        return self._file.last_run, before

    def end(self) -> None:
        """Note that the node has said goodbye."""
        self._file.running = False
        self.dirty = True

    def own_list(self, user: bytes) -> bytes:
        """Return the value of the account's newest device list that we know of, empty when there is none."""
        return self._file.own_lists.get(user, b"")

    def keep_own_list(self, user: bytes, value: bytes) -> None:
        """Remember the account's newest device list."""
        self._file.own_lists = {user: value, **{u: v for u, v in self._file.own_lists.items() if u != user}}
        while len(self._file.own_lists) > MAX_ACCOUNTS:
            self._file.own_lists.popitem()
        self.dirty = True

    def accept_seq(self, key: bytes, seq: int) -> bool:
        """Whether a record's `seq` is not older than what we have seen under `key`; remembers the highest."""
        seen = self._file.seen_seq
        last = seen.pop(key, 0)
        seen[key] = max(last, seq)
        if len(seen) > MAX_SEEN:
            # Presences first: they expire within minutes, and strangers can make us look for any number of them.
            del seen[next((known for known in seen if known[32:].startswith(b"presence/")), next(iter(seen)))]
        self.dirty = self.dirty or seq > last
        return seq >= last

    def encode(self) -> bytes:
        """The file's bytes; taken on the loop, written elsewhere."""
        self.dirty = False
        return msgspec.msgpack.encode(self._file)

    def write(self, data: bytes) -> None:
        """Replace the file atomically and durably. Blocking. Raise StorageError."""
        if self._path is None:
            return
        try:
            replace_file(self._path, data, self._token_bytes)
        except OSError as exc:
            raise StorageError(f"Cannot write {self._path.name}: {exc.strerror}.") from exc

    def _load(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return
        except OSError as exc:
            raise StorageError(f"Cannot read {path}: {exc.strerror}.") from exc
        try:
            if len(data) > MAX_FILE_BYTES:
                raise msgspec.ValidationError("too long")
            self._file = msgspec.msgpack.decode(data, type=_File)
        except (msgspec.DecodeError, RecursionError, ValueError) as exc:
            aside = path.with_name(path.name + ".damaged")
            log.warning("state_file_damaged", kept_as=aside.name, why=str(exc))
            os.replace(path, aside)
