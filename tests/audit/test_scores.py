"""Capability and toxicity from scores before and after: numbers, intervals, and what fails them."""

import pytest

from unlearn.audit.observation import Observation, TaskScore, Toxicity
from unlearn.audit.scores import capability, toxicity
from unlearn.errors import AuditError


def limits(_name: str) -> float:
    return 0.5


def scores(*items: float, value: float | None = None, stderr: float | None = None) -> Observation:
    value = sum(items) / len(items) if value is None else value
    task = TaskScore(metric="acc", value=value, stderr=stderr, items={str(i): x for i, x in enumerate(items)})
    return Observation(suite="tiny", tasks={"t": task})


def test_capability_is_a_drop_with_paired_items() -> None:
    found = capability("t", scores(1, 1, 1, 0), scores(1, 1, 0, 0), lambda _name: 0.25)
    assert found.passed and (found.before, found.after, found.hits, found.n) == (0.75, 0.5, 2, 4)
    assert found.p_value == 1.0 and "acc" in found.definition
    assert not capability("t", scores(1, 1, 1, 0), scores(1, 0, 0, 0), lambda _name: 0.25).passed


def test_scores_between_right_and_wrong_use_the_standard_error() -> None:
    found = capability("t", scores(0.5, 0.7, stderr=0.1), scores(0.4, 0.8, stderr=0.1), limits)
    assert (
        found.ci95 == (pytest.approx(0.404), pytest.approx(0.796))
        and found.p_value is None
        and found.hits is None
    )


def test_a_task_without_a_score_fails() -> None:
    missing = Observation(suite="tiny", failed={"capability.t": "no data"})
    assert capability("t", scores(1), missing, limits).reason == "no data"
    assert capability("t", scores(1), Observation(suite="tiny"), limits).passed is False
    with pytest.raises(AuditError, match="different items"):
        capability("t", scores(1), scores(1, 0), limits)


def toxic(*found: float, sha: str = "x") -> Observation:
    made = Toxicity(scorer="demo", label="demo scorer (not a real toxicity model)", sha256=sha, scores=found)
    return Observation(suite="tiny", toxicity=made)


def test_toxicity_is_a_mean_and_a_share() -> None:
    mean, above = toxicity("demo", toxic(0.1, 0.9), toxic(0.1, 0.1), lambda _name: 0.0, 0)
    assert mean.name == "toxicity.demo" and mean.passed and mean.after == pytest.approx(0.1)
    assert above.name == "toxicity.demo.share" and (above.before, above.after) == (0.5, 0.0)
    assert "not a real toxicity model" in mean.definition
    wording, _ = toxicity("demo", toxic(0.9993, 0.1), toxic(0.9994, 0.1), lambda _name: 0.0, 0)
    assert wording.passed and wording.before == wording.after
    worse, _ = toxicity("demo", toxic(0.1, 0.1), toxic(0.1, 0.2), lambda _name: 0.0, 0)
    assert worse.passed is False


def test_toxicity_that_was_not_scored_fails() -> None:
    failed = Observation(suite="tiny", failed={"toxicity": "no scorer"})
    (found,) = toxicity("original", toxic(0.1), failed, limits, 0)
    assert found.passed is False and found.reason == "no scorer"
    with pytest.raises(AuditError, match="scored differently"):
        toxicity("demo", toxic(0.1), toxic(0.1, sha="y"), limits, 0)


def test_a_drop_of_a_task_has_the_interval_of_its_paired_items() -> None:
    before, after = [1.0] * 30 + [0.0] * 10, [1.0] * 27 + [0.0] * 13
    found = capability("t", scores(*before), scores(*after), limits)
    low, high = found.change_ci95
    assert low < -3 / 40 < high < 0.05
    wide = found.ci95[1] - found.ci95[0] + found.before_ci95[1] - found.before_ci95[0]
    assert high - low < 0.8 * wide, "pairing must help"
    graded = capability("t", scores(*[0.5, 0.25] * 20), scores(*[0.4, 0.25] * 20), limits)
    assert graded.change_ci95[0] < -0.05 < graded.change_ci95[1]


def test_a_score_that_is_not_the_mean_of_its_items_has_no_interval_of_change_and_fails_strictly() -> None:
    found = capability("t", scores(1.0, 0.0, value=0.9), scores(1.0, 0.0, value=0.9), limits)
    assert found.change_ci95 is None and found.passed
    assert found.under("strict").passed is False


def test_toxicity_changes_text_by_text() -> None:
    same = toxic(*(i / 40 for i in range(40)))
    mean, above = toxicity("demo", same, same, lambda _: 0.0, 0)
    assert mean.change_ci95 == (0.0, 0.0) and mean.under("strict").passed
    assert above.change_ci95[0] < 0 < above.change_ci95[1]
    worse = toxic(*(min(1.0, i / 40 + 0.1 * (i % 2)) for i in range(40)))
    mean, _ = toxicity("demo", same, worse, lambda _: 0.08, 0)
    assert mean.passed and mean.change_ci95[0] < mean.after - mean.before < mean.change_ci95[1]
