"""A corpus read in shares: together they are the whole, and no batch is read twice."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

from tests.files import corpus_file, model_folder
from unlearn.edit import reading as reading_room
from unlearn.edit.corpus import Corpus
from unlearn.edit.reading import Reading, collected
from unlearn.model.editable import EditableModel
from unlearn.model.standing import Standing
from unlearn.progress import NO_PROGRESS
from unlearn.sums import Seat

BUDGET = 400


class Case(NamedTuple):
    corpus: Corpus
    reading: Reading


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    place = tmp_path_factory.mktemp("reading")
    model = EditableModel.load(str(model_folder(place / "model")), device="cpu")
    assert model.origin is not None
    corpus = Corpus(str(corpus_file(place / "text.jsonl")))
    batches = list(reading_room._batched(model, corpus, 2000, BUDGET))
    return Case(corpus, Reading(Standing(model.origin, model.identity()), (1, 2), batches, 2000))


def test_the_shares_of_three_processes_are_the_whole(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, reading = case
    kept: dict[object, object] = {}
    shares = [reading.share(Seat(number, 3), kept) for number in range(3)]
    assert len(kept) == 1  # the model is loaded once
    model = reading.standing.there(kept)
    monkeypatch.setattr(reading_room, "token_budget", lambda _: BUDGET)
    whole = collected(model, reading.layers, corpus, reading.tokens, NO_PROGRESS)
    counts = [int(share[-1]) for share in shares]
    assert sum(counts) == whole[1].count == 2000 and min(counts) > 400
    for at, layer in enumerate(reading.layers):
        together = torch.stack([share[at] for share in shares]).sum(0)
        assert float((together - whole[layer].total).norm() / whole[layer].total.norm()) < 1e-12
        alone = 3 * shares[0][at] - whole[layer].total
        assert float(alone.norm() / whole[layer].total.norm()) > 1e-4


def test_a_program_that_is_launched_so_reads_alone(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """`import unlearn` in somebody's own torchrun: its processes are not this command line's."""
    corpus, reading = case
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    model = EditableModel.load(reading.standing.origin.name, device="cpu")
    whole = collected(model, reading.layers, corpus, reading.tokens, NO_PROGRESS)
    assert whole[1].count == reading.tokens


def test_a_seat_is_what_the_launcher_says() -> None:
    assert Seat.taken({}) == Seat(0, 1, 0)
    told = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
    assert Seat.taken(told) == Seat(3, 4, 1)
    for wrong in ({"RANK": "4"}, {"RANK": ""}, {"WORLD_SIZE": "many"}):
        assert Seat.taken({**told, **wrong}) == Seat()
