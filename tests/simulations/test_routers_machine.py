"""Random histories through routers of all kinds, beside an oracle that only remembers who sent what to whom and when.

Whatever happens: a packet from outside reaches nobody but the host that opened the way, exactly as long as its lifetime
says; no two hosts have one outside address and port (toward one remote, where ports are shared); a mapping keeps its
port while it lives; no host exceeds its quota.
"""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from p2pnode.core.address import Address
from p2pnode.simulations.routers.kinds import RouterKind
from p2pnode.simulations.routers.router import Passed, RouterModel
from p2pnode.simulations.routers.words import ADDRESS, ADDRESS_AND_PORT, INDEPENDENT, part

HOSTS = [Address(f"192.168.1.{host}", port) for host, port in product((10, 11, 12), (4000, 4001, 500))]
REMOTES = [Address(f"203.0.113.{host}", port) for host, port in product((1, 2, 3), (443, 3478))]
RULES = (INDEPENDENT, ADDRESS, ADDRESS_AND_PORT)
LIFETIME, QUOTA = 30, 5
OUTSIDE = ("198.51.100.1", "198.51.100.2")

kinds = st.one_of(
    st.builds(
        RouterKind,
        name=st.just("any"),
        text=st.just(""),
        mapping=st.sampled_from(RULES),
        filtering=st.sampled_from(RULES),
        ports=st.sampled_from(("preserving", "sequential", "random")),
        parity=st.booleans(),
        step=st.sampled_from((1, 2, 3)),
        pool=st.sampled_from((1, 2)),
        pooling=st.sampled_from(("paired", "arbitrary")),
        port_block=st.sampled_from((0, 4)),
        port_range=st.sampled_from(((1024, 65535), (3998, 4009))),
        quota=st.sampled_from((0, QUOTA)),
        inbound_refresh=st.booleans(),
        hairpin=st.sampled_from(("off", "internal", "external")),
        udp_lifetime_s=st.just(float(LIFETIME)),
    ),
    st.builds(
        RouterKind,
        name=st.just("masquerade"),
        text=st.just(""),
        overload=st.just(True),
        inbound_refresh=st.booleans(),
        port_range=st.sampled_from(((1024, 65535), (3998, 4003))),
        udp_lifetime_s=st.just(float(LIFETIME)),
    ),
)
Session = tuple[Address, object, Address, object]
"""Inside address, what the mapping looks at, outside address, what the filter looks at."""


class RouterMachine(RuleBasedStateMachine):
    @initialize(kind=kinds, seed=st.integers(0, 1000))
    def begin(self, kind: RouterKind, seed: int) -> None:
        self.kind = kind
        self.mapping = ADDRESS_AND_PORT if kind.overload else kind.mapping
        self.model = RouterModel(kind, OUTSIDE[: kind.pool], random.Random(seed))
        self.now = 0
        self.refreshed: dict[Session, int] = {}

    # What the oracle knows

    def alive(self) -> list[Session]:
        return [session for session, at in self.refreshed.items() if self.now - at < LIFETIME]

    def of_mapping(self, inside: Address, to: Address) -> set[Address]:
        key = part(self.mapping, to)
        return {session[2] for session in self.alive() if session[:2] == (inside, key)}

    def reached_by(self, remote: Address, outside: Address) -> set[Address]:
        key = part(self.kind.filtering, remote)
        return {session[0] for session in self.alive() if session[2:] == (outside, key)}

    # What happens

    @rule(seconds=st.sampled_from((1, 7, 14, 15, 29, 30, 31)))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(inside=st.sampled_from(HOSTS), to=st.sampled_from(REMOTES))
    def send_out(self, inside: Address, to: Address) -> None:
        before = self.of_mapping(inside, to)
        passed = self.model.from_inside(self.now, "udp", inside, to)
        if isinstance(passed, str):
            assert passed in ("quota", "no_port")
            assert not before, "a living mapping is refused"
            return
        assert passed.to == to
        assert not passed.inside
        assert passed.source.ip in OUTSIDE
        assert len(before) < 2
        assert not before or before == {passed.source}, "a living mapping has changed"
        self.refreshed[inside, part(self.mapping, to), passed.source, part(self.kind.filtering, to)] = self.now

    @precondition(lambda self: self.refreshed)
    @rule(remote=st.sampled_from(REMOTES), data=st.data())
    def send_in(self, remote: Address, data: st.DataObject) -> None:
        known = sorted({session[2] for session in self.refreshed})
        outside = data.draw(st.sampled_from([*known, Address(OUTSIDE[0], 9)]))
        expected = self.reached_by(remote, outside)
        passed = self.model.from_outside(self.now, "udp", remote, outside)
        assert len(expected) < 2, "two hosts have opened one way"
        if isinstance(passed, str):
            assert not expected, f"{passed}, but {expected} has opened it"
            return
        assert {passed.to} == expected, "a packet reached a host that did not open the way"
        assert (passed.source, passed.inside) == (remote, True)
        if self.kind.inbound_refresh:
            key = part(self.kind.filtering, remote)
            for session in [each for each in self.alive() if each[0] == passed.to and each[2:] == (outside, key)]:
                self.refreshed[session] = self.now

    @rule()
    def reboot(self) -> None:
        self.model.reboot(self.now)
        self.refreshed.clear()

    # What always holds

    @invariant()
    def outside_addresses_are_of_one_host_each(self) -> None:
        if not hasattr(self, "model"):
            return
        seen: dict[object, Address] = {}
        for inside, mapping_key, outside, _ in self.alive():
            place = (outside, mapping_key) if self.kind.overload else outside
            assert seen.setdefault(place, inside) == inside

    @invariant()
    def router_remembers_what_is_alive_and_no_more(self) -> None:
        if not hasattr(self, "model"):
            return
        alive = self.alive()
        assert self.model.sessions(self.now) == len(alive)
        assert self.model.mappings(self.now) == len({session[:3] for session in alive})
        if self.kind.quota:
            for host in {inside.ip for inside in HOSTS}:
                assert len({session[:3] for session in alive if session[0].ip == host}) <= QUOTA


@pytest.mark.slow
class TestRouterMachine(RouterMachine.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_oracle_notices_a_wrong_router() -> None:
    """A router whose filter is laxer, or whose lifetime is one tick longer, does not pass as the kind it is called."""
    kind = RouterKind("x", "", filtering=ADDRESS)
    for wrong in (replace(kind, filtering=INDEPENDENT), replace(kind, udp_lifetime_s=LIFETIME + 1e-6)):
        machine = RouterMachine()
        machine.begin(kind, 1)
        machine.model = RouterModel(wrong, OUTSIDE[:1], random.Random(1))
        machine.send_out(HOSTS[0], REMOTES[0])
        machine.wait(30 if wrong.filtering == ADDRESS else 1)
        passed = machine.model.from_outside(machine.now, "udp", REMOTES[2 if wrong.filtering != ADDRESS else 0],
                                            Address(OUTSIDE[0], HOSTS[0].port))  # fmt: skip
        assert isinstance(passed, Passed)
        assert not machine.reached_by(passed.source, Address(OUTSIDE[0], HOSTS[0].port))
