"""X1: hostile text in names, messages, file names and error texts is shown harmlessly (security.md)."""

from __future__ import annotations

import html
import itertools
import sys
import time
import unicodedata

import pytest

from p2pnode.core.clean import clean, clean_name

# Everything that moves the cursor, ends a line, reorders or hides text. Written out, not taken from the module.
C0_AND_C1 = [chr(code) for code in [*range(0x20), *range(0x7F, 0xA0)]]
BIDI = [chr(code) for code in [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]]
INVISIBLE = [
    chr(code)
    for code in [
        0xAD, 0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180E, 0x200B, 0x200C, 0x2060, 0x2061, 0x2064, 0x3164, 0xFEFF,
        0xFFA0, 0xFFF9, 0xFFFA, 0xFFFB, 0x1D173, 0xE0001, *range(0xE0020, 0xE0080), *range(0xE0100, 0xE01F0),
    ]
]  # fmt: skip
SEPARATORS = ["\u2028", "\u2029", "\x85"]


@pytest.mark.parametrize("newline", [False, True])
def test_x1_no_forbidden_character_survives(newline: bool) -> None:
    """Each control, bidi, invisible, tag and separator character, alone and within text, is gone or replaced."""
    allowed = {"\n"} if newline else set()
    for char in [*C0_AND_C1, *BIDI, *INVISIBLE, *SEPARATORS]:
        for text in (char, f"a{char}b", f"{char}{char}", f"\u200d{char}", f"😀{char}😀"):
            assert char not in set(clean(text, newline=newline)) - allowed, f"U+{ord(char):04X}"
            assert char not in clean_name(text), f"U+{ord(char):04X}"


@pytest.mark.slow
def test_x1_every_code_point_of_unicode() -> None:
    """Of all 1,114,112 code points, none that is shown is a control, format, surrogate, private or line character."""
    bad = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    chunk = 4096
    for start in range(0, sys.maxunicode + 1, chunk):
        shown = clean("".join(map(chr, range(start, start + chunk))), limit=2 * chunk)
        assert not {unicodedata.category(char) for char in shown} & bad, f"U+{start:04X}"


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[2J\x1b[H",  # clear the screen
        "\x1b]0;title\x07",  # window title
        "\x1b]52;c;Y3VybA==\x07",  # write the clipboard
        "\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\",  # hyperlink with another text
        "\x9b31m",  # C1 control sequence introducer
        "\x90q\x9c",  # device control string
        "\x1bP+q544e\x1b\\",  # asks the terminal, which answers on stdin
        "ok\rFORGED",
        "\b\b\b\bgone",
        "\x0e\x0f",  # shift to the line-drawing set
    ],
)
def test_x1_no_escape_sequence_reaches_a_terminal(text: str) -> None:
    """What clears, retitles, links, queries or overwrites loses the byte that makes it a sequence."""
    for shown in (clean(text), clean(text, newline=True), clean_name(text)):
        assert not any(unicodedata.category(char) == "Cc" and char != "\n" for char in shown)
    assert "\ufffd" in clean(text) or clean(text).isprintable()


def test_x1_a_message_cannot_forge_a_line() -> None:
    """In logs and lists each text is one line, whatever line ends it has."""
    for end in ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", *SEPARATORS]:
        shown = clean(f"hello{end}2026-01-01 alice: I resign")
        assert len(shown.splitlines()) == 1
        assert len(clean_name(f"bob{end}alice").splitlines()) == 1


def test_x1_bidi_cannot_turn_a_file_name_around() -> None:
    """`cod.exe` shown as `exe.doc`: the override vanishes and the true order is seen."""
    assert clean("photo\u202egnp.exe") == "photognp.exe"
    assert clean("\u2067right\u2069 \u200fmark") == "right mark"


def test_x1_two_names_that_look_alike_by_hidden_characters_are_one() -> None:
    """Zero-width characters, tags and fillers inside a name make no second name."""
    for char in [*INVISIBLE, "\u200d", "\ufe00"]:
        assert clean_name(f"ali{char}ce") == "alice"


def test_x1_html_is_text_after_escaping() -> None:
    """Nothing in a cleaned text can leave an escaped text node; clean adds no markup and hides none."""
    text = "<img src=x onerror=alert(1)>\u2028</script>&lt;\x00"
    shown = html.escape(clean(text))
    assert not set(shown) & set("<>\x00\u2028")
    assert clean("<scr\u200bipt>") == "<script>"  # hidden parts are visible before escaping, not after


@pytest.mark.parametrize("mark", ["\u0301", "\u0316\u0301", "\u20dd", "\u0344", "\u0489", "\u0e47", "\U0001d165"])
def test_x1_a_mebibyte_of_combining_marks(mark: str) -> None:
    """At most four marks follow a letter, in time bounded by the limit: normalising the whole would be quadratic."""
    text = ("a" + mark * (2**20 // len(mark)))[: 2**20]
    before = time.process_time()
    shown = clean(text, limit=200)
    spent = time.process_time() - before
    print(f"1 MiB of U+{ord(mark[0]):04X}: {len(shown)} characters in {spent * 1000:.1f} ms")
    assert len(shown) <= 7
    assert spent < 0.5  # CPU time; about 1 ms here, minutes with a naive normalisation
    assert len(clean_name(text)) <= 6


def test_x1_marks_do_not_climb_onto_neighbours() -> None:
    """No text begins with a mark, nor does any word: it would decorate the prompt or the time before it."""
    for before, count in itertools.product(["", " ", "\n", "\u200b", "\x1b"], range(1, 8)):
        shown = clean(f"{before}{chr(0x0335) * count}x", newline=True)
        marks = [i for i, char in enumerate(shown) if char == "\u0335"]
        assert all(shown[i - 1] not in "\n " and i > 0 for i in marks)


def test_x1_a_mebibyte_of_anything_is_cut() -> None:
    """Whatever is repeated a million times, no more than the limit is shown."""
    for char in ["x", "\x1b", "\u202e", "😀", "\u200d", "\n", "\ue000", "\u1100"]:
        assert len(clean(char * 2**20, limit=1000, newline=True)) <= 1000
        assert len(clean_name(char * 2**20)) <= 32
