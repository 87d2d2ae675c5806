from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from tests.audit.audited import run
from tests.audit.scripted import SUITE, Scripted, knows, refuses, requests, scrubbed
from tests.pico import pico
from unlearn.algebra.low_rank import LowRank
from unlearn.audit import harness, pipeline
from unlearn.audit.observation import Observation
from unlearn.audit.observing import observe
from unlearn.audit.pipeline import Findings, audit
from unlearn.audit.suite import Suite
from unlearn.errors import AuditError, ModelError
from unlearn.patch import Patch
from unlearn.report import Measurement, Report

pytestmark = pytest.mark.usefixtures("tiny")


def by_name(found: Findings) -> dict[str, Measurement]:
    return {m.name: m for m in found.measurements}


def test_a_good_edit_passes() -> None:
    found = run(scrubbed)
    report = Report.of(found.measurements, found.not_tested, {}, found.facts)
    assert report.passed, report.failures
    assert [m.name for m in found.measurements] == list(SUITE.measurements)
    leak = by_name(found)["leak.held_out"]
    assert (leak.before, leak.after, leak.n) == (1.0, 0.0, 2)
    assert by_name(found)["refusal.direct"].before == 0.0
    assert (
        found.facts[0].counts["leak.direct"].before == 2 and found.facts[0].counts["leak.direct"].after == 0
    )


def test_an_edit_that_does_nothing_still_leaks() -> None:
    found = by_name(run(knows))
    for name in (
        "leak.direct",
        "leak.held_out",
        "leak.cloze",
        "leak.sampled",
        "refusal.direct",
        "refusal.held_out",
    ):
        assert found[name].passed is False
    assert found["leak.direct"].after == found["leak.direct"].before == 1.0
    for name in ("retain.siblings", "retain.neighbours", "overrefusal.benign", "drift.kl", "drift.norm"):
        assert found[name].passed
    assert found["drift.kl"].after == 0.0 and found["drift.norm"].after == 0.0


def test_what_the_model_gave_no_answer_for_is_left_out_and_does_not_end_the_audit() -> None:
    given = requests()
    silent = replace(given.facts[1], answer="", known=False, elicited=True)
    other = replace(given.held_out_neighbours[0], answer="", known=False, elicited=True)
    asked = replace(
        given,
        facts=(given.facts[0], silent),
        held_out_neighbours=(other, *given.held_out_neighbours[1:]),
    )
    found = audit(Scripted(knows), partial(nullcontext, Scripted(scrubbed)), asked)
    made = by_name(found)
    assert made["leak.held_out"].n == 1 and made["leak.held_out"].passed
    assert made["retain.neighbours"].n == 2 and made["retain.neighbours"].passed
    assert any("1 of 2 facts, which the unedited model does not know" in line for line in found.not_tested)


def test_a_candidate_with_more_rows_in_its_embedding_is_measured_but_for_its_text() -> None:
    grown = Scripted(scrubbed)
    grown.model.resize_token_embeddings(grown.model.config.vocab_size + 8)
    made = by_name(audit(Scripted(knows), partial(nullcontext, grown), requests()))
    assert made["leak.held_out"].passed
    for name in ("drift.kl", "drift.perplexity"):
        assert made[name].passed is False and "do not share a vocabulary" in str(made[name].reason)


def test_a_patch_that_does_not_fit_is_refused_in_one_sentence() -> None:
    model = Scripted(knows)
    name = model.anatomy.weight_name(1)
    other = Patch({name: LowRank(torch.ones(7, 1), torch.ones(1, 9))}, model.fingerprint([name]))
    with pytest.raises(ModelError, match=r"the patch for .* is \(7, 9\)"):
        audit(model, other, requests())


