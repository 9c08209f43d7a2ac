"""Make text of strangers harmless to show: names, messages, file names, error texts.

One rule set for terminal, log and web page, so that nothing depends on which of them shows a text (security.md, X1):

- Control characters (C0 with ESC, DEL, C1), private-use characters, surrogates and noncharacters become one U+FFFD per
  run: the reader sees that something was there, and nothing can start an escape sequence or forge a log line.
- Format characters vanish: bidi overrides and isolates (text must not reorder what stands around it), zero-width
  characters and tags (two names must not look the same, nothing must hide in a text). The one exception is the zero
  width joiner between two symbols, which makes one emoji of several.
- Line ends become U+0020, or one LF with `newline=True`; every other kind of space becomes U+0020.
- At most MAX_MARKS combining marks follow a character, none stands without one.
- The result is in NFC and at most `limit` characters long.

`<` and `&` stay: a page inserts the result as *text* (`textContent`, `html.escape`); escaping here would show `&lt;` in
a terminal. Letters written from right to left stay too; a page wraps the text in `<bdi>`.

`clean(clean(x)) == clean(x)`, so a text may pass through on the way in and again when it is shown.
"""

from __future__ import annotations

import unicodedata

__all__ = ["MAX_MARKS", "clean", "clean_name"]

MAX_MARKS = 4  # chosen: Vietnamese needs 2, Hebrew and Thai 3, Arabic 3; stacks beyond are decoration
MAX_TEXT = 15_000  # characters; the longest message has as many bytes
MAX_NAME = 32  # characters
_REPLACEMENT = "\ufffd"
_ELLIPSIS = "\u2026"
_JOINER = "\u200d"
_TAB_SPACES = "    "
_LINE_ENDS = frozenset("\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029")
# Of general categories that are otherwise kept, yet invisible (Unicode's Default_Ignorable_Code_Point) or hidden data:
# combining grapheme joiner, Hangul fillers, Khmer inherent vowels, Mongolian and most variation selectors.
# Emoji and text presentation (FE0E, FE0F) are in ordinary use and stay.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2065\u3164\uffa0")
_BLANK_SYMBOL = "\u2800"  # braille pattern blank: a symbol that looks like a space
_NAME_SEPARATORS = str.maketrans(dict.fromkeys("/\\@:" + _REPLACEMENT + _BLANK_SYMBOL, " "))


def clean(text: str, *, limit: int = MAX_TEXT, newline: bool = False) -> str:
    """Return `text` made harmless: at most `limit` (1 or more) characters, ending in an ellipsis when cut.

    `newline`: keep line ends (as LF) and widen tabs; False gives one line, for names, logs and lists.
    Work is bounded by `limit`, not by the length of `text`.
    """
    if limit < 1:
        raise ValueError("limit is 1 or more")
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text
    # What is dropped may hide what follows: four times the limit is more than any honest text loses.
    window = text[: 4 * limit]
    # Marks are cut before NFC, which sorts each run of them in quadratic time, and after it, because it splits some.
    result = _limit_marks(unicodedata.normalize("NFC", _limit_marks(_filter(window, newline=newline))))
    result = _limit_joiners(result)
    if len(result) > limit or len(window) < len(text):
        result = result[: limit - 1].rstrip(_JOINER) + _ELLIPSIS
    return result


def clean_name(text: str) -> str:
    """Return a name to show and to type: 1 to 32 characters on one line, or "" when nothing usable is left.

    The separators of the input language and of addresses (`/`, `\\`, `@`, `:`) become spaces, runs of spaces one space;
    no name begins with `-` (an option), is invisible, or begins like an id (it would pass for somebody's key).
    """
    name, before = clean(text[: 8 * MAX_NAME]), None
    while name != before:  # each step may bare what the next removes; none lengthens the name, so it ends
        before = name
        name = _limit_marks(name.translate(_NAME_SEPARATORS))
        name = _limit_joiners(" ".join(name.split()).lstrip("- ")[:MAX_NAME])
    if name.casefold().startswith(("p2p1", "12d3koow")) or not any(_is_visible(char) for char in name):
        return ""
    return name


def _filter(text: str, *, newline: bool) -> str:
    """Replace or drop every character that must not be shown."""
    text = text.replace("\r\n", "\n")
    out: list[str] = []
    for index, char in enumerate(text):
        if char in _LINE_ENDS:
            out.append("\n" if newline else " ")
            continue
        if char == "\t":
            out.append(_TAB_SPACES if newline else " ")
            continue
        category = unicodedata.category(char)
        if category == "Zs":
            out.append(" ")
        elif category in ("Cc", "Co", "Cs") or _is_noncharacter(char):
            if not out or out[-1] != _REPLACEMENT:
                out.append(_REPLACEMENT)
        elif char == _JOINER:
            if unicodedata.category(text[index + 1 : index + 2] or " ") == "So":
                out.append(char)  # `_limit_joiners` looks at its left side, once the marks there are settled
        elif category != "Cf" and not _is_invisible(char):
            out.append(char)
    return "".join(out)


def _limit_joiners(text: str) -> str:
    """Drop each zero width joiner that does not stand between two symbols (the left one perhaps with its variant)."""
    if _JOINER not in text:
        return text
    out: list[str] = []
    for index, char in enumerate(text):
        follows = text[index + 1 : index + 2]
        if char != _JOINER or (out and _joins(out[-1]) and follows and unicodedata.category(follows) == "So"):
            out.append(char)
    return "".join(out)


def _joins(char: str) -> bool:
    """Whether a joiner may follow: a symbol, a skin tone (Sk beyond the BMP), or the sign for emoji presentation."""
    category = unicodedata.category(char)
    return char == "\ufe0f" or category == "So" or (category == "Sk" and char > "\uffff")


def _is_noncharacter(char: str) -> bool:
    code = ord(char)
    return code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF


def _is_invisible(char: str) -> bool:
    code = ord(char)
    return char in _INVISIBLE or 0xFE00 <= code <= 0xFE0D or 0xFFF0 <= code <= 0xFFF8 or 0xE0000 <= code <= 0xE0FFF


def _is_visible(char: str) -> bool:
    return unicodedata.category(char)[0] in "LNPSC" and char not in (_JOINER, _BLANK_SYMBOL)


def _limit_marks(text: str) -> str:
    """Drop combining marks beyond MAX_MARKS in a row, and those at the start of a line, which would join a prompt."""
    out: list[str] = []
    room = 0
    for char in text:
        if unicodedata.category(char)[0] == "M":
            if room:
                out.append(char)
                room -= 1
        else:
            out.append(char)
            if char != _JOINER:  # it may still vanish, and the marks after it would then join those before
                room = 0 if char in "\n " else MAX_MARKS
    return "".join(out)
