"""Adapters that were made elsewhere: merged they answer as peft's own model does; what does not fit is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.files import model_folder
from tests.model import damage
from tests.pico import pico
from unlearn.errors import ModelError
from unlearn.model.editable import EditableModel
from unlearn.model.merged import ADAPTER, WEIGHTS, is_adapter, with_adapter

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
    guarded = "{{ messages[0].content }}guarded"
    own.tokenizer.chat_template = guarded
    own.tokenizer.save_pretrained(tmp_path)
    own.tokenizer.chat_template = None
    assert with_adapter(pico("llama"), tmp_path).tokenizer.chat_template == guarded


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
    assert "does not fit pico-llama: there is no place for" in refused(tmp_path, pico("llama", width=64))
    assert "does not fit pico-gpt2" in refused(tmp_path, pico("gpt2"))
    assert "does not fit pico-llama" in refused(tmp_path, pico("llama", layers=2))
    assert "lacks weights" in refused(tmp_path, pico("llama", layers=6))


def test_what_cannot_be_merged_is_refused(tmp_path: Path) -> None:
    from peft import PromptTuningConfig, get_peft_model

    base = pico("llama")
    get_peft_model(
        base.model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    ).save_pretrained(tmp_path)
    assert json.loads((tmp_path / ADAPTER).read_text())["peft_type"] == "PROMPT_TUNING"
    assert "cannot be merged" in refused(tmp_path)


def more(key: str, *shape: int) -> damage.Damage:
    """Put one tensor more into the adapter's weights, or one in place of another."""

    def harm(folder: Path) -> None:
        held = load_file(folder / WEIGHTS)
        save_file({**held, key: torch.zeros(*shape)}, folder / WEIGHTS)

    return harm


INSIDE = "base_model.model.model.layers"
HOSTILE: dict[str, tuple[damage.Damage, str]] = {
    "another base": (
        damage.changed(ADAPTER, base_model_name_or_path="somebody/other-model", revision="abc"),
        "made for the model 'somebody/other-model', and the policy names 'pico-llama'",
    ),
    "a base that is no name": (damage.changed(ADAPTER, base_model_name_or_path=7), "made for the model '7'"),
    "a list": (damage.holding(ADAPTER, "[]"), "one JSON object"),
    "cut off": (damage.cut(ADAPTER), f"{ADAPTER} is not JSON"),
    "a pipe": (damage.pipe_for(ADAPTER), f"{ADAPTER} cannot be read: it is a pipe"),
    "no kind": (damage.without(ADAPTER, "peft_type"), "code of its own|of the kind None"),
    "a kind that is none": (damage.changed(ADAPTER, peft_type="ODD"), "of the kind ODD cannot be merged"),
    "a kind that loads others": (
        damage.changed(ADAPTER, peft_type="XLORA"),
        "of the kind XLORA cannot be merged",
    ),
    "a module to import": (
        damage.changed(ADAPTER, megatron_config={"a": 1}, megatron_core="antigravity"),
        "megatron_config imports a module",
    ),
    "a cache that is a pickle": (
        damage.changed(ADAPTER, init_lora_weights="corda", corda_config={"cache_file": "x.pt"}),
        "corda_config reads a pickle",
    ),
    "layers repeated": (damage.changed(ADAPTER, layer_replication=[[0, 4], [2, 4]]), "layer_replication"),
    "targets that are not there": (damage.changed(ADAPTER, target_modules=["odd_proj"]), "odd_proj"),
    "targets that are a number": (damage.changed(ADAPTER, target_modules=7), "cannot be put on pico-llama"),
    "an absurd rank": (
        damage.changed(ADAPTER, r=10**9),
        "a rank of 1000000000, and its weights have at most 4",
    ),
    "an absurd rank of one layer": (
        damage.changed(ADAPTER, rank_pattern={"q_proj": 10**9}),
        "a rank of 1000000000",
    ),
    "another rank": (damage.changed(ADAPTER, r=2), "cannot be put on pico-llama"),
    "a layer more": (more(f"{INSIDE}.9.mlp.down_proj.lora_A.weight", 4, 64), "no place for .*layers.9"),
    "a module that is not there": (more(f"{INSIDE}.0.mlp.odd.lora_A.weight", 4, 64), "no place for .*odd"),
    "a module that is no layer": (more(f"{INSIDE}.0.mlp.lora_A.weight", 4, 64), "no place for .*mlp.lora_A"),
    "another width": (more(f"{INSIDE}.0.mlp.down_proj.lora_A.weight", 4, 65), r"no place for .*\(4, 65\)"),
    "a head of another size": (
        more("base_model.model.lm_head.weight", 3, 32),
        "no place for .*lm_head.weight",
    ),
    "weights cut off": (damage.cut(WEIGHTS), WEIGHTS),
    "weights that are a folder": (damage.folder_for(WEIGHTS), f"{WEIGHTS} cannot be read: it is a folder"),
    "a pickle": (
        damage.both(damage.gone(WEIGHTS), damage.pickled("adapter_model.bin")),
        "pickle, which is never",
    ),
    "a pickle that is named safetensors": (damage.pickled(WEIGHTS), WEIGHTS),
    "a tokenizer with code": (
        damage.both(
            damage.holding("tokenizer.json", "{}"),
            damage.holding(
                "tokenizer_config.json",
                '{"tokenizer_class": "Odd", "auto_map": {"AutoTokenizer": ["odd.Odd", "odd.Odd"]}}',
            ),
        ),
        "tokenizer.json: .*code of its own",
    ),
}


@pytest.fixture(scope="module")
def fitting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitting") / "adapter"
    adapter(folder)
    return folder


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_adapter_is_one_sentence(case: str, fitting: Path, tmp_path: Path) -> None:
    harm, pattern = HOSTILE[case]
    folder = Path(shutil.copytree(fitting, tmp_path / "adapter"))
    harm(folder)
    assert re.search(pattern, refused(folder))
    assert not damage.exploded(folder).exists()


@pytest.mark.parametrize("base", [None, "", "pico-llama", "somebody/pico-llama", "/elsewhere/Pico-Llama"])
def test_an_adapter_of_this_base_is_taken_whatever_its_folder_was(
    base: str | None, fitting: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(fitting, tmp_path / "adapter"))
    damage.changed(ADAPTER, base_model_name_or_path=base)(folder)
    assert with_adapter(pico("llama"), folder).anatomy.layers == 4
