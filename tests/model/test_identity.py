"""What names a cache: all that a model computes with and ends at, and nothing of where or how it was saved."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import families, pico
from tests.files import model_folder
from tests.saving import save
from unlearn.model.editable import EditableModel
from unlearn.model.identity import of_configuration, of_tokenizer


def changed(folder: Path, file: str, changes: Mapping[str, Any]) -> EditableModel:
    """The model of a folder with other entries in one of its JSON files, which are left so."""
    about = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(about | changes))
    return EditableModel.load(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", {"rope_parameters": {"rope_theta": 50.0, "rope_type": "default"}}),
        ("config.json", {"rms_norm_eps": 0.1}),
        ("generation_config.json", {"eos_token_id": [1, 2]}),
    ],
)
def test_equal_weights_that_answer_otherwise_are_another_model(
    file: str, changes: Mapping[str, Any], tmp_path: Path
) -> None:
    model = EditableModel.load(str(model_folder(tmp_path)), device="cpu")
    other = changed(tmp_path, file, changes)
    assert other.identity() != model.identity() and other.weights_sha256() == model.weights_sha256()
    # What a patch fits is decided by the weights alone.
    assert other.fingerprint() == model.fingerprint()
    ids = torch.tensor([[0, 70, 71, 72, 73, 74]])
    same = torch.equal(model.model(ids).logits, other.model(ids).logits)
    assert same == (file != "config.json")


def test_where_and_how_a_model_was_saved_does_not_matter(tmp_path: Path) -> None:
    model = EditableModel.load(str(model_folder(tmp_path / "one")), device="cpu")
    save(model, tmp_path / "two")
    about = {
        "architectures": ["Other"],
        "transformers_version": "4.0.0",
        "_name_or_path": "x",
        "use_cache": False,
    }
    assert changed(tmp_path / "two", "config.json", about).identity() == model.identity()


def test_a_configuration_inside_another_is_read() -> None:
    one, two = (families.config(*families.CASES["gemma3"]) for _ in range(2))
    assert of_configuration(one) == of_configuration(two)
    two.text_config.dtype = "bfloat16"
    assert of_configuration(one) == of_configuration(two)
    two.text_config.sliding_window = 7
    assert of_configuration(one) != of_configuration(two)


def test_a_tokenizer_is_its_rules_its_special_tokens_and_its_chat_template() -> None:
    plain = pico.tokenizer()
    assert of_tokenizer(copy.deepcopy(plain)) == of_tokenizer(plain)
    assert of_tokenizer(pico.tokenizer(chat=False)) != of_tokenizer(plain)
    assert of_tokenizer(pico.tokenizer(bos=False)) != of_tokenizer(plain)
    other = copy.deepcopy(plain)
    other.eos_token = "<|user|>"
    assert of_tokenizer(other) != of_tokenizer(plain)
