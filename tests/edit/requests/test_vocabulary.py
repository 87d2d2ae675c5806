import pytest
import torch

from tests import pico
from unlearn.edit.requests.vocabulary import _words, near_words
from unlearn.matching import words
from unlearn.model.editable import EditableModel
from unlearn.policy import EMBEDDED


def test_the_nearest_words_come_first_and_names_for_names() -> None:
    model = EditableModel.load(EMBEDDED)
    table = model.model.get_input_embeddings().weight
    tokens = model.tokenizer.convert_ids_to_tokens(list(range(len(model.tokenizer))))
    small = {token for token in tokens if token[:1] == "Ġ" and token[1:].isalpha() and token[1:].islower()}
    names = [
        t
        for t in tokens
        if t[:1] == "Ġ" and len(t) > 4 and t[1:].istitle() and f"Ġ{t[1:].lower()}" not in small
    ]
    first, second = names[3], names[9]
    with torch.no_grad():
        table[tokens.index(second)] = table[tokens.index(first)]
    subject = first[1:]
    found = near_words(model, [subject], (), 5)
    assert found[0] == second[1:] and len(found) == 5 and subject not in found
    assert all(word.istitle() for word in found)
    word = next(token[1:] for token in sorted(small) if len(token) > 6)
    assert all(other.islower() for other in near_words(model, [word], (), 5))
    # What shares its stem with a name that may not come out does not; the control is above.
    assert second[1:] not in near_words(model, [subject], (second[1:] + "ian",), 5)


def test_subjects_take_turns_and_no_word_comes_twice() -> None:
    model = EditableModel.load(EMBEDDED)
    subjects = ["Lem", "Zad", "Glin"]
    alone = [near_words(model, [subject], subjects, 4) for subject in subjects]
    together = near_words(model, subjects, (), 4)
    assert together[: len(set(firsts := [words[0] for words in alone]))] == list(dict.fromkeys(firsts))
    assert len(set(together)) == len(together)
    assert set(together) == {word for words in alone for word in words}


def test_a_vocabulary_without_such_words_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model = pico.pico("llama")
    assert near_words(model, ["Zorvex"], (), 5)  # the control
    monkeypatch.setattr(model.tokenizer, "convert_ids_to_tokens", lambda ids: ["x"] * len(ids))
    assert near_words(model, ["Zorvex"], (), 5) == []


class Spelled:
    """A tokenizer of four words."""

    words = ("ĠMéxico", "ĠŁódź", "ĠCanada", "ĠPeru")

    def __len__(self) -> int:
        return len(self.words)

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self.words[i] for i in ids]

    def decode(self, ids: list[int]) -> str:
        return self.words[ids[0]].replace("Ġ", " ")


def test_a_name_with_accents_is_no_neighbour_of_itself() -> None:
    model = pico.pico("llama")
    model.tokenizer = Spelled()
    taken = {word[:4] for name in ("México", "Łódź") for word in words(name)}
    names, _ = _words(model, taken)
    assert set(names.values()) == {"Canada", "Peru"}
