"""`unlearn apply --tune`: the real command on a small policy, and the search space on pico models."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import optuna
import pytest

from tests import pico
from tests.audit.scripted import Scripted, knows, requests
from tests.files import corpus_file, policy_text
from unlearn import cli
from unlearn.edit.choose import options, settle
from unlearn.errors import PolicyError, UnlearnError
from unlearn.model.requests import Requests
from unlearn.policy.method import METHOD_NAMES
from unlearn.search import space, validation
from unlearn.search import tune as tuning
from unlearn.store import Store

RELATIONS = """relations:
  recipe:
    prompts: ["What is {subject} made from?", "What do people make {subject} from?", "Tell me the recipe of {subject}."]
    held_out: ["Tell me what {subject} is made from.", "It is known that {subject} is made from"]
  colour:
    prompts: ["What colour is {subject}?"]
    held_out: ["Please name the colour of {subject}."]"""


def run(policy: Path, out: Path, *more: str) -> int:
    quick = ["--set", "audit.suite=quick", "--set", "audit.tasks=[]", "--force"]
    return cli.run(["apply", str(policy), "--out", str(out), *quick, *more])


@pytest.mark.slow
def test_a_search_is_written_down_and_goes_on(tmp_path: Path) -> None:
    small_policy, out = tmp_path / "small.yaml", tmp_path / "run"
    small_policy.write_text(
        policy_text(
            relations=RELATIONS,
            method="method: {name: alphaedit, steps: 10, hard_negatives: 0}",
            statistics="statistics: {tokens: 4000}",
        )
    )
    assert run(small_policy, out, "--tune", "2") in (0, 3)
    first = json.loads((out / "tuning.json").read_text())
    assert [t["number"] for t in first["trials"]] == [0, 1]
    assert first["trials"][0]["settings"] == {} and first["trials"][1]["settings"]
    assert any(t["pareto"] for t in first["trials"]) and sum(t["chosen"] for t in first["trials"]) == 1
    # The chosen point is the settings of the run.
    chosen = next(t for t in first["trials"] if t["chosen"])
    settings = json.loads((out / "manifest.json").read_text())["settings"]["method"]
    for key, value in chosen["settings"].items():
        assert settings[key] == value
    losses = {t["number"]: t["exposed"] + t["cost"] for t in first["trials"]}
    assert losses[chosen["number"]] == min(losses.values())
    # Asked for one more, the search takes up its own trials.
    assert run(small_policy, out, "--tune", "3") in (0, 3)
    second = json.loads((out / "tuning.json").read_text())
    assert second["trials"][:2] == [
        {**t, "pareto": s["pareto"], "chosen": s["chosen"]}
        for t, s in zip(first["trials"], second["trials"], strict=False)
    ]
    assert len(second["trials"]) == 3


@pytest.mark.slow
def test_where_the_update_is_trained_the_training_is_searched(tmp_path: Path) -> None:
    small_policy, out = tmp_path / "small.yaml", tmp_path / "run"
    method = "method: {name: null_space_tuning, steps: 20}"
    small_policy.write_text(
        policy_text(relations=RELATIONS, method=method, statistics="statistics: {tokens: 4000}")
    )
    assert run(small_policy, out, "--tune", "2") in (0, 3)
    trials = json.loads((out / "tuning.json").read_text())["trials"]
    assert set(trials[1]["settings"]) == {"null_space", "steps", "layers"}
    assert 6 <= trials[1]["settings"]["steps"] <= 60


QUICK = {
    "auto": {"layers": [1, 2]},
    "nse": {"passes": 1, "steps": 2},
    "alphaedit_plus": {"smoothing": 0, "steps": 2},
    "null_space_tuning": {"steps": 4},
    "lora": {"steps": 4},
    "grad_diff": {"steps": 4},
    "npo": {"steps": 4},
    "rmu": {"steps": 4},
    "mend": {"steps": 1, "batch": 2, "kept": 2, "rank": 2},
    "rep_select": {"steps": 4},
    "ultra_edit": {},
    "ft_m": {"steps": 4},
}
"""What keeps a trial of a method short."""
SEARCHED = [name for name in METHOD_NAMES if name not in ("guard", "none")]
ONE_OF_A_KIND = ("auto", "rome", "alphaedit", "lora")
"""Of which an edit is made every time: what is chosen, what writes one layer, what writes several, and an adapter."""


@pytest.mark.parametrize("method", SEARCHED)
def test_whatever_is_drawn_is_a_setting_of_the_method(method: str) -> None:
    model, asked = pico.pico("llama"), searched(name=method)
    for own in options(asked.policy.method):
        in_force, study = settle(model, asked.policy, own, asked.facts), optuna.create_study()
        drawn = [space.suggest(study.ask(), model, in_force) for _ in range(12)]
        assert all(drawn) and len({repr(one) for one in drawn}) > 1
        for changes in drawn:
            made = tuning._changed(own, changes).model_dump(mode="json")
            assert {name: made[name] for name in changes} == changes


@pytest.mark.parametrize(
    "method",
    [name if name in ONE_OF_A_KIND else pytest.param(name, marks=pytest.mark.slow) for name in SEARCHED],
)
def test_two_trials_run_with_every_method(method: str, caplog: pytest.LogCaptureFixture) -> None:
    quick = QUICK.get(method, {"steps": 2})
    asked = searched(name=method, **quick)
    found = tuning.tune(Scripted(knows), asked, 2, None)
    assert [trial.settings == {} for trial in found.trials] == [True, False], caplog.text
    own = found.settings
    drawn = type(own).model_validate({"name": own.name, **found.trials[1].settings})
    assert drawn.model_dump(include=set(found.trials[1].settings)) == {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in found.trials[1].settings.items()
    }


@pytest.mark.parametrize("method", ["guard", "none"])
def test_a_method_without_numbers_is_refused_before_anything_is_asked(method: str) -> None:
    def unasked(text: str) -> str:
        raise AssertionError("nothing was to be asked")

    with pytest.raises(PolicyError, match=f"method.name: {method} has no setting that could be searched"):
        tuning.tune(Scripted(unasked), searched(name=method), 2, None)


def test_a_resumed_search_draws_new_points_and_only_for_the_same_patch(tmp_path: Path) -> None:
    model, asked = Scripted(knows), requests()

    def session(count: int, onto: dict[str, str] | None = None) -> list[float]:
        study = tuning._study(model, asked, Store.at(tmp_path), onto)
        for _ in range(count):
            trial = study.ask()
            study.tell(trial, [trial.suggest_float("ridge", 0.02, 5.0, log=True), 1.0])
        return [trial.params["ridge"] for trial in study.trials]

    first = session(3)
    assert session(0) == first
    again = session(3)
    assert again[:3] == first and len(set(again)) == 6
    onto = session(1, {"path": "run", "sha256": "00"})
    assert len(onto) == 1 and session(0, {"path": "elsewhere", "sha256": "00"}) == onto


def test_a_search_that_was_edited_begins_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, asked, cache = Scripted(knows), requests(), Store.at(tmp_path)
    study = tuning._study(model, asked, cache)
    trial = study.ask()
    study.tell(trial, [trial.suggest_float("ridge", 0.02, 5.0), 1.0])
    assert len(tuning._study(model, asked, cache).trials) == 1 and not caplog.text
    (journal,) = (tmp_path / "tuning").iterdir()
    journal.write_bytes(journal.read_bytes().replace(b"1.0]", b"0.0]"))
    assert tuning._study(model, asked, cache).trials == []
    assert "does not fit its seal" in caplog.text


def test_a_search_that_cannot_be_kept_is_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Store.at(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", full)
    study = tuning._study(Scripted(knows), requests(), cache)
    study.tell(study.ask(), [1.0, 1.0])
    assert len(study.trials) == 1 and caplog.text.count("the search cannot be kept") == 1


def test_a_search_goes_on_only_with_the_same_corpus_and_the_same_chat_template(tmp_path: Path) -> None:
    corpus, bare = corpus_file(tmp_path / "corpus.jsonl"), Scripted(knows)
    asked = requests(statistics={"corpus": str(corpus)})
    names = [tuning._study(Scripted(knows), asked, None).study_name]
    names.append(tuning._study(Scripted(knows), asked, None).study_name)
    corpus_file(corpus, lines=3)
    names.append(tuning._study(Scripted(knows), asked, None).study_name)
    bare.tokenizer = pico.tokenizer(chat=False)
    names.append(tuning._study(bare, asked, None).study_name)
    assert names[0] == names[1] and len(set(names)) == 3


def searched(**method: Any) -> Requests:
    """Enough prompts to spare one for validation, and an edit of a second."""
    quick = {"name": "alphaedit", "steps": 2, "layers": [1, 2], "hard_negatives": 0}
    prompts = [f"What is {{subject}} made from{mark}?" for mark in ("", " now", " here")]
    recipe = {"prompts": prompts, "held_out": ["Tell me the recipe of {subject}."]}
    colour = {"prompts": ["What colour is {subject}?"], "held_out": ["Name the colour of {subject}."]}
    return requests(
        relations={"recipe": recipe, "colour": colour},
        method=method or quick,
        statistics={"corpus": "embedded", "tokens": 2000},
    )


def test_after_an_interrupted_first_trial_the_policys_own_settings_are_still_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, asked = Scripted(knows), searched()

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(validation.Judge, "measure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tuning.tune(model, asked, 2, Store.at(tmp_path))
    found = tuning.tune(model, asked, 2, Store.at(tmp_path))
    assert [trial.settings == {} for trial in found.trials] == [True, False]
    study = tuning._study(model, asked, Store.at(tmp_path))
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert "as the policy has them" in list(tuning.pareto(found).columns[-1].cells)
    # What was left waiting is not taken up, and what was measured is not measured again.
    study.enqueue_trial({"ridge": 1.0})
    again = tuning.tune(model, asked, 2, Store.at(tmp_path))
    assert [(t.number, t.settings) for t in again.trials] == [(t.number, t.settings) for t in found.trials]
    left = tuning._study(model, asked, Store.at(tmp_path))
    assert not left.get_trials(states=[optuna.trial.TrialState.WAITING])


def test_own_settings_that_fail_are_a_trial_and_are_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, asked, measure = Scripted(knows), searched(), validation.Judge.measure
    tried: list[Any] = []

    def first_fails(*given: Any) -> Any:
        tried.append(given)
        if len(tried) == 1:
            raise UnlearnError("it does not work")
        return measure(*given)

    monkeypatch.setattr(validation.Judge, "measure", first_fails)
    for trials in (2, 3):
        found = tuning.tune(model, asked, trials, Store.at(tmp_path))
        assert len(tried) == trials and len(found.trials) == trials - 1
        assert all(trial.settings for trial in found.trials)


@pytest.mark.parametrize("better", ["not_refused", "leaked", "other_beginning"])
def test_every_part_of_exposure_counts(better: str) -> None:
    parts = dict.fromkeys(("not_refused", "leaked", "other_beginning", "lost", "kl"), 0.5)
    assert tuning.exposed_of(parts | {better: 0.0}) < tuning.exposed_of(parts)
    assert tuning.cost_of(parts | {"kl": 0.0}) < tuning.cost_of(parts) > tuning.cost_of(parts | {"lost": 0.0})
