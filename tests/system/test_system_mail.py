"""Offline delivery as users have it: real processes on loopback, both never there at the same time."""

from __future__ import annotations

from pathlib import Path

from support.processes import Peer, eventually, processes


def can_leave_mail(peer: Peer) -> bool:
    return all(contact["mail"] for contact in peer.cli("contacts", "list", "--json").json["contacts"])


def test_message_waits_in_the_network_while_both_are_away(tmp_path: Path) -> None:
    """anna writes to bert, who is away, and leaves; bert comes back alone and has it, once; anna then learns it."""
    with processes(tmp_path) as running:
        nodes = [running.bootstrap("boot1")]
        nodes.append(running.bootstrap("boot2", "--bootstrap", nodes[0].ready()["bootstrap"]))
        anna = running.join("anna", bootstrap=nodes[:1])
        bert = running.join("bert", bootstrap=nodes[1:2])
        for one, other in ((anna, bert), (bert, anna)):
            assert one.cli("contacts", "add", other.user, "--name", other.home.name).code == 0
        assert anna.cli("send", "bert", "we are both here", "--json").json["state"] == "delivered"
        eventually(lambda: can_leave_mail(anna) and can_leave_mail(bert), what="the means to leave mail")
        bert.stop()
        sent = anna.cli("send", "bert", "read me later", "--json", timeout=60.0)
        assert (sent.code, sent.json["state"], sent.json["delivered"]) == (0, "stored", False), anna.log()
        anna.stop()
        bert = running.join("bert", bootstrap=nodes[1:2])
        event = bert.wait_event(lambda e: e["event"] == "message", timeout=30.0)
        assert (event["text"], event["from_name"]) == ("read me later", "anna")
        bert.stop()
        anna = running.join("anna", bootstrap=nodes[:1])
        anna.ready()

        def delivered() -> bool:
            history = anna.cli("history", "bert", "--json").out.splitlines()
            return any('"read me later"' in line and '"delivered"' in line for line in history)

        eventually(delivered, timeout=60.0, what="the news that it was read")
        assert [message["text"] for message in bert.messages()] == ["read me later"]
