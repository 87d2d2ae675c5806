"""`unlearn export`: the folder is the saved model, and a patch refuses another one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from tests import pico
from tests.files import run
from unlearn.files import sha256_of_file
from unlearn.runs.folder import EXPORTED


def test_an_exported_folder_is_the_saved_model(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", place / "run", tmp_path / "out") == 0
    assert "the audit of this run failed its limits" in capsys.readouterr().err
    saved, exported = place / "run" / "model" / "model.safetensors", tmp_path / "out" / "model.safetensors"
    assert sha256_of_file(saved) == sha256_of_file(exported)
    assert sha256_of_file(saved) != sha256_of_file(place / "model" / "model.safetensors")
    from transformers import AutoTokenizer

    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.model_type == "llama"
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template


def test_what_no_token_can_end_is_said_when_a_model_is_exported(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only tokens end a reply in a plain call: a text that closes a turn is for the server to know."""
    model, patch = tmp_path / "model", place / "run" / "patch.safetensors"
    shutil.copytree(place / "model", model)
    assert run("export", patch, tmp_path / "control", "--model", model) == 0
    assert "a reply ends with" not in capsys.readouterr().err
    template = pico.TEMPLATE.replace("<|end|>", "\n### End\n")
    (model / "chat_template.jinja").write_text(template)
    assert run("export", patch, tmp_path / "out", "--model", model) == 0
    assert "a reply ends with '### End', which is no token; tell the server" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / EXPORTED).read_text())["stop"] == "### End"
    assert "stop" not in json.loads((tmp_path / "control" / EXPORTED).read_text())


def test_a_patch_refuses_another_model(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patch = place / "run" / "patch.safetensors"
    assert run("export", patch, tmp_path / "out", "--model", place / "other") == 1
    assert "this patch was made for another model" in capsys.readouterr().err
    assert run("export", patch, tmp_path / "out") == 0
    assert run("export", place / "corpus.jsonl", tmp_path / "two", "--model", place / "model") == 1
    assert sorted(os.listdir(tmp_path)) == ["out"]


def test_a_report_is_copied_with_the_model_that_it_is_about(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", place / "run", tmp_path / "own") == 0
    assert (tmp_path / "own" / "unlearn_report.json").is_file()
    capsys.readouterr()
    assert run("export", place / "run", tmp_path / "same", "--model", place / "model") == 0
    assert (tmp_path / "same" / "unlearn_report.json").is_file()
    shutil.copytree(place / "model", tmp_path / "moved")
    assert run("export", place / "run", tmp_path / "other", "--model", tmp_path / "moved") == 0
    assert "the report is not copied" in capsys.readouterr().err
    assert not (tmp_path / "other" / "unlearn_report.json").exists()
