"""An edit made again is the same edit, bit for bit: with a cold cache, a warm one and none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import pico
from tests.edit import cases
from unlearn.algebra.moments import Projector, Whitener
from unlearn.edit import pipeline
from unlearn.edit.corpus import Corpus
from unlearn.edit.statistics import key_statistics
from unlearn.model.editable import EditableModel
from unlearn.policy import StatisticsSpec
from unlearn.policy.settings import AlphaEdit, Memit, Rome
from unlearn.store import Store

FAST: dict[str, Any] = {"layers": (2,), "steps": 4}


@pytest.fixture(scope="module")
def model() -> EditableModel:
    return pico.pico("llama")


@pytest.fixture
def corpus(tmp_path: Path) -> StatisticsSpec:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"{line} {n}" for n in range(12) for line in pico.LINES), encoding="utf-8")
    return StatisticsSpec(corpus=str(path), tokens=2000)


@pytest.mark.parametrize(
    "method",
    [AlphaEdit(**FAST, null_space=0.5, target_probability=None), Memit(**FAST), Rome(layer=2, steps=4)],
    ids=lambda m: m.name,
)
def test_a_patch_does_not_depend_on_the_cache(
    method: Any, model: EditableModel, corpus: StatisticsSpec, tmp_path: Path
) -> None:
    asked = cases.requests(statistics=corpus, method=method)
    made, cache = [], Store.at(tmp_path / "cache")
    for place in (cache, cache, None):  # cold, warm, none
        pipeline.edit(model, asked, cache=place).save(tmp_path / "patch.safetensors")
        made.append((tmp_path / "patch.safetensors").read_bytes())
    assert list(cache.folder.glob("keys-*"))
    assert made[0] == made[1] == made[2]
    pipeline.edit(model, cases.requests(statistics=corpus, method=method, seed=1)).save(tmp_path / "other")
    assert (tmp_path / "other").read_bytes() != made[0]


def test_cached_statistics_multiply_a_single_key_as_fresh_ones_do(
    model: EditableModel, corpus: StatisticsSpec, tmp_path: Path
) -> None:
    text, cache = Corpus(corpus.corpus), Store.at(tmp_path / "cache")
    fresh, cached = (key_statistics(model, [1], text, 2000, cache)[1].spectrum for _ in range(2))
    keys = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    # One column is another product for the library than many, and the one that minds how a matrix lies in memory.
    for key in keys.split(1, dim=1):
        assert torch.equal(Whitener(fresh).apply(key), Whitener(cached).apply(key))
        for kept in (20, 50):
            one, other = (Projector.null_space(spectrum, kept).apply(key) for spectrum in (fresh, cached))
            assert torch.equal(one, other)
