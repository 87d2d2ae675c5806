"""The real files and the small real-data model, where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import metrics
from benchmarks.records import kept_for, load_counterfact, load_zsre, pick
from unlearn.model.editable import EditableModel

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
there = pytest.mark.skipif(not DATA.is_dir(), reason=f"the shared data are not at {DATA}")


@there
def test_the_files_load() -> None:
    records = load_counterfact(DATA / "counterfact" / "facts.jsonl").records
    assert len(records) == 1418
    chosen = pick(records, 0, 100)
    kept = kept_for(records, chosen, 1000)
    asked = " ".join(
        text for r in chosen for text in (r.prompt, *r.paraphrases, *(n.prompt for n in r.neighbours))
    )
    assert len(kept) > 300 and not any(r.subject in asked for r in kept)
    assert len(load_zsre(DATA / "zsre" / "zsre_mend_train-1k.json").records) > 800


@there
def test_the_unedited_model_knows_the_facts() -> None:
    records = pick(load_counterfact(DATA / "counterfact" / "facts.jsonl").records, 0, 8)
    found = metrics.summary(metrics.counterfact(EditableModel.load(str(DATA / "factlm"), "cpu"), records))
    assert found["efficacy"] == 0.0 and found["neighbourhood"] == 100.0 and found["score"] == 0.0
