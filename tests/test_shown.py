"""No text shown to a person holds a character that a terminal obeys, or that hides or reorders others."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn.shown import LONGEST, sentence, shown, shown_lines

HOSTILE = [
    "\x1b]0;TITLE\x07", "\x1b[2J\x1b[31mred", "\x9b31m", "\x85", "\x7f", "a\b\b\bb", "one\rtwo", "one\ntwo",
    "\u202egnp.exe", "\u2066x\u2069", "\u200fx", "pass\u200bword", "pass\u200dword", "\ufeffx", "soft\xadhyphen",
    "\u2028", "\ud800", "\U000e0041", "\ufffe", "\u3164", "\x00",
]  # fmt: skip
PLAIN = [
    "A plain sentence, with 'quotes', \\ and [brackets].", "दाल और दिल", "क्षत्रिय", "नि\u200dष्क", "می\u200cخواهم",
    "👩\u200d🚀 🏳️\u200d🌈", "Ünïcödé ßtraße", "星河的作者", "نص عربي", "ไทย", "a\xa0b", "", "x \U0001f600 y",
]  # fmt: skip

controls = st.text(
    st.one_of(
        st.sampled_from("\x1b\x07\x9b\r\n\t\u202e\u2066\u200b\u200c\u200d\ufeff\xad\ud800\u2028[]\\aक👩"),
        st.characters(),
    )
)


def is_hidden(letter: str) -> bool:
    """By Unicode's own categories, and not by the table of the module."""
    if letter in "\u200c\u200d":  # joiners stay where scripts need them
        return False
    if unicodedata.category(letter) == "Cf":  # Arabic's number signs are of this category, and are drawn
        return not 0x600 <= ord(letter) <= 0x8E2 or letter == "\u061c"
    return unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_terminal_obeys_or_hides_is_escaped(text: str) -> None:
    assert shown(text).isprintable()
    assert not any(map(is_hidden, shown(text)))
    assert "\\" in shown(text)


@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_of_any_script_stays_as_it_is(text: str) -> None:
    assert shown(text) == text == shown_lines(text)


def test_the_escape_says_which_character_it_was() -> None:
    assert shown("\x1b]0;x\x07") == "\\u001b]0;x\\u0007"
    assert shown("a\tb\r\nc") == "a\\tb\\r\\nc"
    assert shown("\U000e0041") == "\\udb40\\udc41"


@given(controls)
def test_nothing_hidden_is_left_and_nothing_changes_twice(text: str) -> None:
    once = shown(text)
    drawn_oddly = [letter for letter in once if is_hidden(letter)]
    # Format characters of scripts that are written today with signs that enclose what follows them.
    assert not [x for x in drawn_oddly if not 0x110BD <= ord(x) <= 0x13455], drawn_oddly
    assert shown(once) == once
    once.encode()


@given(controls)
def test_lines_keep_their_line_feeds_and_tabs_alone(text: str) -> None:
    found = shown_lines(text)
    assert found.replace("\n", "").replace("\t", "") == shown(text.replace("\n", "").replace("\t", "")) or (
        "\u200c" in text or "\u200d" in text
    )
    assert found.count("\n") == text.count("\n")
    assert shown_lines(found) == found


@given(st.recursive(st.text() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_a_json_document_stays_the_document_that_it_is(document: object) -> None:
    for indent in (None, 2):
        text = json.dumps(document, ensure_ascii=False, indent=indent)
        assert json.loads(shown_lines(text)) == document


@given(controls)
def test_a_sentence_is_one_line_of_a_bounded_length(text: str) -> None:
    assert len(sentence(text * 50)) <= LONGEST
    assert "\n" not in sentence(text) and "\r" not in sentence(text)


def test_a_sentence_keeps_its_beginning_and_its_end() -> None:
    assert sentence("two\nlines\r\n  of it ") == "two lines of it"
    long = sentence("begin " + "x" * 5000 + " end")
    assert long.startswith("begin xxx") and long.endswith("xxx end") and " ... " in long
    assert sentence("x" * LONGEST) == "x" * LONGEST