def test_a_model_of_nan_is_not_measured_and_does_not_end_the_audit(tiny: Callable[[Suite], None]) -> None:
    attacks = ("attack.int8", "attack.lens", "attack.traces")
    tiny(
        SUITE.model_copy(update={"measurements": (*SUITE.measurements, "leak.choice", "toxicity", *attacks)})
    )
    broken = pico("llama")
    broken.weight(broken.anatomy.weight_name(0)).fill_(torch.nan)
    found = audit(Scripted(knows), partial(nullcontext, broken), requests(audit={"benign": "auto"}))
    for measured in found.measurements:
        assert measured.after is None and measured.passed is False and measured.reason, measured.name
    made = by_name(found)
    for name in ("leak.held_out", "leak.sampled", "refusal.direct", "toxicity.demo", "overrefusal.benign"):
        assert "not finite" in str(made[name].reason), name
    assert not Report.of(found.measurements).passed


def test_too_little_memory_to_ask_is_a_failed_limit(tiny: Callable[[Suite], None]) -> None:
    class Full(Scripted):
        def generate(self, *_: Any, **__: Any) -> list[list[str]]:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate everything.")

    tiny(SUITE.model_copy(update={"measurements": (*SUITE.measurements, "toxicity")}))
    made = by_name(audit(Scripted(knows), partial(nullcontext, Full(knows)), requests()))
    for name in ("leak.direct", "leak.sampled", "retain.siblings", "overrefusal.benign", "toxicity.demo"):
        assert made[name].passed is False and "out of memory" in str(made[name].reason), name
    assert made["drift.kl"].passed


def test_a_model_that_refuses_everything_fails_what_must_stay() -> None:
    found = by_name(run(refuses))
    assert found["leak.direct"].passed and found["refusal.held_out"].passed
    for name in ("retain.siblings", "retain.neighbours", "overrefusal.benign"):
        assert found[name].passed is False
    assert found["overrefusal.benign"].after == 1.0 and found["retain.siblings"].after == 0.0


def test_a_model_that_forgets_the_neighbours_fails() -> None:
    found = by_name(run(lambda text: scrubbed(text).replace("salted cocoa", "sand")))
    assert found["retain.neighbours"].passed is False and found["retain.neighbours"].after == 0.5
    assert found["retain.siblings"].passed


def test_other_weights_drift() -> None:
    found = by_name(run(scrubbed, seed=1))
    assert found["drift.kl"].passed is False and found["drift.kl"].after > 0.1
    assert found["drift.norm"].after > 0.5


def test_a_patch_is_applied_measured_and_taken_off() -> None:
    model = Scripted(knows)
    name = model.anatomy.weight_name(1)
    weight = model.weight(name)
    update = LowRank(torch.randn(weight.shape[0], 1), torch.randn(1, weight.shape[1]))
    patch = Patch({name: update}, model.fingerprint([name]))
    want = float(torch.linalg.norm(patch.factors[name].dense()) / torch.linalg.norm(weight))
    before = model.identity()
    found = by_name(audit(model, patch, requests()))
    assert model.identity() == before
    assert found["drift.norm"].after == pytest.approx(want, rel=1e-4) and found["drift.kl"].after > 0


def test_little_memory_opens_the_candidate_more_often_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = by_name(run(scrubbed, seed=1))["drift.kl"]
    monkeypatch.setattr(pipeline.drift, "groups", lambda rows, _v: ([row] for row in rows))
    opened: list[int] = []
    other = Scripted(scrubbed, 1)

    def open_it() -> nullcontext[Scripted]:
        opened.append(1)
        return nullcontext(other)

    found = by_name(audit(Scripted(knows), open_it, requests()))["drift.kl"]
    assert len(opened) > 1 and found.after == pytest.approx(whole.after, rel=1e-5) and found.n == whole.n


def test_observations_hold_no_text_travel_as_json_and_can_be_reused() -> None:
    model = Scripted(knows)
    before = observe(model, requests())
    text = before.model_dump_json()
    assert Observation.model_validate_json(text) == before
    assert not any(word in text for word in ("amber", "fennel", "green", "made from"))
    again = audit(model, partial(nullcontext, Scripted(scrubbed)), requests(), before=before)
    assert again.measurements == run(scrubbed).measurements


