"""`unlearn audit` of candidates that were edited elsewhere, suites of one's own, and an audit that was interrupted.

On a pico model that knows nothing: what is measured is not the point here, but that it is.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.files import corpus_file, model_folder, pico_policy, policy_text, run
from tests.model.test_merged import adapter
from tests.pico import pico
from unlearn import embedded
from unlearn.audit import observing
from unlearn.loaded import candidate_of
from unlearn.model.merged import WEIGHTS
from unlearn.order import Means, Placement
from unlearn.policy.file import load_policy

SUITE = """extends: quick
description: ours
remove: [capability, retain.siblings]
add: [overrefusal.lookalike]
lookalike_questions: 20
benign_questions: 10
max_new_tokens: 4
text_tokens: 300
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pico model, an adapter and another model in folders, and a policy with a suite of its own."""
    folder = tmp_path_factory.mktemp("elsewhere")
    model, corpus = model_folder(folder / "model"), corpus_file(folder / "corpus.jsonl")
    model_folder(folder / "other", seed=1)
    adapter(folder / "adapter")
    text = corpus_file(folder / "text.jsonl", lines=20)
    (folder / "mine.yaml").write_text(SUITE)
    audit = f"audit: {{suite: {folder / 'mine.yaml'}, text: {text}}}"
    (folder / "policy.yaml").write_text(pico_policy(model, corpus, audit=audit))
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own for every test."""
    monkeypatch.setenv("UNLEARN_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache"


def judged(
    place: Path, candidate: str, capsys: pytest.CaptureFixture[str], *more: str | Path
) -> dict[str, Any]:
    """The report of a candidate, its measurements by name."""
    assert run("audit", place / candidate, "--policy", place / "policy.yaml", "--json", *more) == 3
    report = json.loads(capsys.readouterr().out)
    return report | {"measurements": {m["name"]: m for m in report["measurements"]}}


def test_an_adapter_and_a_plain_folder_are_judged(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for candidate, matrices in (("adapter", 8), ("other", 30)):
        report = judged(place, candidate, capsys)
        found = report["measurements"]
        assert found["drift.norm"]["n"] == matrices and found["drift.norm"]["after"] > 0.1, candidate
        assert found["drift.null_space_leakage"]["after"] > 0.1 and found["drift.hidden"]["after"] > 0
        assert found["drift.kl"]["after"] > 0.01
        assert found["overrefusal.lookalike"]["n"] == 20
        assert "capability (not in the suite mine)" in report["not_tested"]
        assert [drawing["state"] for drawing in report["drawings"] if drawing["name"] == "drift.hidden"] == [
            "before",
            "after",
        ]
    about = judged(place, "adapter", capsys)["manifest"]["candidate"]
    assert set(about["adapter"]) == {"adapter_config.json", WEIGHTS}
    assert about["adapter_of"] == str(place / "model") and about["name"] == str(place / "adapter")


def test_the_unedited_model_itself_has_moved_nowhere(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = judged(place, "model", capsys)["measurements"]
    for name in ("drift.norm", "drift.norm_growth", "drift.null_space_leakage", "drift.hidden", "drift.kl"):
        assert found[name]["after"] == pytest.approx(0, abs=1e-6) and found[name]["passed"], name


ALONE = """name: alone
description: what the unedited model must pass as it fails it
measurements: [leak.direct, leak.held_out, leak.sampled, retain.siblings, overrefusal.benign]
samples: 2
max_new_tokens: 16
benign_questions: 10
"""


@pytest.mark.parametrize("system", ["", "system: Answer in one sentence."])
def test_a_candidate_is_asked_as_the_unedited_model_is(system: str, tmp_path: Path) -> None:
    """The model itself, saved without its chat template and with other end tokens: it knows what it knew."""
    bare = Path(shutil.copytree(embedded.path(False), tmp_path / "bare"))
    (bare / "chat_template.jinja").unlink()
    about = json.loads((bare / "generation_config.json").read_text())
    (bare / "generation_config.json").write_text(json.dumps(about | {"eos_token_id": 7}))
    (tmp_path / "alone.yaml").write_text(ALONE)
    small = policy_text(system=system, audit=f"audit: {{suite: {tmp_path}/alone.yaml}}")
    (tmp_path / "policy.yaml").write_text(small)
    out = tmp_path / "run"
    assert run("audit", bare, "--policy", tmp_path / "policy.yaml", "--out", out, "--quiet") == 3
    report = json.loads((out / "report.json").read_text())
    for found in report["measurements"]:
        assert found["after"] == found["before"], found["name"]
        assert (found["after"] == 0) == (found["name"] == "overrefusal.benign"), found["name"]
    for what in ("chat template", "end tokens"):
        (said,) = (line for line in report["not_tested"] if line.startswith(f"the candidate's own {what} ("))
        assert f"WARNING unlearn: not tested: {said}" in (out / "log.txt").read_text()


def test_what_brings_along_the_same_is_not_said_to_differ(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for candidate in ("model", "other", "adapter"):
        assert not [line for line in judged(place, candidate, capsys)["not_tested"] if "own" in line]


def test_a_candidate_is_loaded_in_the_dtype_in_which_the_unedited_model_computes(place: Path) -> None:
    policy = load_policy(place / "policy.yaml")
    for dtype in (torch.bfloat16, torch.float32):
        edited, _ = candidate_of(str(place / "other"), policy, pico("llama", dtype), Means(Placement("cpu")))
        assert edited.dtype == dtype


def test_an_adapter_that_does_not_fit_stops_before_anything_is_measured(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(observing, "ask_greedily", lambda *_: pytest.fail("nothing may be asked"))
    adapter(tmp_path / "gpt2", "gpt2", ("c_attn",))
    assert run("audit", tmp_path / "gpt2", "--policy", place / "policy.yaml") == 1
    said = capsys.readouterr().err
    assert said.startswith("unlearn: the adapter") and said.count("\n") == 1
    (tmp_path / "gpt2" / WEIGHTS).rename(tmp_path / "gpt2" / "adapter_model.bin")
    assert run("audit", tmp_path / "gpt2", "--policy", place / "policy.yaml") == 1
    assert "pickle" in capsys.readouterr().err


def test_text_that_the_statistics_saw_cannot_show_leakage(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = f"audit.text={place / 'corpus.jsonl'}"
    found = judged(place, "adapter", capsys, "--set", same)["measurements"]["drift.null_space_leakage"]
    assert found["passed"] is False and "part of statistics.corpus" in found["reason"]


def test_an_interrupted_audit_goes_on_where_it_stopped(
    place: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = observing.ask_greedily
    asked: list[str] = []
    stop_at: list[int] = []

    def watched(model: Any, groups: Any, *rest: Any) -> Any:
        asked.extend(groups)
        if len(asked) in stop_at:
            raise KeyboardInterrupt
        return ask(model, groups, *rest)

    monkeypatch.setattr(observing, "TOGETHER", 1)  # a piece for every group
    monkeypatch.setattr(observing, "ask_greedily", watched)
    whole = judged(place, "adapter", capsys, "--no-cache")["measurements"]
    groups = len(asked) // 2
    assert asked[:groups] == asked[groups:]
    for stop in (groups - 1, groups + 2):  # in the unedited model's observation, and in the candidate's
        asked.clear()
        stop_at[:] = [stop]
        assert run("audit", place / "adapter", "--policy", place / "policy.yaml") == 130
        assert len(asked) == stop
        assert list((cache / "pieces").glob("*/*"))
        done = asked[:-1]
        asked.clear()
        stop_at.clear()
        resumed = judged(place, "adapter", capsys)["measurements"]
        assert len(asked) == 2 * groups - len(done), "what was asked before is not asked again"
        assert resumed == whole
        # A finished audit leaves nothing behind that the next one would take for its own.
        assert not list((cache / "pieces").glob("*/*"))
        for file in (cache / "observations").iterdir():
            file.unlink()


# --- suites


def test_a_suite_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "--suite", "full") == 0
    out = capsys.readouterr().out
    assert out.startswith("full: ") and "drift.null_space_leakage" in out and "text_tokens" in out
    assert run("check", "--suite", "quick", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    shipped = yaml.safe_load(
        (Path(__file__).resolve().parents[2] / "evals" / "suites" / "quick.yaml").read_text()
    )
    assert found["measurements"] == [*shipped["measurements"], "audit.agreement"]
    assert found["sizes"]["text_tokens"] == 2048


def test_with_a_policy_its_work_and_time_are_said(
    place: Path, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    suite, policy = place / "mine.yaml", place / "policy.yaml"
    assert run("check", policy, "--suite", suite) == 0
    assert "is not known before this model was run once" in capsys.readouterr().out
    judged(place, "adapter", capsys)
    assert (cache / "paces").is_file()
    assert run("check", policy, "--suite", suite, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["work"]) == {"before", "after"} and found["seconds"]["before"] > 0
    assert found["work"]["before"]["asked.lookalike"] == 20 * 4 / 2


def test_a_suite_that_is_not_there(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "--suite", "fulll") == 2
    assert "there is no audit suite 'fulll'" in capsys.readouterr().err
    assert run("audit", place / "other", "-p", place / "policy.yaml", "--suite", "fulll") == 2
    assert "expected `quick`, `standard`, `full`, or the path" in capsys.readouterr().err
    assert run("check") == 2
