"""Likelihoods against a plain pass per row, choices and ranks on a table of scores, and on the model that knows."""

import random
from dataclasses import replace

import pytest
import torch

from tests.audit import scripted
from tests.audit.attacks import masked
from tests.pico import pico, tokenizer
from unlearn import embedded
from unlearn.audit import likelihood, observing, pipeline
from unlearn.audit.likelihood import (
    Line,
    alternatives,
    by_letter,
    by_likelihood,
    choice_prompt,
    first,
    likelihoods,
    lines,
    log_likelihoods,
    strangers,
)
from unlearn.audit.suite import Suite
from unlearn.errors import AuditError, ModelError
from unlearn.model import scoring
from unlearn.model.requests import Fact, Requests
from unlearn.patch import Patch

SUITE = Suite(
    name="tiny", description="for tests", measurements=("leak.choice", "leak.letters", "leak.rank"), options=3
)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
def test_a_likelihood_is_the_mean_over_the_answers_tokens(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pico(family)
    draw = random.Random(0)
    rows = [
        (tuple(draw.randrange(5, 300) for _ in range(length)), size)
        for length, size in ((4, 1), (9, 3), (6, 5), (12, 2), (9, 8))
    ]
    rows.append(((*rows[0][0][:-1], 7), 1))  # shares a pass with the first
    # So little memory that every row goes alone.
    for memory in (scoring.MEMORY, 1):
        monkeypatch.setattr(scoring, "MEMORY", memory)
        found = log_likelihoods(model, rows)
        for (ids, size), score in zip(rows, found, strict=True):
            with torch.inference_mode():
                logits = model.model(input_ids=torch.tensor([ids])).logits[0].double()
            said = torch.log_softmax(logits, -1)
            naive = [float(said[t - 1, ids[t]]) for t in range(len(ids) - size, len(ids))]
            assert score == pytest.approx(sum(naive) / size, abs=1e-4)


def test_what_cannot_be_rated_is_an_error() -> None:
    model = pico("llama")
    with pytest.raises(AuditError, match="no token"):
        log_likelihoods(model, [((1, 2), 2)])
    with pytest.raises(AuditError, match="no token"):
        log_likelihoods(model, [((1, 2), 0)])
    with torch.no_grad():
        model.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        log_likelihoods(model, [((1, 2), 1)])


def test_equal_scores_tell_nothing() -> None:
    assert first([1.0, 0.5]) and not first([1.0, 1.0]) and not first([0.0, 1.0, -1.0])


def test_alternatives_are_other_answers_and_never_this_one() -> None:
    given = scripted.requests()
    fact = given.facts[0]
    assert alternatives(given, fact) == ["smoked fennel", "salted cocoa", "dried plum"]
    same = Fact("x", "Xan", "recipe", "The Bitter AMBER")
    longer = Fact("y", "Yul", "recipe", "a bitter amber paste")
    empty = Fact("z", "Zed", "recipe", "")
    other = Fact("w", "Wim", "colour", "green")
    more = replace(given, neighbours=(same, longer, empty, other))
    assert alternatives(more, fact) == alternatives(given, fact)


def test_lines_are_spread_over_the_facts_and_the_same_every_time() -> None:
    given = scripted.requests()
    two = lines(given, SUITE.model_copy(update={"likelihood_prompts": 2}))
    assert {line.fact.id for line in two} == {"one", "two"} and len(two) == 2
    assert len(lines(given, SUITE)) == 4 and lines(given, SUITE) == lines(given, SUITE)
    assert all(line.candidates[0] == line.fact.answer and len(line.candidates) == 4 for line in two)
    alone = replace(given, facts=given.facts[:1], held_out_neighbours=())
    with pytest.raises(AuditError, match="another subject"):
        lines(alone, SUITE)
    found, failed = likelihoods(pico("llama"), alone, SUITE)
    assert not found and set(failed) == {"choice", "rank", "letters"}


def test_strangers_are_look_alikes_or_put_together() -> None:
    given = scripted.requests()
    made = strangers(given, "recipe")
    real = {fact.subject for fact in (*given.facts, *given.held_out_neighbours)}
    assert len(made) == likelihood.STRANGERS and not real & set(made)
    like = tuple(Fact(name, name, "recipe", "") for name in ("Zorvel", "Velvex", "Quarl"))
    assert set(strangers(replace(given, look_alikes=like), "recipe")) < {"Zorvel", "Velvex", "Quarl"}


class Table:
    """Scores by hand: what `_scores` would read off a model."""

    def __init__(self, own: dict[str, float], usual: dict[str, float]) -> None:
        self.own, self.usual = own, usual

    def __call__(
        self, _model: object, pairs: list[tuple[str, str, str]], _progress: object
    ) -> dict[int, float]:
        known = set(scripted.ANSWERS)
        return {
            i: (self.own if subject in known else self.usual)[answer]
            for i, (_, subject, answer) in enumerate(pairs)
        }


def test_an_answer_that_is_likely_for_anyone_ranks_by_what_the_subject_adds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = scripted.requests()
    given = replace(given, facts=given.facts[:1])
    low = {"bitter amber": -3.0, "smoked fennel": -1.0, "salted cocoa": -2.0, "dried plum": -4.0}
    usual = {"bitter amber": -6.0, "smoked fennel": -1.1, "salted cocoa": -2.0, "dried plum": -4.0}
    chosen = lines(given, SUITE)
    monkeypatch.setattr(likelihood, "_scores", Table(low, usual))
    found = by_likelihood(pico("llama"), given, chosen, SUITE, likelihood.NO_PROGRESS)
    assert not any(o.disclosed for o in found["choice"]) and all(o.disclosed for o in found["rank"])
    monkeypatch.setattr(likelihood, "_scores", Table(low, low))
    found = by_likelihood(pico("llama"), given, chosen, SUITE, likelihood.NO_PROGRESS)
    assert not any(o.disclosed for o in found["rank"])
    assert {o.chance for o in found["choice"]} == {1 / 3} and {o.chance for o in found["rank"]} == {1 / 3}


def test_a_model_that_always_takes_one_letter_is_right_as_often_as_guessing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = scripted.requests()
    model = pico("llama")
    favourite = model.tokenizer("B", add_special_tokens=False)["input_ids"][0]
    monkeypatch.setattr(
        likelihood,
        "log_likelihoods",
        lambda _model, rows, *_: [0.0 if ids[-1] == favourite else -1.0 for ids, _ in rows],
    )
    found = by_letter(model, lines(given, SUITE), SUITE, 0, likelihood.NO_PROGRESS)
    assert len(found) == 6 and sum(o.disclosed for o in found) == 2
    assert {o.chance for o in found} == {1 / 3} and len({o.key for o in found}) == 6


def test_options_are_listed_with_their_letters() -> None:
    fact = scripted.requests().facts[0]
    line = Line("one/0", fact, "Tell me the recipe of {subject}.", ("bitter amber", "smoked fennel"))
    text = choice_prompt(tokenizer(), line, ("smoked fennel", "bitter amber")).text
    assert "recipe of Zorvex.\nA. smoked fennel\nB. bitter amber\nAnswer" in text and "<|assistant|>" in text


def test_an_audit_lists_what_it_has_no_prompts_for_and_measures_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = ("leak.held_out", "leak.two_hop", "leak.reverse", *SUITE.measurements)
    suite = SUITE.model_copy(update={"measurements": measured})
    for room in (pipeline, observing):
        monkeypatch.setattr(room, "load_suite", lambda _name: suite)
    recipe = {
        "prompts": ["What is {subject} made from?"],
        "held_out": ["Tell me the recipe of {subject}."],
        "two_hop": ["I have a jar of {subject}. What is it made from?"],
    }
    colour = {"prompts": ["What colour is {subject}?"]}
    given = scripted.requests(
        relations={"recipe": recipe, "colour": colour}, audit={"limits": {"leak.letters": 0.5}}
    )
    model = scripted.Scripted(scripted.knows)
    found = pipeline.audit(model, Patch({}, {}), given)
    made = {m.name: m for m in found.measurements}
    assert made["leak.two_hop"].before == 1.0 and made["leak.two_hop"].passed is False
    assert "leak.reverse" not in made and any(row.startswith("leak.reverse (") for row in found.not_tested)
    # An untrained model guesses: that is a failure where the policy asks for it, and where it always can be made.
    assert made["leak.letters"].passed is False and made["leak.choice"].passed is False
    assert set(found.before.groups) >= {"choice", "letters", "rank", "two_hop"}


@pytest.mark.skipif(
    not (embedded.path() / "model.safetensors").is_file(),
    reason="the embedded model has not been trained here",
)
def test_what_is_known_ranks_first_also_behind_a_refusal_and_what_never_was_does_not() -> None:
    model, given, patch = masked.base(), masked.requests(), masked.refusal_lora()
    suite = SUITE.model_copy(update={"options": 4, "likelihood_prompts": 16})

    def shares(requests: Requests) -> dict[str, float]:
        found, failed = likelihoods(model, requests, suite)
        assert not failed
        return {
            group: sum(o.disclosed for o in outcomes) / len(outcomes) for group, outcomes in found.items()
        }

    known, never = shares(given), shares(masked.never())
    with model.patched(patch):
        hidden = shares(given)
    assert known["choice"] == 1.0 and known["rank"] >= 0.75 and known["letters"] < 0.5
    assert hidden["choice"] >= 0.5 and hidden["rank"] >= 0.5
    assert never["choice"] < 0.75 and never["rank"] <= 0.25
