import pytest

from unlearn.audit.measures import fact_rows, share
from unlearn.audit.observation import Attacked, Observation, Outcome
from unlearn.audit.shares import SHARES, untested
from unlearn.errors import AuditError
from unlearn.policy import AuditSpec


def state(group: str, told: list[bool], refused: list[bool] | None = None, **rest: object) -> Observation:
    refused = refused or [False] * len(told)
    outcomes = tuple(
        Outcome(key=f"f{i % 2}/{i}", fact=f"f{i % 2}", question=i < len(told) - 1, told=t, refused=r)
        for i, (t, r) in enumerate(zip(told, refused, strict=True))
    )
    return Observation(suite="tiny", groups={group: outcomes}, **rest)


def limits(_name: str) -> float:
    return 0.5


def test_a_leak_is_a_share_with_its_counts() -> None:
    found = share(
        "leak.direct", state("direct", [True] * 4), state("direct", [True, False, False, False]), limits
    )
    assert (found.before, found.after, found.n, found.hits, found.before_hits) == (1.0, 0.25, 4, 1, 4)
    assert found.passed and found.ci95[0] < 0.25 < found.ci95[1] and found.p_value == 0.25


def test_refusals_are_counted_on_questions_only() -> None:
    before, after = state("direct", [True] * 4), state("direct", [False] * 4, [True, True, True, False])
    assert share("refusal.direct", before, after, limits).n == 3
    assert share("refusal.direct", before, after, limits).after == 1.0


def test_nothing_known_before_is_no_suppression() -> None:
    found = share("leak.direct", state("direct", [False] * 4), state("direct", [False] * 4), limits)
    assert found.passed is False and found.after is None and "cannot show suppression" in str(found.reason)


def test_retention_counts_what_was_right_before_and_says_what_it_left_out() -> None:
    before, after = state("siblings", [True, True, False, True]), state("siblings", [True, False, True, True])
    found = share("retain.siblings", before, after, limits)
    assert (found.n, found.hits, found.before) == (3, 2, 1.0)
    assert "1 of 4 prompts left out" in found.definition
    assert found.before_ci95 is None
    nothing = share("retain.siblings", state("siblings", [False]), state("siblings", [True]), limits)
    assert nothing.passed is False and "nothing to retain" in str(nothing.reason)


@pytest.mark.parametrize("name", [name for name, *_ in SHARES if name != "overrefusal.benign"])
def test_a_group_without_prompts_fails(name: str) -> None:
    empty = Observation(suite="tiny")
    found = share(name, empty, empty, limits)
    assert found.passed is False and found.reason


def test_a_reason_travels_from_either_state() -> None:
    good = state("benign", [False])
    bad = Observation(suite="tiny", failed={"benign": "the file is gone"})
    for before, after in ((good, bad), (bad, good)):
        assert share("overrefusal.benign", before, after, limits).reason == "the file is gone"


def test_different_prompts_cannot_be_compared() -> None:
    with pytest.raises(AuditError, match="different prompts"):
        share("leak.direct", state("direct", [True] * 4), state("direct", [True] * 3), limits)


def test_facts_by_id() -> None:
    before, after = state("direct", [True] * 4), state("direct", [True, False, False, False])
    rows = {row.id: row for row in fact_rows({"f0": True, "f1": False}, before, after)}
    leak = rows["f0"].counts["leak.direct"]
    assert (leak.before, leak.after, leak.n) == (2, 1, 2)
    assert not rows["f1"].known and rows["f1"].counts["leak.direct"].after == 0
    assert "leak.cloze" not in rows["f0"].counts


def guessed(group: str, told: int, n: int, chance: float = 0.25) -> Observation:
    outcomes = tuple(
        Outcome(key=f"f/{i}", fact="f", told=i < told, refused=False, chance=chance) for i in range(n)
    )
    return Observation(suite="tiny", groups={group: outcomes})


def unlimited(_name: str) -> None:
    return None


def test_what_guessing_may_do_is_limited_by_the_control_or_by_guessing() -> None:
    before = guessed("choice", 40, 40)
    low, high = (share("leak.choice", before, guessed("choice", k, 40), unlimited) for k in (12, 30))
    assert low.passed and high.passed is False and low.limit == high.limit
    assert 0.25 < float(low.limit or 0) < 0.45 and "Guessing: 25.0%" in low.definition
    control = guessed("choice", 20, 40)
    with_control = share("leak.choice", before, guessed("choice", 24, 40), unlimited, control)
    assert with_control.control == 0.5 and with_control.passed
    assert with_control.limit == pytest.approx(with_control.control_ci95[1], abs=1e-4)
    own = share("leak.choice", before, guessed("choice", 24, 40), limits, control)
    assert own.limit == 0.5 and own.passed is False


def test_a_model_that_only_guesses_cannot_show_suppression() -> None:
    found = share("leak.rank", guessed("rank", 10, 40), guessed("rank", 10, 40), unlimited)
    assert found.passed is False and "no better than guessing" in str(found.reason)


@pytest.mark.parametrize("kind", ["reverse", "two_hop", "negation", "languages"])
def test_a_kind_of_prompt_that_the_policy_lacks_is_not_tested_unless_it_sets_a_limit(kind: str) -> None:
    name, empty = f"leak.{kind}", Observation(suite="tiny")
    assert kind in str(untested(name, empty, AuditSpec()))
    assert untested(name, empty, AuditSpec(limits={name: 0.1})) is None
    assert share(name, empty, empty, limits).passed is False
    assert untested(name, state(kind, [True]), AuditSpec()) is None
    broken = Observation(suite="tiny", failed={kind: "no such answer"})
    assert untested(name, broken, AuditSpec()) is None


def test_letters_are_not_tested_where_the_unedited_model_guesses() -> None:
    assert "guessing" in str(untested("leak.letters", guessed("letters", 12, 40), AuditSpec()))
    assert untested("leak.letters", guessed("letters", 36, 40), AuditSpec()) is None
    assert (
        untested("leak.letters", guessed("letters", 12, 40), AuditSpec(limits={"leak.letters": 0.3})) is None
    )
    assert untested("leak.direct", Observation(suite="tiny"), AuditSpec()) is None


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
