"""Making text harmless: what changes and what stays."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnode.core.clean import MAX_MARKS, clean, clean_name

# Characters whose combinations have surprising normal forms, joiners, marks, and everything else
_TRICKY = "a-/@: \n\r\t\x1b…\u0301\u0344\u093c\u0958\U0001d15e\U0001d160\U0001d165\u09c7\u09be\u1100\u1161\u200d\ufe0f"
tricky_text = st.text(
    st.one_of(st.sampled_from(_TRICKY + "😀♂\U0001f3fd\u2800\u2028\ufffd\u202e\U000e0041"), st.characters())
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hello, world!",
        "naïve café — “quotes” … 5 € 3×4",
        "Việt Nam",
        "שָׁלוֹם עולם",
        "مرحبا بالعالم",
        "नमस्ते दुनिया",
        "สวัสดีชาวโลก",
        "こんにちは、世界",
        "안녕하세요",
        "👨\u200d👩\u200d👧 👍🏽 ❤\ufe0f 🏳\ufe0f\u200d🌈",
        "<b>&amp;</b>",
    ],
)
def test_honest_text_stays(text: str) -> None:
    """Text of many scripts, emoji sequences and markup characters pass unchanged (in NFC)."""
    assert clean(text) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one\ntwo\r\nthree\u2028four", "one two three four"),
        ("tab\there", "tab here"),
        ("no\xa0break\u3000wide", "no break wide"),
        ("e\u0301", "é"),
        ("half\ud800pair", "half\ufffdpair"),
        ("pri\ue000vate", "pri\ufffdvate"),
        ("non\ufffe\U0001ffffcharacter", "non\ufffdcharacter"),
        ("soft\xadhyphen", "softhyphen"),
        ("\u0301leading mark", "leading mark"),
    ],
)
def test_what_becomes_what(text: str, shown: str) -> None:
    """Each rule of the module once."""
    assert clean(text) == shown


def test_lines_are_kept_on_wish() -> None:
    """With `newline`, every kind of line end is one LF and a tab is four spaces."""
    assert clean("a\r\nb\rc\u2029d\te", newline=True) == "a\nb\nc\nd    e"


def test_limit_counts_the_ellipsis() -> None:
    """A cut text ends in an ellipsis and is exactly as long as allowed; what fits is not cut."""
    assert clean("abcdef", limit=6) == "abcdef"
    assert clean("abcdef", limit=5) == "abcd…"
    assert clean("äbcdef", limit=1) == "…"
    with pytest.raises(ValueError, match="limit"):
        clean("a", limit=0)


@settings(max_examples=400, deadline=None)
@given(tricky_text, st.integers(1, 30), st.booleans())
def test_clean_is_idempotent_bounded_and_normal(text: str, limit: int, newline: bool) -> None:
    """Cleaning twice changes nothing; the limit holds; the result is NFC with few marks in a row."""
    shown = clean(text, limit=limit, newline=newline)
    assert clean(shown, limit=limit, newline=newline) == shown
    assert len(shown) <= limit
    assert unicodedata.is_normalized("NFC", shown)
    run = 0
    for char in shown:
        run = run + 1 if unicodedata.category(char)[0] == "M" else 0
        assert run <= MAX_MARKS


@settings(max_examples=400, deadline=None)
@given(tricky_text)
def test_names_can_be_typed_and_shown(text: str) -> None:
    """A name is empty or 1 to 32 clean characters without separators, and stays as it is when cleaned again."""
    name = clean_name(text)
    assert len(name) <= 32
    assert not set(name) & set("/\\@:\n\t")
    assert name == name.strip()
    assert not name.startswith("-")
    assert clean_name(name) == clean(name) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("alice", "alice"),
        ("  Anna \n Maria ", "Anna Maria"),
        ("bob/../etc", "bob .. etc"),
        ("carol@home:4747", "carol home 4747"),
        (":quit", "quit"),
        ("\\help", "help"),
        ("--force", "force"),
        ("x" * 100, "x" * 32),
        ("\u200b\u200d\u2060", ""),
        ("\u2800\u3164", ""),
        ("\x1b\x07", ""),
        ("12D3KooWD3eckifWpRn9", ""),
        ("P2P1fj66ha4d08", ""),
        ("", ""),
    ],
)
def test_names(text: str, name: str) -> None:
    """Separators become spaces, options and invisible names vanish, nobody is called like an id."""
    assert clean_name(text) == name
