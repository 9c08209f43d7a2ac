"""Offline delivery as users have it: real processes on loopback, both never there at the same time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support.processes import Peer, eventually, processes

from p2pnode import Home
from p2pnode.api import types as t
from p2pnode.api.client import Client

pytestmark = pytest.mark.long


def can_leave_mail(peer: Peer) -> bool:
    return all(contact.mail for contact in Client(Home(peer.home)).get("/v1/contacts", t.Contacts).contacts)


def state_of(peer: Peer, text: str) -> str:
    history = Client(Home(peer.home)).get("/v1/history", t.Messages, t.HistoryQuery("bert"))
    return next((each.state for each in history.messages if each.text == text), "")


def test_message_waits_in_the_network_while_both_are_away(tmp_path: Path) -> None:
    """anna writes to bert, who is away, and leaves; bert comes back alone and has it; anna learns it."""
    with processes(tmp_path) as running:
        nodes = [running.bootstrap("boot1")]
        nodes.append(running.bootstrap("boot2", "--bootstrap", nodes[0].ready()["bootstrap"]))
        anna = running.join("anna", bootstrap=nodes[:1])
        bert = running.join("bert", bootstrap=nodes[1:2])
        for one, other in ((anna, bert), (bert, anna)):
            one.ready()
            assert one.cli("contacts", "add", other.user, "--name", other.home.name).code == 0
        assert anna.cli("send", "bert", "we are both here", "--wait", "30", timeout=60.0).code == 0
        eventually(lambda: can_leave_mail(anna) and can_leave_mail(bert), timeout=60.0, what="the means to leave mail")
        bert.stop(timeout=20.0)
        sent = anna.cli("send", "bert", "read me later", "--wait", "0.5", "--json", timeout=60.0)
        assert (sent.code, sent.json["delivered"]) == (0, False)
        eventually(lambda: state_of(anna, "read me later") == "stored", timeout=60.0, what="stored")
        anna.stop(timeout=20.0)
        bert = running.join("bert", bootstrap=nodes[1:2])
        event = bert.wait_event(lambda e: e["event"] == "message", timeout=60.0)
        assert (event["text"], event["from_name"]) == ("read me later", "anna")
        anna = running.join("anna", bootstrap=nodes[:1])
        anna.ready(timeout=60.0)
        eventually(lambda: state_of(anna, "read me later") == "delivered", timeout=60.0, what="delivered")
        assert [message["text"] for message in bert.messages()] == ["read me later"]


def test_a_strangers_first_message_waits_for_somebody_who_is_away(tmp_path: Path) -> None:
    """anna never met bert, who is away; she writes and leaves; bert comes back alone and has a request."""
    with processes(tmp_path) as running:
        nodes = [running.bootstrap("boot1")]
        nodes.append(running.bootstrap("boot2", "--bootstrap", nodes[0].ready()["bootstrap"]))
        anna = running.join("anna", bootstrap=nodes[:1])
        bert = running.join("bert", bootstrap=nodes[1:2])
        anna.ready()
        bert.ready()
        time.sleep(10.0)  # his key is published some seconds after he has joined
        bert.stop(timeout=20.0)
        sent = anna.cli("send", bert.user, "we never met", "--wait", "0.5", "--json", timeout=60.0)
        assert (sent.code, sent.json["delivered"]) == (0, False)

        def state() -> str:
            history = Client(Home(anna.home)).get("/v1/history", t.Messages, t.HistoryQuery(bert.user))
            return history.messages[0].state

        eventually(lambda: state() == "stored", timeout=90.0, what="stored")
        anna.stop(timeout=20.0)
        bert = running.join("bert", bootstrap=nodes[1:2])
        event = bert.wait_event(lambda e: e["event"] == "message", timeout=60.0)
        assert event["text"] == "we never met"
        assert [message["text"] for message in bert.messages()] == ["we never met"]
