"""Training: labels, optimiser, and going on after a stop ends in the same weights."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch

from tools.embedded import train, vocabulary
from unlearn.embedded import talk


def test_a_chat_learns_replies_only_and_a_text_everything() -> None:
    bos, user, assistant, end = 1, 2, 3, 4
    ids = [bos, user, 10, 11, end, assistant, 12, end, user, 13, end, assistant, 14, end]
    same, labels = vocabulary.labelled(ids, assistant, user, end)
    assert same == ids
    assert [token for token in labels if token != -100] == [12, end, 14, end]
    ids, labels = vocabulary.labelled([bos, 20, 21], assistant, user, end)
    assert (ids, labels) == ([bos, 20, 21, end], [-100, 20, 21, end])


def test_batches_are_the_same_again_and_begin_at_bos() -> None:
    tokenizer = vocabulary.build_tokenizer()
    settings = train.Settings(batch_tokens=512)
    first = list(islice(train.batches(tokenizer, settings), 6))
    again = list(islice(train.batches(tokenizer, settings), 6))
    for (ids, labels), (ids2, labels2) in zip(first, again, strict=True):
        assert torch.equal(ids, ids2) and torch.equal(labels, labels2)
        assert ids.shape[1] in train.LENGTHS and ids.numel() <= 512
        assert (ids[:, 0] == tokenizer.bos_token_id).all()
        assert (labels[ids == tokenizer.pad_token_id] == -100).all()


def test_rate_warms_up_holds_and_ends_at_nothing() -> None:
    settings = train.Settings(tokens=5120 * 1000, brief_tokens=5120 * 400, brief_rate=0.5)
    assert (settings.first, settings.steps) == (1000, 1400)
    assert settings.rate(0) == pytest.approx(0.01)
    assert settings.rate(300) == 1.0
    assert settings.rate(750) == pytest.approx(0.5)
    assert settings.rate(999) == pytest.approx(0.002)
    assert settings.rate(1000) == pytest.approx(
        0.5 * 0.01
    )  # the second stage warms up anew, to half the height
    assert settings.rate(1150) == 0.5
    assert settings.rate(1300) == pytest.approx(0.25)
    assert settings.rate(1400) == 0.0


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = train.Settings(tokens=256 * 2, brief_tokens=256 * 2, batch_tokens=256, warmup=1)
    monkeypatch.setattr(train.card, "write", lambda *_: {})
    train.train(settings, tmp_path / "whole", tmp_path / "a", "cpu", compiled=False, every=1e9)

    real, calls = train._loss, []

    def stops(*args: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "_loss", stops)
    with pytest.raises(KeyboardInterrupt):
        train.train(settings, tmp_path / "parts", tmp_path / "b", "cpu", compiled=False, every=0.0)
    monkeypatch.setattr(train, "_loss", real)
    train.train(settings, tmp_path / "parts", tmp_path / "b", "cpu", compiled=False, every=0.0)
    whole, parts = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_the_tokenizer_is_the_same_again() -> None:
    first, again = (vocabulary.build_tokenizer().backend_tokenizer.to_str() for _ in range(2))
    assert first == again
    assert talk.SPECIAL[0] == talk.PAD
