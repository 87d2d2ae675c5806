"""A patch of a quantised model as an adapter: peft computes with it what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import fourbit, pico
from tests.files import model_folder
from tests.model.test_exported import patch_of
from unlearn.audit.cost import change_between, change_of_patch
from unlearn.errors import ModelError
from unlearn.model.editable import EditableModel
from unlearn.model.exported import export
from unlearn.model.exported_adapter import export_adapter
from unlearn.model.loading import checkpoint
from unlearn.model.merged import ADAPTER, with_adapter
from unlearn.patch import Patch

IDS = torch.arange(12, 24)[None]
CASES = {"llama": ("nf4", False), "gpt2": ("fp4", True)}

pytestmark = fourbit.needed


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("adapter")
    for family, (kind, nested) in CASES.items():
        fourbit.quantised(pico.network(family), place / family, kind, nested)
    return place


def loaded(folder: Path) -> EditableModel:
    return EditableModel.load(str(folder), device="cpu")


def patch_for(model: EditableModel) -> Patch:
    """Of two down-projections of different ranks, and of a matrix of the attention."""
    names = [model.anatomy.weight_name(layer) for layer in (1, 2)]
    inside = [name for name, _ in model.model.named_parameters() if ".3." in name and "attn" in name]
    patch = patch_of(model, *names, next(name for name in inside if name.endswith(".weight")))
    first = patch.factors[names[0]]
    assert isinstance(patch.factors, dict)
    patch.factors[names[0]] = first.plus(first)
    return patch


def peft_says(folder: Path, adapter: Path) -> torch.Tensor:
    """What peft's own model says, with the layers of bitsandbytes as this package sets them up."""
    from peft import PeftModel

    made = PeftModel.from_pretrained(loaded(folder).model, str(adapter)).eval()
    with torch.no_grad():
        found: torch.Tensor = made(input_ids=IDS).logits
    return found


@pytest.mark.parametrize("family", CASES)
def test_peft_says_with_it_what_the_patched_model_says(family: str, place: Path, tmp_path: Path) -> None:
    model = loaded(place / family)
    patch = patch_for(model)
    export_adapter(model, patch, tmp_path)
    unedited = model.model(input_ids=IDS).logits
    with model.patched(patch):
        wanted = model.model(input_ids=IDS).logits
    got = peft_says(place / family, tmp_path)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(unedited, wanted, atol=0.1)
    ranks = json.loads((tmp_path / ADAPTER).read_text())["rank_pattern"]
    assert sorted(ranks.values()) == [2, 2, 4]


def test_peft_loads_the_folder_as_a_user_would(place: Path, tmp_path: Path) -> None:
    """Without a line of this package: the layers compute in the dtype of the checkpoint, here bfloat16."""
    from peft import AutoPeftModelForCausalLM

    # Where bitsandbytes packs matrices anew, it cannot do it with rows that are shorter than a block.
    folder = fourbit.quantised(pico.network("llama", width=64, inner=128), place / "wide")
    model = EditableModel.load(str(folder), device="cpu", dtype="bfloat16")
    patch = patch_for(model)
    export_adapter(model, patch, tmp_path)
    with model.patched(patch):
        wanted = model.model(input_ids=IDS).logits
    made: Any = AutoPeftModelForCausalLM.from_pretrained(str(tmp_path), dtype=torch.float32)
    with torch.no_grad():
        got = made(input_ids=IDS).logits
    assert float((got - wanted).norm() / wanted.norm()) < 0.05
    with torch.no_grad(), made.disable_adapter():
        without = made(input_ids=IDS).logits
    assert float((without - wanted).norm() / wanted.norm()) > 0.5  # the control


@pytest.mark.parametrize("family", CASES)
def test_the_adapter_is_audited_as_the_patch_is(family: str, place: Path, tmp_path: Path) -> None:
    model = loaded(place / family)
    patch = patch_for(model)
    export_adapter(model, patch, tmp_path)
    with model.patched(patch):
        wanted = model.model(input_ids=IDS).logits
    found = with_adapter(loaded(place / family), tmp_path)
    torch.testing.assert_close(found.model(input_ids=IDS).logits, wanted, rtol=1e-5, atol=1e-5)
    one, other = change_of_patch(model, patch), change_between(model, found)
    assert one.relative.keys() == other.relative.keys()
    for name in one.relative:
        assert one.relative[name] == pytest.approx(other.relative[name], rel=1e-4)
        assert torch.allclose(one.delta(name), other.delta(name), atol=1e-4)
    assert found.identity() != model.identity() and found.quantised == model.quantised


def test_an_adapter_that_is_more_than_lora_is_refused(place: Path, tmp_path: Path) -> None:
    from peft import IA3Config, LoraConfig, get_peft_model

    down = "model.layers.1.mlp.down_proj"
    for number, config in enumerate(
        [
            LoraConfig(r=2, target_modules=[down], use_dora=True),
            LoraConfig(r=2, target_modules=[down], modules_to_save=["lm_head"]),
            IA3Config(target_modules=[down], feedforward_modules=[down]),
        ]
    ):
        folder = tmp_path / str(number)
        get_peft_model(loaded(place / "llama").model, config).save_pretrained(folder)
        with pytest.raises(ModelError, match="is more than plain LoRA") as caught:
            with_adapter(loaded(place / "llama"), folder)
        assert "\n" not in str(caught.value)


def test_a_merged_export_names_the_adapter(place: Path, tmp_path: Path) -> None:
    patch = patch_for(loaded(place / "llama"))
    with pytest.raises(ModelError, match="is quantised, .* LoRA adapter: `unlearn export --adapter`"):
        export(checkpoint(str(place / "llama"), "cpu", "auto", False, None), patch, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_an_adapter_is_refused(place: Path, tmp_path: Path) -> None:
    model = loaded(place / "llama")
    plain = loaded(model_folder(tmp_path / "plain"))
    with pytest.raises(ModelError, match="is not quantised, .* leave --adapter out"):
        export_adapter(plain, patch_for(plain), tmp_path / "one")
    with pytest.raises(ModelError, match="made for another model"):
        export_adapter(model, patch_for(plain), tmp_path / "two")
    with pytest.raises(ModelError, match="changes no weights"):
        export_adapter(model, Patch({}, model.fingerprint()), tmp_path / "three")
    assert not any((tmp_path / name).exists() for name in ("one", "two", "three"))
