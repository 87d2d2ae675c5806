"""Runs in a dtype that is narrower than the checkpoint's: what takes them up, and what it says of others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.files import corpus_file, model_folder, pico_policy, run
from unlearn.model.editable import EditableModel
from unlearn.patch import Patch


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pico model, another one of the same shape, a corpus, a policy, and a run of it."""
    folder = tmp_path_factory.mktemp("dtype")
    model, corpus = model_folder(folder / "model"), corpus_file(folder / "corpus.jsonl")
    model_folder(folder / "other", seed=1)
    (folder / "policy.yaml").write_text(pico_policy(model, corpus))
    assert run("apply", folder / "policy.yaml", "--out", folder / "run", "--quiet") == 3
    return folder


@pytest.fixture(scope="module")
def narrow(place: Path) -> Path:
    """A run in bfloat16 of the checkpoint in float32."""
    policy, out = place / "policy.yaml", place / "narrow"
    assert run("apply", policy, "--dtype", "bfloat16", "--out", out, "--quiet") == 3
    return out


def test_a_run_in_a_narrower_dtype_is_taken_up_in_that_dtype(
    place: Path, narrow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, patch = place / "policy.yaml", narrow / "patch.safetensors"
    assert run("verify", narrow, "--quiet") == 0
    for made in (narrow, patch):
        out = tmp_path / made.name
        assert run("export", made, out, "--model", place / "model", "--quiet") == 0
        assert capsys.readouterr().out.endswith("weights, in bfloat16\n")
        base = EditableModel.load(str(place / "model"), dtype="bfloat16")
        edited = AutoModelForCausalLM.from_pretrained(out)
        assert edited.dtype == torch.bfloat16
        with base.patched(Patch.load(patch)):
            for name, weight in base.model.state_dict().items():
                assert torch.equal(edited.state_dict()[name], weight), name
    for command in (("audit", narrow, "--policy", policy), ("apply", policy, "--onto", narrow)):
        out = tmp_path / command[0]
        assert run(*command, "--out", out, "--quiet") == 3, capsys.readouterr().err
        assert json.loads((out / "manifest.json").read_text())["hardware"]["dtype"] == "bfloat16"
    # A run in the checkpoint's own dtype is not touched by any of this.
    assert run("verify", place / "run", "--quiet") == 0


def test_a_patch_that_was_made_in_another_dtype_says_so(
    place: Path, narrow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = place / "policy.yaml"
    said = "it was made in bfloat16, and this model is in float32: use --dtype bfloat16\n"
    assert run("verify", narrow, "--dtype", "float32", "--quiet") == 3
    assert said in capsys.readouterr().out
    onto = ("apply", policy, "--onto", narrow, "--dtype", "float32", "--out", tmp_path / "run", "--quiet")
    assert run(*onto) == 1
    assert capsys.readouterr().err.endswith(said)
    assert run("verify", place / "run", "--dtype", "bfloat16", "--quiet") == 3
    said = "it was made in float32, and this model is in bfloat16: use --dtype float32\n"
    assert said in capsys.readouterr().out
    assert run("verify", place / "run", "--model", place / "other", "--quiet") == 3
    assert "it was made in" not in capsys.readouterr().out
