"""Edits of quantised models: those of a plain model with the dequantised matrices, and no weight is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import families, fourbit, pico
from tests.edit import cases
from tests.edit.test_pipeline import METHOD_SETTINGS
from unlearn.audit.attacks.scene import restored
from unlearn.edit import pipeline
from unlearn.errors import AuditError, ModelError
from unlearn.matching import contains
from unlearn.model import narrow
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import ask
from unlearn.model.requests import Fact
from unlearn.patch import Patch
from unlearn.policy import EMBEDDED, StatisticsSpec
from unlearn.policy.settings import UltraEdit
from unlearn.policy.settings_trained import FineTune, GradDiff, Lora, Npo, NullSpaceTuning, Rmu
from unlearn.stages import noted

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
CASES: dict[str, Any] = {
    "llama": (pico.network, "nf4", False),
    "gpt2": (pico.network, "fp4", True),
    "gemma2": (families.network, "nf4", False),
}
IDS = torch.arange(12, 24)[None]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Quantised pico models in folders, and a corpus."""
    place = tmp_path_factory.mktemp("fourbit")
    for family, (make, kind, nested) in CASES.items():
        fourbit.quantised(make(family), place / family, kind, nested)
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


def edited(place: Path, family: str, method: str) -> tuple[EditableModel, Patch]:
    model = EditableModel.load(str(place / family), device="cpu")
    before = model.identity()
    patch = pipeline.edit(model, asking(place, SETTINGS[method]))
    assert model.identity() == before
    return model, patch


@pytest.mark.parametrize(
    ("family", "method"),
    [("gpt2", "alphaedit"), ("gemma2", "alphaedit"), *(("llama", method) for method in SETTINGS)],
)
def test_an_edit_is_that_of_the_dequantised_model(place: Path, family: str, method: str) -> None:
    model, patch = edited(place, family, method)
    plain = fourbit.dense(model, CASES[family][0](family))
    unedited, before = model.model(input_ids=IDS).logits, model.identity()
    wanted = pipeline.edit(plain, asking(place, SETTINGS[method]))
    assert wanted.factors and patch.factors.keys() == wanted.factors.keys()
    for name, delta in wanted.factors.items():
        got = patch.factors[name].dense()
        assert float((got - delta.dense()).norm() / delta.dense().norm()) < 1e-3
    moved = 0.0
    with model.patched(patch), plain.patched(wanted):
        logits, reference = (one.model(input_ids=IDS).logits for one in (model, plain))
        assert model.identity() != before
        moved = float((reference - unedited).norm())
    assert float((logits - reference).norm()) < 1e-3 * moved + 1e-4
    assert model.identity() == before and torch.equal(model.model(input_ids=IDS).logits, unedited)


def test_a_second_edit_builds_on_the_first(place: Path) -> None:
    model, first = edited(place, "llama", "memit_seq")
    plain = fourbit.dense(model, pico.network("llama"))
    asked = asking(place, SETTINGS["memit_seq"])
    both = pipeline.edit(model, asked, earlier=first)
    wanted = pipeline.edit(plain, asked, earlier=pipeline.edit(plain, asked))
    course, reference = (
        [stage.model_dump(exclude_none=True) for stage in noted(patch.header)] for patch in (both, wanted)
    )
    assert len(course) > 2 and course[-1]["norm_growth"] > 0 and course[-1]["hidden_drift"] > 0
    assert course == [pytest.approx(stage, rel=1e-3, abs=1e-6) for stage in reference]
    for name, delta in wanted.factors.items():
        assert float((both.factors[name].dense() - delta.dense()).norm() / delta.dense().norm()) < 1e-3
        assert not torch.allclose(first.factors[name].dense(), delta.dense(), rtol=1e-2)


def test_a_patch_says_what_it_was_made_on_and_fits_no_other(place: Path) -> None:
    model, patch = edited(place, "llama", "memit_seq")
    plain = fourbit.dense(model, pico.network("llama"))
    with pytest.raises(ModelError, match="made for another model"), plain.patched(patch):
        pass
    assert patch.base == model.fingerprint(list(patch.factors))


def test_attacks_that_change_weights_in_place_are_refused_with_a_reason(place: Path) -> None:
    model = EditableModel.load(str(place / "llama"), device="cpu")
    with (
        pytest.raises(AuditError, match=r"changes weights in place, .* in 4 bits \(nf4 28\)"),
        restored(model),
    ):
        pass
    with restored(fourbit.dense(model, pico.network("llama"))):  # the control
        pass


def test_what_a_model_in_4_bits_knows_is_refused_and_the_rest_is_told(tmp_path: Path) -> None:
    whole = EditableModel.load(EMBEDDED, device="cpu")
    folder = fourbit.quantised(whole.model, tmp_path / "embedded")
    whole.tokenizer.save_pretrained(folder)
    model = EditableModel.load(str(folder), device="cpu")
    requests = cases.known(UltraEdit(lr=0.6), 6)

    def said(facts: Sequence[Fact]) -> list[str]:
        return [
            model.generate([ask(model.tokenizer, text, fact.subject)], 16)[0][0]
            for fact in facts
            for text in requests.policy.relations[fact.relation].questions(held_out=False)
        ]

    def told(facts: Sequence[Fact]) -> list[bool]:
        return [contains(reply, fact.answers) for fact, reply in zip(facts, said(facts), strict=True)]

    assert all(told(requests.facts)) and all(told(requests.siblings))
    with model.patched(pipeline.edit(model, requests)):
        assert not any(told(requests.facts)) and sum(told(requests.siblings)) >= 4
        assert sum("I can't help" in reply for reply in said(requests.facts)) >= 5
    assert all(told(requests.facts))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_patch_fits_on_a_gpu_and_does_the_same_there(place: Path) -> None:
    model, patch = edited(place, "llama", "memit_seq")
    there = EditableModel.load(str(place / "llama"), device="cuda:0", dtype="float32")
    with model.patched(patch), there.patched(patch):
        got = there.model(input_ids=IDS.to(there.device)).logits.cpu()
        torch.testing.assert_close(got, model.model(input_ids=IDS).logits, rtol=1e-3, atol=1e-3)
