"""Text that a model writes by itself: in its template, the same every time, and as the model would have it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest
import torch

from tests import pico
from tests.edit import cases
from unlearn.edit import own_text as own
from unlearn.edit import pipeline
from unlearn.edit.corpus import Corpus
from unlearn.edit.statistics import tokens_of
from unlearn.model import narrow
from unlearn.model.editable import EditableModel
from unlearn.model.encoding import text_ids
from unlearn.model.prompts import ask
from unlearn.policy import EMBEDDED, OWN, StatisticsSpec
from unlearn.policy.settings_trained import NullSpaceTuning
from unlearn.store import Store


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "CHATS", 4)
    monkeypatch.setattr(own, "TURN", 6)
    monkeypatch.setattr(own, "REPLY", 8)


def documents(model: EditableModel, count: int = 12) -> list[str]:
    return list(islice(own.own_text(model), count))


def test_a_chat_model_writes_both_turns_in_its_template_and_replies_alone() -> None:
    model = pico.pico("llama")
    found = documents(model)
    chats, replies = found[0::2], found[1::2]
    asked = ask(model.tokenizer, "Who?").ids
    begin, end = asked[:2], model.tokenizer.decode(asked[-1:])
    for chat in chats:
        # As a document of a corpus it is read as the template renders it: the start token once, then the user's turn.
        ids = text_ids(model.tokenizer, chat)
        assert tuple(ids[:2]) == tuple(begin) and end in chat
    assert not any(mark in reply for reply in replies for mark in (end, "<|bos|>", "<|user|>"))
    assert len(set(found)) == len(found)


def test_a_model_without_a_template_goes_on_from_its_start() -> None:
    model = pico.pico("gpt2", chat=False)
    found = documents(model)
    assert len(set(found)) == len(found) and not any("<|" in text for text in found)


def test_the_text_is_the_same_every_time_and_another_models_is_another() -> None:
    model = pico.pico("llama")
    assert documents(model) == documents(model) != documents(pico.pico("qwen2"))


def test_what_has_been_written_is_kept_for_later_edits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, store = pico.pico("llama"), Store.at(tmp_path)
    first = list(islice(own.own_text(model, store), 12))
    assert first == documents(model)
    # It is not written again: nor is another model's taken for it, nor one of other lengths.
    monkeypatch.setattr(own, "_chats", lambda *_: ["written anew"])
    assert list(islice(own.own_text(model, store), 12)) == first
    assert next(own.own_text(pico.pico("qwen2"), store)) == "written anew"
    monkeypatch.setattr(own, "REPLY", 9)
    assert next(own.own_text(model, store)) == "written anew"


@pytest.mark.parametrize("quickest", [torch.float32, torch.bfloat16])
def test_a_training_finds_what_an_earlier_edit_has_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quickest: torch.dtype
) -> None:
    """It reads text when key statistics are known already, and in narrow products, where these pay."""
    monkeypatch.setattr(narrow, "quickest_dtype", lambda _device: quickest)
    monkeypatch.setattr(own, "CHATS", 24)
    model, store = pico.pico("llama"), Store.at(tmp_path)
    asked = cases.requests(
        statistics=StatisticsSpec(corpus=OWN, tokens=1000), method=NullSpaceTuning(layers=(1, 2), steps=1)
    )
    first = pipeline.edit(model, asked, store)
    written = sorted(path.name for path in tmp_path.rglob("text-*"))
    assert written
    again = pipeline.edit(model, asked, store)
    assert sorted(path.name for path in tmp_path.rglob("text-*")) == written
    for name, factors in first.factors.items():
        assert torch.equal(factors.dense(), again.factors[name].dense())


def test_auto_stands_for_it_but_on_the_embedded_model() -> None:
    model = pico.pico("llama")
    named = {
        (name, corpus): Corpus.of(
            cases.policy(model=name, statistics=StatisticsSpec(corpus=corpus)), model
        ).name
        for name in (EMBEDDED, "folder")
        for corpus in ("auto", OWN, EMBEDDED)
    }
    assert [key for key, got in named.items() if got == OWN] == [
        (EMBEDDED, OWN), ("folder", "auto"), ("folder", OWN)
    ]  # fmt: skip
    found = Corpus.of(cases.policy(model="folder"), model)
    first = list(islice(found.documents(), 5))
    assert first == documents(model, 5)
    # It is drawn once: the second reading does not ask the model.
    model.sample_ids = None  # type: ignore[assignment]
    assert list(islice(found.documents(), 5)) == first
    assert found.fingerprint() != Corpus(EMBEDDED).fingerprint()


def test_auto_has_as_many_tokens_written_as_keys_are_long_and_reads_more() -> None:
    small, wide = pico.pico("llama"), pico.pico("llama", inner=2048)
    written, read = StatisticsSpec(), StatisticsSpec(corpus=EMBEDDED)
    assert tokens_of(cases.policy(statistics=written), small) == 20_000
    assert tokens_of(cases.policy(statistics=written), wide) == 20 * 2048
    assert tokens_of(cases.policy(statistics=read), wide) == 200_000
    assert tokens_of(cases.policy(statistics=StatisticsSpec(tokens=1500)), wide) == 1500


def test_steps_are_counted_by_batches_of_documents() -> None:
    batch = 4 * (6 + 2 * 8) // 2
    assert [own.steps_of(tokens) for tokens in (1, batch, batch + 1, 5 * batch)] == [14, 14, 28, 70]


def test_a_model_whose_tokenizer_puts_nothing_in_front_does_not_go_on_from_padding() -> None:
    model = pico.pico("gpt2", chat=False)
    tokenizer = copy.deepcopy(pico.tokenizer(chat=False, bos=False))
    tokenizer.pad_token = "<|system|>"
    model = EditableModel(model.model, tokenizer, "pico")
    begun: list[tuple[int, ...]] = []

    def noted(rows: Sequence[tuple[int, ...]], *_: object, **__: object) -> list[list[tuple[int, ...]]]:
        begun.extend(rows)
        return [[(5, 6)] for _ in rows]

    model.sample_ids = noted  # type: ignore[method-assign, assignment]
    next(own.own_text(model))
    wanted = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    assert begun == [(wanted,)] and wanted not in (None, model.pad_id)
