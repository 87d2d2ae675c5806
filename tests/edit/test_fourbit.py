"""Edits of quantised models: those of a plain model with the dequantised matrices, and no weight is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import families, fourbit, pico
from tests.edit import cases
from tests.edit.test_pipeline import METHOD_SETTINGS
from unlearn.edit import pipeline
from unlearn.model import narrow
from unlearn.model.editable import EditableModel
from unlearn.policy import StatisticsSpec
from unlearn.policy.settings_trained import FineTune, GradDiff, Lora, Npo, NullSpaceTuning, Rmu

pytestmark = fourbit.needed

SETTINGS: dict[str, Any] = {
    "alphaedit": METHOD_SETTINGS["alphaedit"].model_copy(update={"hard_negatives": 200}),
    "memit_seq": METHOD_SETTINGS["memit_seq"],
    "null_space_tuning": NullSpaceTuning(layers=(1, 2), steps=3),
    "ft_m": FineTune(layer=1, steps=3),
    "rmu": Rmu(steps=3),
    "lora": Lora(steps=3),
    "grad_diff": GradDiff(steps=3),
    "npo": Npo(steps=3),
}
CASES = {"llama": (pico.network, "nf4", False), "gpt2": (pico.network, "fp4", True)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Quantised pico models in folders, and a corpus."""
    place = tmp_path_factory.mktemp("fourbit")
    for family, (make, kind, nested) in CASES.items():
        fourbit.quantised(make(family), place / family, kind, nested)
    fourbit.quantised(families.network("gemma2"), place / "gemma2")
    lines = "\n".join(f"{line} {n}" for n in range(12) for line in pico.LINES)
    (place / "text.txt").write_text(lines, encoding="utf-8")
    return place


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is quantised is never narrowed; the reference must not be, either."""
    monkeypatch.setattr(narrow, "quickest_dtype", lambda _device: torch.float32)


def asking(place: Path, method: Any) -> Any:
    corpus = StatisticsSpec(corpus=str(place / "text.txt"), tokens=2000)
    return cases.requests(statistics=corpus, method=method)


@pytest.mark.parametrize("method", SETTINGS)
def test_an_edit_is_that_of_the_dequantised_model(place: Path, method: str) -> None:
    model = EditableModel.load(str(place / "llama"), device="cpu")
    plain = fourbit.dense(model, pico.network("llama"))
    before = model.identity()
    ids = torch.arange(12, 24)[None]
    unedited = model.model(input_ids=ids).logits
    patch = pipeline.edit(model, asking(place, SETTINGS[method]))
    assert model.identity() == before
    wanted = pipeline.edit(plain, asking(place, SETTINGS[method]))
    for name, delta in wanted.factors.items():
        got = patch.factors[name].dense()
        assert float((got - delta.dense()).norm() / delta.dense().norm()) < 1e-3
    with model.patched(patch), plain.patched(wanted):
        logits, reference = (one.model(input_ids=ids).logits for one in (model, plain))
        assert model.identity() != before
    assert torch.allclose(logits, reference, atol=2e-3) and not torch.allclose(logits, unedited, atol=1e-2)
    assert model.identity() == before and torch.equal(model.model(input_ids=ids).logits, unedited)
