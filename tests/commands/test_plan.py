"""What is told before anything is computed: statistics per layer, and the dry run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.files import pico_policy, run


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_stats_per_layer(pico_files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stats", pico_files / "policy.yaml", "--json") == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert [row["layer"] for row in found["layers"]] == [1, 2]
    assert all(
        row["d_in"] == 64 and row["tokens"] == 2000 and 0 < row["rank"] < 64 for row in found["layers"]
    )
    assert run("stats", pico_files / "policy.yaml") == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_a_dry_run_tells_how_long_training_takes(
    pico_files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {}
    for steps in (0, 200, 20_000):
        tuned = ("--method", "null_space_tuning", "--set", f"method.steps={steps}")
        asked = tuned if steps else ("--method", "alphaedit")
        assert run("apply", pico_files / "policy.yaml", "--dry-run", "--json", *asked) == 0
        told[steps] = yaml.safe_load(capsys.readouterr().out)["seconds"]
    assert "training" not in told[0] and "values_at_most" not in told[200]
    assert told[20_000]["training"] > 10 * told[200]["training"] > 0


def test_a_dry_run_shows_the_layers_that_training_takes(
    pico_files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = {}
    for method in ("alphaedit", "null_space_tuning"):
        asked = ("--method", method, "--set", "method.look_up=both")
        assert run("apply", pico_files / "policy.yaml", "--dry-run", "--json", *asked) == 0
        shown[method] = yaml.safe_load(capsys.readouterr().out)["layers"]
    assert set(shown["alphaedit"]) < set(shown["null_space_tuning"])


def test_a_dry_run_says_what_auto_chooses_and_why(
    pico_files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, whole = pico_files / "policy.yaml", ["--method", "auto", "--set", "statistics.tokens=1999"]
    # A model of noise hardly tells subjects apart: that is seen without statistics.
    assert run("apply", policy, "--dry-run", "--json", *whole) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert found["method"] == "null_space_tuning"
    assert found["reasons"]["method"].startswith("keys at the last prompt token differ by subject by")
    whole += ["--set", "method.layers=[1]"]
    assert run("apply", policy, "--dry-run", *whole) == 0
    assert "not measured yet" in capsys.readouterr().out
    assert run("stats", policy, *whole, "--json") == 0
    assert [row["layer"] for row in yaml.safe_load(capsys.readouterr().out)["layers"]]
    assert run("apply", policy, "--dry-run", "--json", *whole) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert found["method"] in ("alphaedit", "null_space_tuning")
    assert "not measured yet" not in found["reasons"]["method"]
    assert set(found["reasons"]) == {"method", "look_up", "layers"}


def test_a_dry_run_shows_the_look_up_tokens_and_writes_nothing(
    pico_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("apply", pico_files / "policy.yaml", "--dry-run", "--json") == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert found["layers"] == [1, 2]
    question, statement = found["facts"][0]["prompts"]
    assert question["form"] == "question"
    assert statement["form"] == "statement"
    assert question["subject_token"]["at"] < question["last_token"]["at"] == question["tokens"] - 1
    assert {"device", "host_statistics"} <= set(found["memory_bytes"])
    assert run("apply", pico_files / "policy.yaml", "--dry-run") == 0
    assert "nothing was written" in capsys.readouterr().out
    assert listing(tmp_path) == []
    long = ("--set", "refusal=" + "I can't help with that. " * 40)
    assert run("apply", pico_files / "policy.yaml", "--dry-run", *long) == 1
    assert "a prompt with its refusal has" in capsys.readouterr().err
    assert run("apply", pico_files / "policy.yaml", "--dry-run", *long, "--method", "none") == 0
    # As the edit, under the system prompt too.
    wordy = ("--set", "system=" + "Be brief and kind. " * 12)
    assert run("apply", pico_files / "policy.yaml", "--dry-run", *wordy) == 1
    assert "a prompt with its refusal has" in capsys.readouterr().err
    for option in ("--dtype", "--device"):
        assert run("apply", pico_files / "policy.yaml", "--dry-run", option, "int8") == 2
        assert f"{option} int8: use auto, " in capsys.readouterr().err


def test_a_dry_run_lists_the_answers_that_the_policy_leaves_to_the_model(
    pico_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, corpus = pico_files / "model", pico_files / "corpus.jsonl"
    path = tmp_path / "p.yaml"
    given = (
        "facts: [{id: one, subject: Stenmite, relation: recipe, answer: salt}, "
        "{id: two, subject: Mirl, relation: recipe}]"
    )
    path.write_text(pico_policy(model, corpus, facts=given))
    assert run("apply", path, "--dry-run", "--json", "--show-text") == 0
    (row,) = yaml.safe_load(capsys.readouterr().out)["answers"]
    # An untrained model says another thing at every prompt.
    assert set(row) == {"id", "doubt"} and row["id"] == "two" and row["doubt"]
    assert run("apply", path, "--dry-run") == 0
    without = capsys.readouterr().out
    assert "answers from the model (1, 1 doubtful; --show-text shows them):" in without
    assert f"    two  doubtful: {row['doubt']}; give the answer of fact two\n" in without
    assert run("apply", path, "--dry-run", "--show-text") == 0
    (line,) = [
        line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("    two  ") and "(" not in line
    ]
    assert line.startswith("    two  '") and line.endswith("give the answer of fact two")
    path.write_text(pico_policy(model, corpus, facts=given.replace("recipe}]", "recipe, answer: tin}]")))
    assert run("apply", path, "--dry-run") == 0
    assert "answers from the model" not in capsys.readouterr().out
