"""Questions about nothing in particular, made of a corpus's words."""

from __future__ import annotations

from unlearn.edit.train.questions import ASKING, questions
from unlearn.policy import is_question

DOCUMENTS = [
    "The sun is warm, and {it} shines.",
    "",
    "Bread (of rye) is baked.",
    "( ... )",
    "Stones are hard.",
] * 20


def test_a_request_is_worded_like_one_and_holds_words_of_its_document() -> None:
    found = list(questions(DOCUMENTS, seed=0))
    asked = [document for document in DOCUMENTS if any(letter.isalpha() for letter in document)]
    assert len(found) <= len(asked)
    assert len(found) > 0.9 * len(asked)
    for number, question in enumerate(found):
        before, after = ASKING[number % len(ASKING)].split("{}")
        assert is_question(question) and question.startswith(before) and question.endswith(after)
        words = question[len(before) : -len(after)]
        assert words and any(words in document.replace("{", "").replace("}", "") for document in DOCUMENTS)
    ends = {question[-1] for question in found}
    assert ends == {"?", "."}


def test_the_words_are_drawn_by_the_seed() -> None:
    assert list(questions(DOCUMENTS, 1)) == list(questions(DOCUMENTS, 1)) != list(questions(DOCUMENTS, 2))


def test_where_there_are_no_words_nothing_is_asked() -> None:
    assert list(questions(["", " ", "..."], 0)) == []
