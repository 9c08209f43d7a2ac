"""Attacks on conversations with strangers (docs/random.md): flooding, false reports, following somebody (X1, X3)."""

from __future__ import annotations

import asyncio
import random
import re

import pytest
from support.strangers import lobby_of

from p2pnode import AccountKey, Address
from p2pnode.chat.strangers.judging import LEAST, SLOT_S, is_drawn, weight_of
from p2pnode.chat.strangers.receipts import Receipt, device_key, epoch_of, report_value, reports_topic
from p2pnode.chat.strangers.talk import BURST, RATE
from p2pnode.simulations.virtual import VirtualWorld, run_virtual

PIECE = 16  # bytes in common that are no chance


@pytest.mark.long
def test_x3_stranger_who_floods_is_read_slowly_and_nothing_of_it_grows() -> None:
    async def main(world: VirtualWorld) -> None:
        async with lobby_of(world, 2) as (one, other):
            await one.strangers.begin()
            await other.strangers.begin()
            await one.until("found")
            await other.until("found")
            talk = one.strangers._talk
            assert talk is not None

            async def flood() -> None:
                for number in range(2_000):
                    await talk.say(f"{number} \x1b]0;x\x07" + "\u0301" * 900)

            flooding = asyncio.ensure_future(flood())
            await asyncio.sleep(20)
            count = other.texts.qsize()
            shown = [other.texts.get_nowait() for _ in range(count)]
            print(f"{count} texts in 20 s of 2,000")
            assert count <= BURST + 20 * RATE + 1
            assert all("\x1b" not in text and "\x07" not in text and len(text) < 40 for text in shown)
            assert [text.split()[0] for text in shown] == [str(number) for number in range(count)]
            assert len(talk._said) <= 64
            flooding.cancel()
            await other.strangers.next()

    run_virtual(main, delay=0.02)


@pytest.mark.long
def test_x3_reports_without_a_conversation_count_nothing_and_many_by_one_count_once() -> None:
    async def main(world: VirtualWorld) -> None:
        rng = random.Random(1)
        async with lobby_of(world, 1) as (reader,):
            now = int(reader.node.network.wall())
            epoch = epoch_of(now)
            victim, witness, enemy, friend = (device_key(rng.randbytes(32), epoch) for _ in range(4))
            topic = reports_topic(victim.public_raw, epoch)

            def receipt(reporter: AccountKey, at: int = now) -> Receipt:
                return Receipt(at, reporter.public_raw, victim.public_raw, rng.randbytes(32))

            async def announce(key: AccountKey, value: bytes) -> None:
                await reader.node.announce(topic, value, key=key)

            real = receipt(witness)
            signed = victim.sign(real.signing_input())
            await announce(witness, report_value(real, signed))
            await announce(enemy, report_value(real, signed))  # somebody else's conversation
            for _ in range(5):  # signatures of his own, or of nobody
                forger = device_key(rng.randbytes(32), epoch)
                mine = receipt(forger)
                await announce(forger, report_value(mine, forger.sign(mine.signing_input())))
                await announce(device_key(rng.randbytes(32), epoch), report_value(mine, rng.randbytes(64)))
            await announce(victim, report_value(receipt(victim), signed))  # himself
            old = receipt(friend, now - 8 * 86_400)
            await announce(friend, report_value(old, victim.sign(old.signing_input())))  # of another week
            for _ in range(3):  # one reporter, further conversations
                again = receipt(witness)
                await announce(witness, report_value(again, victim.sign(again.signing_input())))
            reports = reader.strangers.reports
            await reports.read(reader.node, victim.public_raw, epoch)
            print(f"{reports.board.reports(victim.public_raw)} of 17 statements counts")
            assert reports.board.reports(victim.public_raw) == 1
            assert weight_of(reports.board.strength(victim.public_raw, float(now))) == 1.0

    run_virtual(main, delay=0.02)


