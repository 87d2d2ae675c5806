"""What several processes make, added up: in the order of one, and with no step in which one waits for ever."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests.files import THREE, corpus_file, model_folder, pico_policy
from tests.three import SEATS, Nothing
from tests.two import HELPING, OPTIONS, beside, ended
from unlearn import sums, team
from unlearn.edit import reading
from unlearn.edit.corpus import Corpus
from unlearn.edit.solve import values
from unlearn.errors import UnlearnError
from unlearn.model import generation
from unlearn.model.editable import EditableModel
from unlearn.policy.file import load_policy
from unlearn.progress import NO_PROGRESS


@pytest.mark.parametrize("count", [0, 1, 5])
def test_pieces_done_by_several_are_added_up_in_their_order(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = [1e8 * torch.randn(4, generator=torch.Generator().manual_seed(n)) for n in range(count)]
    pieces += [torch.ones(4)] * min(count, 1)
    monkeypatch.setattr(sums, "added", lambda work, _: work())
    numbers, like = range(len(pieces)), [torch.zeros(4)]
    shares = [
        sums.stacked(lambda n: [pieces[n]], seat.of(numbers), like, len(pieces), seat)[0] for seat in SEATS
    ]
    found = sums.total(sum(shares[1:], shares[0]))
    expected = torch.zeros(4)
    for piece in pieces:
        expected += piece
    assert torch.equal(found, expected)
    if count == 5:  # the control: in another order the last digits differ
        assert not torch.equal(sums.total(torch.stack(pieces[::-1])), expected)


def test_text_that_the_model_writes_is_written_by_all_and_read_by_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model_folder(tmp_path / "model")
    # As on a GPU, where a chat model's text takes several batches.
    monkeypatch.setattr(generation, "held_tokens", lambda _: 32768)
    monkeypatch.setattr(generation, "MOST", 150)
    found = []

    def read() -> int:
        model = EditableModel.load(str(folder), device="cpu", dtype="bfloat16")
        policy = load_policy(tmp_path / "policy.yaml")
        found.append(reading.collected(model, [1, 2], Corpus.of(policy, model), 3000, NO_PROGRESS))
        return 0

    (tmp_path / "policy.yaml").write_text(pico_policy(folder, Path("own"), audit=""))
    read()
    with beside(monkeypatch, HELPING) as other:
        assert team.led(read) == 0 == other.wait()
    alone, together = found
    assert together[1].count == alone[1].count >= 3000
    assert float((together[1].total - alone[1].total).norm() / alone[1].total.norm()) < 1e-9


TOO_LARGE = """
import sys, torch
from unlearn import team
from unlearn.edit.solve import values

def full(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory")

values.suspend = full
sys.exit(team.led(lambda: 99))
"""
"""A process that has too little memory before the first common step."""


@pytest.mark.parametrize("here", [True, False])
def test_one_that_fails_between_two_common_steps_ends_all_with_its_sentence(
    here: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    place = tmp_path / "place"
    place.mkdir()
    model, corpus = model_folder(place / "model"), corpus_file(place / "corpus.jsonl", lines=300)
    (policy := place / "policy.yaml").write_text(pico_policy(model, corpus, facts=THREE))
    # As small as the run is, one batch would hold all of it, and nothing would be shared out.
    monkeypatch.setattr(values, "token_budget", lambda *_, **__: 32)
    if here:
        monkeypatch.setattr(values, "suspend", full)
    with beside(monkeypatch, HELPING if here else TOO_LARGE) as other:
        assert ended("apply", policy, "--out", tmp_path / "run", *OPTIONS) == 1
        assert other.wait(timeout=60) == 1
    assert "out of memory" in capfd.readouterr().err
    assert os.listdir(tmp_path) == ["place"]


def test_a_share_hands_out_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> int:
        with pytest.raises(UnlearnError, match="shared again"):
            team.summed(Nothing(), team.seated(), lambda: team.summed(Nothing(), team.seated(), list))
        assert team.summed(Nothing(), team.seated(), list) == []
        return 0

    with beside(monkeypatch, HELPING) as other:
        assert team.led(run) == 0 == other.wait(timeout=60)
