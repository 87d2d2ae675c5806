"""Adapters that were made elsewhere: merged they answer as peft's own model does; what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.files import model_folder
from tests.pico import pico
from unlearn.errors import ModelError
from unlearn.model.editable import EditableModel
from unlearn.model.merged import CONFIG, WEIGHTS, is_adapter, with_adapter

IDS = torch.tensor([[0, 70, 71, 72, 73, 74]])


def adapter(
    folder: Path, family: str = "llama", modules: tuple[str, ...] = ("q_proj", "down_proj")
) -> torch.Tensor:
    """Write a LoRA adapter that does something, and return what peft's own model says with it: (1, T, V)."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    made = get_peft_model(pico(family).model, LoraConfig(r=4, lora_alpha=8, target_modules=list(modules)))
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.3)
    made.save_pretrained(folder)
    with torch.no_grad():
        return made.eval()(input_ids=IDS).logits


@pytest.mark.parametrize(
    ("family", "modules"), [("llama", ("q_proj", "down_proj")), ("gpt2", ("c_attn", "c_proj"))]
)
def test_a_merged_adapter_answers_as_peft_does(tmp_path: Path, family: str, modules: tuple[str, ...]) -> None:
    want = adapter(tmp_path, family, modules)
    plain = pico(family).model(input_ids=IDS).logits
    found = with_adapter(pico(family), tmp_path)
    assert is_adapter(tmp_path) and found.name == str(tmp_path)
    torch.testing.assert_close(found.model(input_ids=IDS).logits, want, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(plain, want, atol=0.1)
    assert not any("lora" in name for name in found.model.state_dict())
    assert not any(parameter.requires_grad for parameter in found.model.parameters())


def test_a_whole_model_is_no_adapter(tmp_path: Path) -> None:
    assert not is_adapter(model_folder(tmp_path / "model")) and not is_adapter(tmp_path / "nowhere")


def test_a_tokenizer_beside_the_adapter_is_used(tmp_path: Path) -> None:
    adapter(tmp_path)
    own = pico("llama", chat=False)
    own.tokenizer.chat_template = "{{ 'guarded' }}"
    own.tokenizer.save_pretrained(tmp_path)
    own.tokenizer.chat_template = None
    assert with_adapter(pico("llama"), tmp_path).tokenizer.chat_template == "{{ 'guarded' }}"


def refused(folder: Path, model: EditableModel | None = None) -> str:
    with pytest.raises(ModelError) as error:
        with_adapter(model or pico("llama"), folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    adapter(tmp_path)
    (tmp_path / WEIGHTS).rename(tmp_path / "adapter_model.bin")
    assert "pickle, which is never loaded" in refused(tmp_path)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    adapter(tmp_path)
    assert "cannot be put on" in refused(tmp_path, pico("llama", width=64))
    assert refused(tmp_path, pico("gpt2"))
    assert "lacks weights" in refused(tmp_path, pico("llama", layers=6))
    (tmp_path / CONFIG).write_text("[]")
    assert "one JSON object" in refused(tmp_path)


def test_what_cannot_be_merged_is_refused(tmp_path: Path) -> None:
    from peft import PromptTuningConfig, get_peft_model

    base = pico("llama")
    get_peft_model(
        base.model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    ).save_pretrained(tmp_path)
    assert json.loads((tmp_path / CONFIG).read_text())["peft_type"] == "PROMPT_TUNING"
    assert "cannot be merged" in refused(tmp_path)
