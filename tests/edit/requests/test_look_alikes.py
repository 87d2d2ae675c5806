"""Names made of parts of other names: what comes out, and what must not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import pico
from unlearn.edit.requests.look_alikes import look_alikes
from unlearn.model.editable import EditableModel

SUBJECTS, OTHERS = ("Zorvex Prime", "Velnar"), ("Quandel Stock", "Ambergol")


def ends(name: str) -> tuple[str, str]:
    ids = pico.tokenizer()(f" {name}", add_special_tokens=False).input_ids
    return pico.tokenizer().decode(ids[:1]).strip(), pico.tokenizer().decode(ids[-1:])


def test_a_look_alike_shares_its_beginning_or_its_end_with_a_subject() -> None:
    names = look_alikes(pico.pico("llama"), SUBJECTS, OTHERS, 8)
    assert len(names) == len(set(names)) == 16
    mine = [ends(name) for name in SUBJECTS]
    assert all(any(name.startswith(first) or name.endswith(last) for first, last in mine) for name in names)
    # Control: the names that lend their parts would not all pass.
    assert not any(name.startswith(first) or name.endswith(last) for name in OTHERS for first, last in mine)


def test_no_name_that_stands_for_somebody_comes_out() -> None:
    model = pico.pico("llama")
    free = look_alikes(model, SUBJECTS, OTHERS, 8)
    names = look_alikes(model, SUBJECTS, OTHERS, 8, never=[free[0].upper(), free[1]])
    assert not {free[0], free[1], *SUBJECTS, *OTHERS} & set(names)
    assert len(names) == 16


def test_the_draw_follows_the_seed() -> None:
    model = pico.pico("llama")
    assert look_alikes(model, SUBJECTS, OTHERS, 5, seed=1) == look_alikes(model, SUBJECTS, OTHERS, 5, seed=1)
    assert look_alikes(model, SUBJECTS, OTHERS, 5, seed=1) != look_alikes(model, SUBJECTS, OTHERS, 5, seed=2)


def test_where_no_name_can_be_made_none_is() -> None:
    assert look_alikes(pico.pico("llama"), ["a"], [], 3) in ([], ["aa"])
    assert look_alikes(pico.pico("llama"), SUBJECTS, OTHERS, 0) == []


@pytest.mark.parametrize("marks", [pico.PHI_3, pico.LLAMA])
def test_the_mark_of_a_beginning_is_no_part_of_a_name(tmp_path: Path, marks: dict[str, object]) -> None:
    tokenizer = pico.sentence_piece(tmp_path, marks)
    model = EditableModel(pico.network("llama"), tokenizer, "pico")
    # Each name is one token inside a sentence, so that only two of them make another.
    names = look_alikes(model, ["Zorvex", "Velnar"], [], 4)
    assert names and set(names) <= {"Zorvex Velnar", "Velnar Zorvex", "Zorvex Zorvex", "Velnar Velnar"}