@pytest.mark.long
def test_x3_reported_user_whose_program_does_not_wait_for_its_turn_is_declined_by_all() -> None:
    async def main(world: VirtualWorld) -> None:
        rng = random.Random(1)
        async with lobby_of(world, 3) as (pest, one, other):
            now = int(pest.node.network.wall())
            epoch = epoch_of(now)
            slots = [now + number * SLOT_S for number in range(3)]
            while True:  # a device that is not drawn in the next minutes
                secret = rng.randbytes(32)
                key = device_key(secret, epoch)
                if not any(is_drawn(key.public_raw, 10.0, slot) for slot in slots):
                    break
            pest.strangers.reports._secret = secret
            for _ in range(10):
                reporter = device_key(rng.randbytes(32), epoch)
                receipt = Receipt(now, reporter.public_raw, key.public_raw, rng.randbytes(32))
                value = report_value(receipt, key.sign(receipt.signing_input()))
                await other.node.announce(reports_topic(key.public_raw, epoch), value, key=reporter)

            async def never(_mask: object) -> None:
                await asyncio.sleep(3600)

            pest.strangers._turn_over = never  # type: ignore[method-assign]
            await pest.strangers.begin()
            await one.strangers.begin()
            await asyncio.sleep(60)
            assert pest.strangers.phase == one.strangers.phase == "searching"
            assert one.strangers.reports.board.reports(key.public_raw) == 10
            await other.strangers.begin()
            await one.until("found")
            await other.until("found")
            assert pest.strangers.phase == "searching"

    run_virtual(main, delay=0.02)


def test_x3_what_sybils_that_report_cost_and_what_their_victim_loses() -> None:
    """Each of the reporters needs a conversation with the victim; nobody can aim without its address."""
    rng = random.Random(1)
    users, runs, costs = 200, 50, []
    for _ in range(runs):
        met = cost = 0
        while met < 10:
            cost += 1
            met += rng.randrange(users) == 0
        costs.append(cost)
    mean = sum(costs) / runs
    print(
        f"ten reports by sybils: {mean:.0f} conversations among {users} users; chosen {weight_of(10.0):.2f} as often,"
    )
    print(f"with any number of them {LEAST:.3f}")
    assert mean > 1_500
    assert weight_of(10_000.0) == LEAST > 0.1


@pytest.mark.long
def test_x3_two_conversations_of_one_user_have_nothing_in_common_on_the_wire_but_the_address() -> None:
    """All that leaves the user's machine for two conversations, byte by byte: what both have, others' have as well."""
    sent: dict[tuple[str, int], list[bytes]] = {}

    def note(source: Address, _destination: Address, data: bytes) -> float:
        sent.setdefault((source.ip, source.port), []).append(bytes(data))
        return 0.0

    async def main(world: VirtualWorld) -> None:
        async with lobby_of(world, 3) as (user, one, other):
            strangers = user.strangers
            at = int(user.node.network.wall())
            secrets = [strangers.key_at(at).public_raw, user.node.peer_id.raw, user.node.user_id.raw]
            await strangers.begin()
            await one.strangers.begin()
            await user.until("found")
            await strangers.say("the first stranger")
            await asyncio.sleep(20)
            await one.strangers.quit()
            await user.until("ended")
            await other.strangers.begin()
            await strangers.next()
            await user.until("found")
            await strangers.say("the second stranger")
            await asyncio.sleep(20)
            await strangers.quit()
            await asyncio.sleep(5)
            home = user.network.host.addresses()[0]
            masks = {port: data for (ip, port), data in sent.items() if ip == home and port != 4747}
            assert len(masks) >= 2
            for data in masks.values():
                assert not any(secret in datagram for datagram in data for secret in secrets)
            known = [c for person in (user, one, other) for c in person.node.dht.known_contacts()]
            public = [c.peer_id.raw for c in known if c.peer_id is not None] + [bytes(c.node_id) for c in known]
            clock = re.escape(int(user.node.network.wall() * 1000).to_bytes(8, "big")[:4]) + b".{4}"
            # whom they asked, when (one goes as the other comes: docs/random.md says so), and padding
            cut = re.compile(b"|".join([*map(re.escape, public), clock, b"\0{6,}"]), re.DOTALL)
            pieces = {port: _pieces(data, cut) for port, data in masks.items()}
            others = set[bytes]().union(*(_pieces(data, cut) for (ip, _), data in sent.items() if ip != home))
            ports = list(pieces)
            shared = {
                piece
                for n, port in enumerate(ports)
                for later in ports[n + 1 :]
                for piece in pieces[port] & pieces[later]
            }
            telling = shared - others
            total = sum(len(data) for data in masks.values())
            print(f"{len(masks)} sockets of throw-away nodes, {total} datagrams: {len(shared)} pieces in common,")
            print(f"{len(telling)} of them nobody else's")
            assert not telling, sorted(piece.hex() for piece in telling)[:20]

    run_virtual(main, delay=0.02, loss=note)


def _pieces(datagrams: list[bytes], cut: re.Pattern[bytes]) -> set[bytes]:
    parts = [part for data in datagrams for part in cut.split(data)]
    return {part[at : at + PIECE] for part in parts for at in range(len(part) - PIECE + 1)}
