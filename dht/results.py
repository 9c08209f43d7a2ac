"""What the DHT's calls return."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pnode.core.address import Address
from p2pnode.core.ids import PeerId
from p2pnode.dht.contact import KnownContact
from p2pnode.dht.records import SignedRecord

__all__ = ["GetResult", "HelloResult", "PutResult", "ReadBack", "Told"]


@dataclass(frozen=True, slots=True)
class HelloResult:
    """Who is there. `observed`: our own address as that node saw it."""

    peer_id: PeerId
    rtt_s: float
    observed: Address


@dataclass(frozen=True, slots=True)
class GetResult:
    """`record`: the one with the highest valid `seq` among the answers, None when nobody had one.

    `holders`: who returned it. `hops`: length of the longest chain of answers. `late`: queries without answer in the
    usual time. `answered`: how many answered at all; 0 means that nothing is known, not that there is no record.
    `settled`: False when the first valid record was taken, and the search still goes on.
    """

    record: SignedRecord | None
    hops: int
    queried: int
    elapsed_s: float
    holders: tuple[KnownContact, ...] = ()
    late: int = 0
    answered: int = 0
    settled: bool = True


@dataclass(frozen=True, slots=True)
class PutResult:
    """`stored`: other nodes that confirmed, of `tried`. `local`: we keep it too, being among the nearest.

    `refused`: error codes by name, and `timeout`, with how often. `settled`: False when enough had confirmed, and more
    stores were still under way. `direct`: it went straight to known holders, nobody was searched for. `lost`: how
    many of the `found` that the last search found have failed since, in the overlay that lost most.
    """

    stored: int
    tried: int
    local: bool = False
    elapsed_s: float = 0.0
    refused: dict[str, int] = field(default_factory=dict)
    settled: bool = True
    direct: bool = False
    lost: int = 0
    found: int = 0


@dataclass(frozen=True, slots=True)
class ReadBack:
    """How a published record stands: `held` of the `asked` nodes nearest to its key returned it when asked.

    `seq`: the highest that anybody returned, ours when nobody returned any.
    """

    held: int
    asked: int
    seq: int


@dataclass(frozen=True, slots=True)
class Told:
    """What a watch brought. `record`: None when nobody has one.

    `how`: `notice` a holder told of a change, `renewal` a holder's answer to ours, `lookup`, `own` it was stored here.
    `holders`: how many returned it.
    """

    record: SignedRecord | None
    how: str
    holders: int
