"""Lines for people: whole for scripts, folded on a narrow terminal."""

import io

import pytest

from p2pnode.cli.output import fold, steps

SENTENCE = (
    "Relayed through [2001:db8:1234:5678::1]:4747, because both routers choose a new random port for each destination"
    " (symmetric NAT). Enabling UPnP, NAT-PMP or PCP on either router would make it direct."
)
ROWS = [
    ("   0.000 s", "lookup", "started"),
    ("   0.412 s", "dial relay [2001:db8:1234:5678:9abc:def0:1234:5678]:4747", "connected (relay), both keys proven"),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")


def test_sentences_fit_a_terminal_and_stay_whole_for_scripts() -> None:
    """Nothing is lost either way."""
    folded = fold(SENTENCE, Terminal())
    assert max(map(len, folded)) <= 80
    assert " ".join(folded) == SENTENCE
    assert fold(SENTENCE, io.StringIO()) == [SENTENCE]


def test_steps_go_below_one_another_where_they_do_not_fit() -> None:
    """The result of a step with a long IPv6 address stands on a line of its own; columns elsewhere."""
    narrow = steps(ROWS, Terminal())
    assert max(map(len, narrow)) <= 80
    assert narrow[-1].strip() == ROWS[1][2]
    wide = steps(ROWS, io.StringIO())
    assert len(wide) == 2
    assert wide[0].index("started") == wide[1].index("connected")


def test_x1_what_a_peer_may_have_written_is_harmless() -> None:
    """Control characters in a step do not reach the terminal."""
    for stream in (Terminal(), io.StringIO()):
        lines = [*steps([("0 s", "dial\x1b[2J", "a\r\nb" + "x" * 90)], stream), *fold("a\x1b]0;b\x07c", stream)]
        assert all(line.isprintable() for line in lines)
