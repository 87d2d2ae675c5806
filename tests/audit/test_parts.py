"""What measurements carry besides their own number: counts by part, intervals of changes, and counts per fact."""

import pytest

from unlearn.audit.measures import capability, fact_rows, norm, share, toxicity
from unlearn.audit.observation import Attacked, Observation, Outcome, TaskScore, Toxicity


def limits(_name: str) -> float:
    return 0.5


def seen(rows: list[tuple[str, str | None, bool]], group: str = "siblings", **rest: object) -> Observation:
    outcomes = tuple(
        Outcome(key=f"{fact}/{i}", fact=fact, part=part, told=told, refused=False)
        for i, (fact, part, told) in enumerate(rows)
    )
    return Observation(suite="tiny", groups={group: outcomes}, **rest)


def test_retention_is_counted_by_relation_among_what_was_right_before() -> None:
    before = seen([("a", "colour", True), ("a", "smell", True), ("b", "smell", True), ("b", "smell", False)])
    after = seen([("a", "colour", True), ("a", "smell", False), ("b", "smell", True), ("b", "smell", True)])
    found = share("retain.siblings", before, after, limits)
    assert {name: (c.before, c.after, c.n) for name, c in found.parts.items()} == {
        "colour": (1, 1, 1),
        "smell": (2, 1, 2),
    }
    assert sum(c.n for c in found.parts.values()) == found.n == 3
    low, high = found.parts["smell"].ci95
    assert low < 0.5 < high
    assert share("retain.siblings", seen([("a", None, True)]), seen([("a", None, True)]), limits).parts == {}


def score(values: list[float], value: float | None = None) -> Observation:
    items = {str(i): v for i, v in enumerate(values)}
    mean = sum(values) / len(values) if value is None else value
    return Observation(
        suite="tiny", tasks={"x": TaskScore(metric="acc", value=mean, stderr=None, items=items)}
    )


def test_a_drop_of_a_task_has_the_interval_of_its_paired_items() -> None:
    before, after = [1.0] * 30 + [0.0] * 10, [1.0] * 27 + [0.0] * 13
    found = capability("x", score(before), score(after), limits)
    low, high = found.change_ci95
    assert low < -3 / 40 < high < 0.05
    wide = found.ci95[1] - found.ci95[0] + found.before_ci95[1] - found.before_ci95[0]
    assert high - low < 0.8 * wide, "pairing must help"
    graded = capability("x", score([0.5, 0.25] * 20), score([0.4, 0.25] * 20), limits)
    assert graded.change_ci95[0] < -0.05 < graded.change_ci95[1]


def test_a_score_that_is_not_the_mean_of_its_items_has_no_interval_of_change_and_fails_strictly() -> None:
    found = capability("x", score([1.0, 0.0], 0.9), score([1.0, 0.0], 0.9), limits)
    assert found.change_ci95 is None and found.passed
    assert found.under("strict").passed is False


def test_toxicity_changes_text_by_text() -> None:
    def scores(*values: float) -> Observation:
        toxic = Toxicity(scorer="demo", label="demo", sha256="0", scores=values)
        return Observation(suite="tiny", toxicity=toxic)

    same = scores(*(i / 40 for i in range(40)))
    mean, above = toxicity("demo", same, same, lambda _: 0.0, 0)
    assert mean.change_ci95 == (0.0, 0.0) and mean.under("strict").passed
    assert above.change_ci95[0] < 0 < above.change_ci95[1]
    worse = scores(*(min(1.0, i / 40 + 0.1 * (i % 2)) for i in range(40)))
    mean, _ = toxicity("demo", same, worse, lambda _: 0.08, 0)
    assert mean.passed and mean.change_ci95[0] < mean.after - mean.before < mean.change_ci95[1]


def test_the_norms_are_kept_by_matrix() -> None:
    found = norm({"a.weight": 0.1, "b.weight": 0.4}, limits)
    assert found.by_weight == {"a.weight": 0.1, "b.weight": 0.4} and found.after == max(
        found.by_weight.values()
    )


@pytest.mark.parametrize("with_before", [True, False])
def test_attacks_are_counted_per_fact(with_before: bool) -> None:
    def attacked(told: list[bool]) -> dict[str, Attacked]:
        outcomes = tuple(
            Outcome(key=f"{i}", fact="ab"[i % 2], told=t, refused=False) for i, t in enumerate(told)
        )
        return {"int4": Attacked(outcomes=outcomes)}

    before = Observation(suite="tiny", attacks=attacked([True] * 4) if with_before else {})
    after = Observation(suite="tiny", attacks=attacked([True, False, False, False]))
    rows = {row.id: row.counts for row in fact_rows({"a": True, "b": True, "c": True}, before, after)}
    first = rows["a"]["attack.int4"]
    assert (first.before, first.after, first.n) == (2 if with_before else None, 1, 2)
    assert rows["b"]["attack.int4"].after == 0 and rows["c"] == {}
