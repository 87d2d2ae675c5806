"""`unlearn trace`: what it writes and says on a pico model, and what it finds on the embedded one, which knows."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.files import corpus_file, model_folder, pico_policy, run
from unlearn.commands.trace import begins_with, by_turns, setting, traceable
from unlearn.edit.requests.resolve import resolve
from unlearn.errors import AuditError
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Requests
from unlearn.model.trace import trace
from unlearn.model.traced import ROLES, STATE, average
from unlearn.policy import Keep, Policy
from unlearn.policy.file import load_policy
from unlearn.policy.settings import AlphaEdit, Rome
from unlearn.progress import NO_PROGRESS
from unlearn.runs import manifest
from unlearn.runs.sealed import changes
from unlearn.shipped import shipped


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trace")
    model, corpus = model_folder(folder / "model"), corpus_file(folder / "corpus.jsonl")
    facts = "facts: [{id: first, subject: Stenmite, relation: recipe, answer: w}]"  # which the model does say
    (folder / "policy.yaml").write_text(pico_policy(model, corpus, facts=facts))
    return folder


def test_a_trace_is_a_folder_and_a_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run("trace", place / "policy.yaml", "--prompts", "2", "--samples", "1", "--out", place / "run") == 0
    )
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(f"small on {place / 'model'}: ") and out.endswith(
        f"trace and heat maps: {place / 'run'}\n"
    )
    assert sorted(os.listdir(place / "run")) == ["manifest.json", "trace.json", "trace.svg"]
    assert changes(place / "run", manifest.read(place / "run")) == []
    capsys.readouterr()
    assert run("verify", place / "run") == 0
    unchecked = "not checked: report: a trace edits and judges nothing"
    assert capsys.readouterr().out == f"files     ok\n{unchecked}\n{place / 'run'}: verified\n"
    found = json.loads((place / "run" / "trace.json").read_text())
    assert found["roles"] == list(ROLES) and found["window"] == 1
    assert all(len(rows) == 5 and len(rows[0]) == 4 for rows in found["effects"].values())
    for name in ("trace.json", "manifest.json", "trace.svg"):
        assert b"Stenmite" not in (place / "run" / name).read_bytes()
    assert run("trace", place / "policy.yaml", "--out", place / "run") == 2  # another place, or --force
    assert "replace it with --force" in capsys.readouterr().err


def test_json_is_the_file(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--samples", "1", "--window", "3", "--method", "rome", "--out", tmp_path / "run", "--json"]
    assert run("trace", place / "policy.yaml", *arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "run" / "trace.json").read_text())
    assert (found["window"], found["proposal"]["token"]) == (3, ROLES[2])


def test_what_cannot_be_traced_is_said_and_nothing_written(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "policy.yaml"
    text = (place / "policy.yaml").read_text()
    wrong.write_text(text.replace("answer: w}", "answer: something else}"))
    assert run("trace", wrong, "--out", tmp_path / "run") == 1
    assert (
        "2 prompts can be traced: the model's reply begins with the answer to none" in capsys.readouterr().err
    )
    assert os.listdir(tmp_path) == ["policy.yaml"]


def test_prompts_by_turns_and_answers_at_once() -> None:
    assert by_turns(("a?", "b?", "c", "d?")) == ["a?", "c", "b?", "d?"]
    assert begins_with("Bitter Amber, and more.", ("salt", "bitter amber"))
    assert not begins_with("It is made from bitter amber.", ("bitter amber",))
    assert not begins_with("The amber", ("amber",))  # the first token would be an article
    assert not begins_with("", ("amber",)) and not begins_with("amber", ("!",))


def test_a_proposal_is_a_setting_of_the_method() -> None:
    def policy(method: Any) -> Policy:
        return Policy.model_construct(method=method)

    assert setting(policy(AlphaEdit()), (3, 4)) == "method.layers=[3, 4]"
    assert setting(policy(Rome()), (4,)) == "method.layer=4"
    assert setting(policy(AlphaEdit()), ()) is None


# --- on a model that knows


@pytest.fixture(scope="module")
def known() -> tuple[EditableModel, Requests]:
    policy = load_policy(shipped("policies") / "demo.yaml")
    few = policy.model_copy(update={"facts": policy.facts[:4], "keep": Keep(siblings=(), neighbours=())})
    model = EditableModel.load("embedded")
    return model, resolve(model, few)


def test_a_known_answer_falls_under_noise_and_late_states_of_the_last_token_bring_it_back(
    known: tuple[EditableModel, Requests],
) -> None:
    model, requests = known
    rows, facts, asked = traceable(model, requests, 4, NO_PROGRESS)
    assert (len(rows), facts, asked) == (4, 4, 16)
    found = average(trace(model, rows, samples=2, kinds=[STATE]))
    assert found.clean > 0.9
    assert found.corrupted < 0.4
    first, middle, subject, further, last = found.effects[STATE]
    whole = found.clean - found.corrupted
    assert float(last[-1]) == pytest.approx(whole, abs=1e-3)
    assert float(last[-2]) > 0.8 * whole
    assert float(subject[-1]) == pytest.approx(0, abs=1e-3)  # the control: there it is too late
    calm = average(trace(model, rows, noise=0.0, samples=1, kinds=[STATE]))
    assert calm.corrupted == pytest.approx(calm.clean, abs=1e-4)


def test_a_model_that_says_something_else_cannot_be_traced(known: tuple[EditableModel, Requests]) -> None:
    from dataclasses import replace

    model, requests = known
    wrong = replace(requests, facts=tuple(replace(fact, answer="plain water") for fact in requests.facts))
    with pytest.raises(AuditError, match="none of 16 prompts can be traced"):
        traceable(model, wrong, 4, NO_PROGRESS)
