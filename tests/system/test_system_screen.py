"""The chat's screen on real terminals (tmux), as two people use it."""

from __future__ import annotations

from pathlib import Path

from support.terminals import terminals


def test_two_screens_chat_in_the_hall_and_alone(tmp_path: Path) -> None:
    """No option but --home, 80 columns and 24 rows: whoever just types after the welcome is understood; an arriving
    message leaves a half-typed one alone; leaving gives the terminal back as it was."""
    with terminals(tmp_path) as desk:
        anna = desk.open("anna", "join", "anna", width=80, height=24)
        bert = desk.open("bert", "join", "bert", width=80, height=24)
        anna.wait_for("Welcome, anna")
        bert.wait_for("Welcome, bert")
        anna.press("Escape")
        anna.wait_for("# hall: 1 other")
        bert.press("Escape")
        bert.wait_for("# hall: 1 other")
        anna.type("hello from the first terminal")
        bert.wait_for(r"anna~\w+: hello from the first")
        anna.wait_for("you: hello from the first terminal \u2713")
        anna.type("half a li", enter=False)
        bert.type("and from the second")
        assert "half a li" in anna.wait_for(r"bert~\w+: and from the second")
        anna.type("ne")
        bert.wait_for("half a line")
        bert.type("anna/psst")
        anna.wait_for("bert~\\w+ +1 ")
        anna.press("C-n")
        anna.wait_for(r"bert~\w+: psst")
        anna.press("F3")
        anna.wait_for("Direct on the local network")
        anna.type(r"\who")
        anna.wait_for("waits for your answer")
        bert.press("F1")
        bert.wait_for("Commands")
        bert.press("Escape")
        bert.wait_for("# hall: 1 other")
        bert.type(r"\quit")
        bert.wait_for("exit=0", timeout=5)
        assert "hall" not in bert.screen()
        anna.press("C-c")
        anna.wait_for("exit=130", timeout=5)