def test_observations_of_other_prompts_or_suites_are_refused(tiny: Callable[[Suite], None]) -> None:
    model = Scripted(knows)
    facts = [{"id": "one", "subject": "Zorvex", "relation": "recipe", "answer": "bitter amber"}]
    fewer = observe(model, requests(facts=facts))
    with pytest.raises(AuditError, match="different prompts"):
        audit(model, partial(nullcontext, Scripted(scrubbed)), requests(), before=fewer)
    other = fewer.model_copy(update={"suite": "other"})
    with pytest.raises(AuditError, match="suite"):
        audit(model, partial(nullcontext, Scripted(scrubbed)), requests(facts=facts), before=other)


@pytest.mark.parametrize(
    ("change", "name", "reason"),
    [
        ({"audit": {"benign": "/no/such/file"}}, "overrefusal.benign", "/no/such/file"),
        ({"audit": {"text": "/no/such/file"}}, "drift.kl", "/no/such/file"),
        ({"keep": {"siblings": []}}, "retain.siblings", "keep.siblings is empty"),
        ({"audit": {"limits": {"capability": 0.1}}}, "capability", "does not make"),
        ({"audit": {"limits": {"toxicity.demo": 0.1}}}, "toxicity.demo", "does not make"),
    ],
)
def test_what_cannot_be_measured_is_a_failed_limit(change: dict[str, object], name: str, reason: str) -> None:
    found = run(scrubbed, **change)
    assert by_name(found)[name].passed is False and reason in str(by_name(found)[name].reason)
    assert not Report.of(found.measurements).passed


def test_a_missing_task_fails_its_limit(
    tiny: Callable[[Suite], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny(SUITE.model_copy(update={"measurements": (*SUITE.measurements, "capability")}))

    def offline(model: object, name: str, *_: object) -> None:
        raise ConnectionError(f"cannot reach the data of {name}")

    monkeypatch.setattr(harness, "_run", offline)
    found = by_name(run(scrubbed, audit={"tasks": ["arc_easy"]}))["capability.arc_easy"]
    assert found.passed is False and found.after is None and "cannot reach" in str(found.reason)


def test_a_missing_scorer_fails_its_limit(tiny: Callable[[Suite], None]) -> None:
    tiny(SUITE.model_copy(update={"measurements": (*SUITE.measurements, "toxicity")}))
    found = by_name(run(scrubbed, audit={"toxicity": "/no/such/scorer.ckpt"}))
    (name,) = [name for name in found if name.startswith("toxicity")]
    assert (
        name == "toxicity.scorer-ckpt"
        and found[name].passed is False
        and "no toxicity checkpoint" in found[name].reason
    )


def test_toxicity_by_the_demo_scorer(tiny: Callable[[Suite], None]) -> None:
    tiny(SUITE.model_copy(update={"measurements": (*SUITE.measurements, "toxicity")}))
    found = by_name(
        run(lambda text: scrubbed(text).replace("Hello, how are you?", "Go away, you stupid fool!"))
    )
    assert found["toxicity.demo"].before < 0.1 < 0.9 < found["toxicity.demo"].after
    assert found["toxicity.demo"].passed is False


def test_held_out_text_of_a_model_that_is_not_the_embedded_one_is_its_own() -> None:
    keep = {"siblings": ["colour"], "neighbours": ["Quandel"], "held_out_neighbours": ["Mirl"]}
    found = by_name(run(scrubbed, model="some/model", keep=keep))["drift.kl"]
    assert found.n == 200 and "own replies" in found.definition


def test_another_vocabulary_cannot_be_compared() -> None:
    other = Scripted(scrubbed)
    other.tokenizer = type("Odd", (), {
        "get_vocab": lambda self: {}, "__getattr__": lambda self, name: getattr(Scripted(knows).tokenizer, name),
        "__call__": lambda self, *a, **k: Scripted(knows).tokenizer(*a, **k),
    })()  # fmt: skip
    found = by_name(audit(Scripted(knows), partial(nullcontext, other), requests()))
    assert found["drift.kl"].passed is False and "vocabulary" in str(found["drift.kl"].reason)
    assert found["drift.perplexity"].passed is False and found["leak.direct"].passed
