"""Corpus keys that are kept because an update would move them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from tests import pico
from tests.edit import cases
from unlearn.algebra.low_rank import LowRank
from unlearn.edit import pipeline
from unlearn.edit.corpus import Corpus
from unlearn.edit.solve.hard_negatives import corpus_keys, most_moved
from unlearn.model.encoding import text_ids
from unlearn.model.forward import read
from unlearn.policy import StatisticsSpec
from unlearn.policy.settings import AlphaEdit

OTHER = "A wet stone lies by the road, and nobody asks what it is made from."


def corpus(folder: Path, *lines: str) -> Corpus:
    path = folder / "text.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return Corpus(str(path))


def test_keys_are_those_of_the_corpus_less_documents_that_name_a_subject(tmp_path: Path) -> None:
    model, requests = pico.pico("llama"), cases.requests()
    found = corpus_keys(model, requests, corpus(tmp_path, "Zorvex is green.", OTHER), [1, 2], 1000)
    ids = text_ids(model.tokenizer, OTHER)
    for layer in (1, 2):
        assert torch.allclose(
            found[layer], read(model, [ids], [range(len(ids))], [layer]).keys[layer], atol=1e-5
        )
    tested = replace(requests, held_out_neighbours=(replace(requests.neighbours[0], subject="nobody"),))
    assert corpus_keys(model, tested, corpus(tmp_path, OTHER), [1], 1000) == {}


def test_no_more_tokens_than_asked_for(tmp_path: Path) -> None:
    found = corpus_keys(pico.pico("llama"), cases.requests(), corpus(tmp_path, *[OTHER] * 300), [1], 777)
    assert found[1].shape == (64, 777)


def test_the_tokens_that_move_most_are_chosen_and_then_the_next() -> None:
    torch.manual_seed(0)
    delta, keys = LowRank(torch.randn(5, 2), torch.randn(2, 8)), torch.randn(8, 50)
    order = (delta.dense() @ keys).norm(dim=0).argsort(descending=True)
    once = most_moved(delta, keys, torch.zeros(50, dtype=torch.bool), 0.1)
    assert set(once.nonzero()[:, 0].tolist()) == set(order[:5].tolist())
    twice = most_moved(delta, keys, once, 0.1)
    assert set(twice.nonzero()[:, 0].tolist()) == set(order[:10].tolist())


def test_an_edit_with_hard_negatives_moves_the_corpus_less(tmp_path: Path) -> None:
    model = pico.pico("llama")
    text = corpus(tmp_path, *(f"{line} {n}" for n in range(12) for line in pico.LINES), *[OTHER] * 40)
    keys = corpus_keys(model, cases.requests(), text, [1], 2000)[1]

    def moved(tokens: int) -> float:
        method = AlphaEdit(
            layers=(1,), steps=4, null_space=0.7, target_probability=None, hard_negatives=tokens
        )
        requests = cases.requests(method=method, statistics=StatisticsSpec(corpus=text.name, tokens=2000))
        (delta,) = pipeline.edit(model, requests).factors.values()
        return float((delta.dense() @ keys).norm(dim=0).max())

    assert moved(2000) < 0.7 * moved(0)


def test_a_document_longer_than_the_context_is_cut(tmp_path: Path) -> None:
    model = pico.pico("llama")
    long = " ".join([OTHER] * 20)
    assert len(text_ids(model.tokenizer, long)) > model.context
    found = corpus_keys(model, cases.requests(), corpus(tmp_path, long), [1], 1000)
    assert found[1].shape[1] == model.context
