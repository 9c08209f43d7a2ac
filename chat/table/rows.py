"""The static table as a file: one line per person. No I/O.

    # name   host            port   key
    anna     192.0.2.7       4747
    bert     bert.example    4747   12D3KooW...
    cora,    2001:db8::7,    4747
    dora     12D3KooW...@192.0.2.9:4747

Between the fields stand spaces, tabs, commas or semicolons: what a spreadsheet writes can be read as it is, with a line
of headings or without. The key is a peer id or a user id; without it, the key that answers first is remembered.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from p2pnode import InvalidConfigError, InvalidPeerError, PeerId, UserId, clean, clean_name, parse_host_port, parse_peer

__all__ = ["MAX_ROWS", "MAX_TABLE_BYTES", "TableRow", "parse_table"]

MAX_ROWS = 1_000  # each is greeted, and once known has a contact
MAX_TABLE_BYTES = 256 * 1024  # of the file: it is written by hand
_HEADINGS = frozenset({"name", "host", "ip", "address", "port", "key", "id", "peer", "user"})


@dataclass(frozen=True, slots=True)
class TableRow:
    """One person. At most one of `peer` and `user` is set: the key that must answer. `line`: in the file, from 1."""

    name: str
    host: str
    port: int
    peer: PeerId | None = None
    user: UserId | None = None
    line: int = 0

    @property
    def key(self) -> str:
        """The name as it is compared."""
        return self.name.casefold()

    @property
    def place(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_table(text: str, source: str) -> tuple[TableRow, ...]:
    """Read a table. Raise InvalidConfigError, which names `source` (the file) and the line."""
    rows: dict[str, TableRow] = {}
    first = True
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        fields = _fields(line)
        if not fields:
            continue
        headings, first = first and {field.casefold() for field in fields} <= _HEADINGS, False
        if headings:
            continue
        try:
            row = _row(fields, number)
            if row.key in rows:
                raise ValueError(f"{row.name!r} stands on line {rows[row.key].line} already")
            if len(rows) >= MAX_ROWS:
                raise ValueError(f"more than {MAX_ROWS:,} people")
        except ValueError as exc:
            raise InvalidConfigError(f"{source}, line {number}: {exc}.", file=source, line=number) from exc
        rows[row.key] = row
    return tuple(rows.values())


def _fields(line: str) -> list[str]:
    """Cut a line where commas, semicolons or tabs stand, else at spaces; a comment ends it."""
    line = re.sub(r"(^|\s)#.*", "", line).strip()
    parts = re.split(r"[,;\t]", line) if re.search(r"[,;\t]", line) else line.split()
    fields = [part.strip().strip("\"'").strip() for part in parts]
    if len(fields) == 1 and " " in fields[0]:
        fields = fields[0].split()
    while fields and not fields[-1]:
        fields.pop()  # a spreadsheet ends each line with as many commas as the longest has
    return fields


def _row(fields: list[str], number: int) -> TableRow:
    name, rest = fields[0], [field for field in fields[1:] if field]
    if not name or clean_name(name) != name:
        raise ValueError(f"{clean(name, limit=40)!r} is not a name (1 to 32 visible characters, none of / \\ @ :)")
    if not rest:
        raise ValueError(f"after {name!r} come host and port")
    peer: PeerId | None = None
    user: UserId | None = None
    if "@" in rest[0]:
        who, _, where = rest[0].partition("@")
        peer, user = _key(who)
        rest = [where, *rest[1:]]
    joined = len(rest) > 1 and rest[1].isdigit()
    host, port = _place(rest[0], rest[1] if joined else None)
    keys = rest[2 if joined else 1 :]
    if len(keys) > 1 or (keys and (peer or user)):
        raise ValueError(f"{clean(keys[-1], limit=40)!r} is one field too many: name, host, port, key")
    if keys:
        peer, user = _key(keys[0])
    return TableRow(name, host, port, peer, user, number)


def _place(host: str, port: str | None) -> tuple[str, int]:
    if port is None:
        return parse_host_port(host)
    bare_v6 = host.count(":") > 1 and not host.startswith("[")
    return parse_host_port(f"[{host}]:{port}" if bare_v6 else f"{host}:{port}")


def _key(text: str) -> tuple[PeerId | None, UserId | None]:
    try:
        spec = parse_peer(text)
    except InvalidPeerError as exc:
        raise ValueError(exc.message.rstrip(".")) from exc
    if spec.hosts or spec.tcp_hosts or (spec.peer is None and spec.user is None):
        raise ValueError(f"{clean(text, limit=40)!r} is no key: a peer id (12D3KooW...) or a user id (p2p1...)")
    return spec.peer, spec.user
