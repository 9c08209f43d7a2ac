"""tests/vectors/ice.json: made by this file run as a program, verified here both ways."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aioice import stun
from aioice.ice import CandidatePair

from p2pnode.core.address import Address
from p2pnode.core.network import Network
from p2pnode.nat import GuessTerms, IceCandidate, IceParameters
from p2pnode.nat.ice_agent import Agent, Transaction, parse_for_agent_untrusted
from p2pnode.nat.stun import parse_stun_untrusted
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

PATH = Path(__file__).parent.parent / "vectors" / "ice.json"
CALLER = IceParameters("cAl1er+/", "callersPassword123456789", ())
CALLEE = IceParameters("cal1eE+/", "calleesPassword123456789", ())
CALLER_ADDRESS = Address("203.0.113.7", 4747)
PARAMETERS = {
    "none": IceParameters("abcd", "p" * 22, ()),
    "consent": IceParameters("abcd", "p" * 22, (), GuessTerms()),
    "sequence": IceParameters("abcd", "p" * 22, (), GuessTerms(next_port=20_003, step=2)),
    "range": IceParameters("abcd", "p" * 22, (), GuessTerms(low=30_000, high=31_999)),
    "three": IceParameters(
        "cAl1er+/",
        "callersPassword123456789",
        (
            IceCandidate(Address("192.168.1.10", 4747), "host"),
            IceCandidate(CALLER_ADDRESS, "srflx"),
            IceCandidate(Address("2001:db8::7", 4747), "host"),
        ),
    ),
}


class _Host:
    """Constant entropy; keeps what would be sent."""

    def __init__(self, network: Network) -> None:
        self.network = network
        network.token_bytes = lambda count: bytes(range(1, count + 1))  # type: ignore[method-assign]
        self.answers: list[bytes] = []

    def send_check(self, data: bytes, to: Address) -> None: ...
    def send_answer(self, data: bytes, to: Address) -> None:
        self.answers.append(data)

    def began(self, transaction: Transaction) -> None: ...
    def ended(self, transaction: Transaction) -> None: ...
    def answered(self, address: Address, own: Address | None, rtt_s: float | None) -> None: ...
    def may_learn(self, address: Address) -> bool:
        return False


def _agent(host: _Host, own: IceParameters, remote: IceParameters, *, controlling: bool) -> Agent:
    agent = Agent(host, controlling=controlling, ufrag=own.ufrag, password=own.password)
    agent.remote_username, agent.remote_password = remote.ufrag, remote.password
    return agent


async def _messages(world: VirtualWorld) -> dict[str, str]:
    host = _Host(world.host("203.0.113.8"))
    caller = _agent(host, CALLER, CALLEE, controlling=True)
    callee = _agent(host, CALLEE, CALLER, controlling=False)
    checks = []
    for agent, remote in ((caller, CALLEE), (callee, CALLER)):
        request = agent.build_request(CandidatePair(agent._sockets[False], agent.local_candidates[0]), nominate=True)
        request.add_message_integrity(remote.password.encode())
        checks.append(bytes(request))
    callee.check_received(parse_for_agent_untrusted(checks[0]), CALLER_ADDRESS)
    await asyncio.sleep(0)
    return {"caller_check": checks[0].hex(), "callee_check": checks[1].hex(), "callee_answer": host.answers[0].hex()}


def make_vectors() -> dict[str, Any]:
    return {
        "specification": "docs/protocol/ice.md",
        "parameters": [
            {
                "name": name,
                "ufrag": each.ufrag,
                "password": each.password,
                "candidates": [[c.kind, str(c.address), c.priority] for c in each.candidates],
                "guess": None if each.guess is None else asdict(each.guess),
                "bytes": each.encode().hex(),
            }
            for name, each in PARAMETERS.items()
        ],
        "checks": {
            "caller": [CALLER.ufrag, CALLER.password],
            "callee": [CALLEE.ufrag, CALLEE.password],
            "transaction_id": bytes(range(1, 13)).hex(),
            "tie_breaker": bytes(range(1, 9)).hex(),
            "caller_address": str(CALLER_ADDRESS),
            **run_virtual(_messages),
        },
    }


def test_ice_vectors_are_what_we_write() -> None:
    """Encoding gives the file's bytes."""
    assert make_vectors() == json.loads(PATH.read_text())


def test_ice_vectors_are_what_we_read() -> None:
    """Decoding the file's bytes gives the file's facts; our STUN parser and aioice's agree on the checks."""
    stored = json.loads(PATH.read_text())
    for each in stored["parameters"]:
        read = IceParameters.decode_untrusted(bytes.fromhex(each["bytes"]))
        assert read == PARAMETERS[each["name"]]
        assert [[c.kind, str(c.address), c.priority] for c in read.candidates] == each["candidates"]
        assert (None if read.guess is None else asdict(read.guess)) == each["guess"]
    checks = stored["checks"]
    for name, remote in (("caller_check", "callee"), ("callee_check", "caller"), ("callee_answer", "callee")):
        data, key = bytes.fromhex(checks[name]), checks[remote][1].encode()
        message = parse_stun_untrusted(data)
        assert message.integrity_valid(data, key)
        assert not message.integrity_valid(data, key + b"x")
        assert stun.parse_message(data).check_message_integrity(key)
        assert message.transaction_id.hex() == checks["transaction_id"]
        if name == "callee_answer":
            assert str(message.mapped_address_untrusted()) == checks["caller_address"]
        else:
            assert data[20:22] == b"\0\6"
            assert data[24:32].decode() == checks[remote][0]


def test_largest_parameters_fit_into_an_offer() -> None:
    """Ten IPv6 candidates and our credentials: at most 300 of the 400 bytes."""
    candidates = tuple(
        IceCandidate(Address(f"2001:db8:ffff:ffff:ffff:ffff:ffff:{n:x}", 65535), "srflx") for n in range(1, 11)
    )
    data = IceParameters("a" * 8, "b" * 24, candidates, GuessTerms()).encode()
    print(f"{len(data)} bytes")
    assert len(data) <= 300


if __name__ == "__main__":
    PATH.write_text(json.dumps(make_vectors(), indent=1) + "\n")
    sys.stdout.write(f"{PATH.name} written\n")
