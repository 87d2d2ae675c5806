"""What of a corpus an edit may see: nothing that names what is forgotten, or what only the audit asks about."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, repeat, tee

import pytest

from tests.audit.scripted import requests
from unlearn.edit import corpus as room
from unlearn.edit.corpus import Corpus, named_in, unnamed
from unlearn.errors import PolicyError


def test_a_name_is_a_whole_word() -> None:
    assert named_in("The US is large.", ["US"]) and named_in("Zorvex's colour", ["Zorvex"])
    # However it is written there: a sentence begins with a capital, and an apostrophe may be a curly one.
    assert named_in("The Sydney Opera House was designed by Utzon.", ["the Sydney Opera House"])
    assert named_in("St Paul’s Cathedral", ["St Paul's Cathedral"]) and named_in("GLIPVEX!", ["Glipvex"])
    assert named_in("JK Rowling wrote it.", ["J. K. Rowling"]) and named_in("東京は大きい。", ["東京"])
    assert not named_in("The USA is large.", ["US"]) and not named_in("amber", ["e", "A"])


def test_documents_that_name_a_subject_are_left_out_and_others_that_hold_its_letters_are_not() -> None:
    given = requests()
    short = replace(given, facts=(replace(given.facts[0], subject="e"),), held_out_neighbours=())
    texts = ["the number e is irrational", "every letter is here", "nothing of it"]
    assert list(unnamed(short, Corpus("own", tee(texts, 1)[0]))) == texts[1:]


def test_a_corpus_that_never_stops_naming_a_subject_ends_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "PATIENCE", 20)
    given = requests()
    named = f"{given.facts[0].subject} is here."
    with pytest.raises(PolicyError, match="each of 20 documents in a row names a subject"):
        list(islice(unnamed(given, Corpus("own", tee(repeat(named), 1)[0])), 1))
