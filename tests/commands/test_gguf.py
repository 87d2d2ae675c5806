"""A run on a GGUF file: edited, audited, and said to come from quantised weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import gguf_files, pico
from tests.files import corpus_file, pico_policy, run
from unlearn.model.editable import EditableModel


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf-run")
    gguf_files.write(folder / "pico.gguf", quantised=True)
    corpus = corpus_file(folder / "corpus.jsonl")
    (folder / "policy.yaml").write_text(pico_policy(Path("pico.gguf"), corpus))
    assert run("apply", folder / "policy.yaml", "--out", folder / "run", "--quiet") == 3
    return folder


def test_report_manifest_and_card_say_what_the_weights_were(place: Path) -> None:
    report = json.loads((place / "run" / "report.json").read_text())
    origin = report["manifest"]["base"]["origin"]
    assert (origin["file"], origin["quantisation"]) == ("pico.gguf", "F32 35, Q8_0 4")
    assert (
        "the model before it was quantised: it was read from pico.gguf (F32 35, Q8_0 4)"
        in report["not_tested"]
    )
    assert "F32 35, Q8_0 4" in (place / "run" / "report.md").read_text()


def test_the_run_verifies_and_exports(place: Path) -> None:
    assert run("verify", place / "run", "--quiet") == 0
    assert run("export", place / "run", place / "edited", "--quiet") == 0
    assert json.loads((place / "edited" / "config.json").read_text())["unlearn_origin"]["file"] == "pico.gguf"


def test_with_its_tokenizer_apart_a_run_verifies_and_exports(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gguf_files.write(tmp_path / "bare.gguf", tokenizer=False)
    pico.tokenizer().save_pretrained(tmp_path / "tokens")
    policy = tmp_path / "policy.yaml"
    policy.write_text(pico_policy(Path("bare.gguf"), place / "corpus.jsonl"))
    asked = ("apply", policy, "--quiet", "--suite", "quick", "--method", "none")
    assert run(*asked, "--out", tmp_path / "no") == 1
    assert "--tokenizer" in capsys.readouterr().err and not (tmp_path / "no").exists()
    assert run(*asked, "--out", tmp_path / "run", "--tokenizer", tmp_path / "tokens") == 3
    said = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert said["base"]["tokenizer"] == said["settings"]["tokenizer"] == str(tmp_path / "tokens")
    assert run("verify", tmp_path / "run", "--quiet") == 0
    assert run("export", tmp_path / "run", tmp_path / "edited", "--quiet") == 0
    assert EditableModel.load(str(tmp_path / "edited")).tokenizer.chat_template == pico.TEMPLATE
    (tmp_path / "tokens").rename(tmp_path / "moved")
    assert run("verify", tmp_path / "run", "--quiet") == 1
    assert run("verify", tmp_path / "run", "--quiet", "--tokenizer", tmp_path / "moved") == 0


def test_a_damaged_file_is_a_sentence_and_nothing_is_written(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = (place / "pico.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(raw[: len(raw) // 2])
    code = run(
        "apply", place / "policy.yaml", "--model", tmp_path / "cut.gguf", "--out", tmp_path / "run", "--quiet"
    )
    said = capsys.readouterr().err
    assert code == 1 and said.startswith("unlearn: cannot read the GGUF file") and said.count("\n") == 1
    assert not (tmp_path / "run").exists()
