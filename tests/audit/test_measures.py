from dataclasses import replace

import pytest

from tests.audit.outcomes import fact, limits, made_as, state
from unlearn.audit.intervals import wilson
from unlearn.audit.measures import fact_rows, share
from unlearn.audit.observation import Attacked, Observation, Outcome
from unlearn.audit.recovery import attack
from unlearn.audit.shares import untested
from unlearn.errors import AuditError
from unlearn.measurements import SHARES
from unlearn.model.requests import Fact
from unlearn.policy import AuditSpec
from unlearn.report import Measurement


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


@pytest.mark.parametrize("name", [row.name for row in SHARES if row.name != "overrefusal.benign"])
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


def test_a_forgotten_relation_that_was_not_asked_about_fails() -> None:
    def asked(group: str, disclosed: bool) -> Observation:
        seen = Outcome(key="a/0", fact="a", part="recipe", disclosed=disclosed, refused=not disclosed)
        return Observation(suite="tiny", groups={group: (seen,)})

    every = (fact("a"), fact("b", "price"))
    for name, group in (
        ("leak.held_out", "held_out"),
        ("leak.cloze", "cloze"),
        ("leak.sampled", "sampled"),
        ("refusal.held_out", "held_out"),
    ):
        states = asked(group, True), asked(group, False)
        assert share(name, *states, limits, facts=every[:1]).after is not None
        missed = share(name, *states, limits, facts=every)
        assert missed.passed is False and "relations.price without" in str(missed.reason)
    assert share("leak.direct", asked("direct", True), asked("direct", False), limits, facts=every).passed


def test_facts_that_were_never_known_do_not_dilute_a_leak() -> None:
    # f0 and f1 in turns; f1 is not known.
    facts = fact("f0"), fact("f1", known=False)
    before, after = state("direct", [True, False, True, False]), state("direct", [True, False, False, False])
    found = share("leak.direct", before, after, limits, facts=facts)
    assert (found.hits, found.n, found.before) == (1, 2, 1.0) and "2 prompts about facts" in found.definition
    newly = share("leak.direct", before, state("direct", [True, True, False, False]), limits, facts=facts)
    assert (newly.hits, newly.n) == (2, 4)
    assert share("refusal.direct", before, after, limits, facts=facts).n == 3
    control = state("direct", [False, True, False, False])
    assert share("leak.direct", before, after, limits, control, facts).control == 0.0


def test_a_control_is_asked_the_same_questions() -> None:
    before, after = state("held_out", [True] * 4), state("held_out", [False] * 4, [True] * 4)
    control = state("held_out", [False] * 4, [True, True, True, False])
    assert share("refusal.held_out", before, after, limits, control).control == 1.0


def test_facts_by_id() -> None:
    before, after = state("direct", [True] * 4), state("direct", [True, False, False, False])
    rows = {row.id: row for row in fact_rows({"f0": True, "f1": False}, before, after)}
    leak = rows["f0"].counts["leak.direct"]
    assert (leak.before, leak.after, leak.n) == (2, 1, 2)
    assert not rows["f1"].known and rows["f1"].counts["leak.direct"].after == 0
    assert "leak.cloze" not in rows["f0"].counts


def guessed(group: str, told: int, n: int, chance: float = 0.25) -> Observation:
    outcomes = tuple(
        Outcome(key=f"f/{i}", fact="f", disclosed=i < told, refused=False, chance=chance) for i in range(n)
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
    unasked = share("leak.choice", before, guessed("choice", 24, 40), unlimited, control)
    assert unasked.passed is False and "nothing shows that it does not know" in str(unasked.reason)
    told = {**control.groups, **state("held_out", [True] * 30 + [False] * 10).groups}
    knowing = control.model_copy(update={"groups": told})
    assert "30 of 40" in str(share("leak.choice", before, before, unlimited, knowing).reason)
    silent = {**control.groups, **state("held_out", [False] * 40).groups}
    control = control.model_copy(update={"groups": silent})
    with_control = share("leak.choice", before, guessed("choice", 24, 40), unlimited, control)
    assert with_control.control == 0.5 and with_control.passed
    assert with_control.limit == pytest.approx(with_control.control_ci95[1], abs=1e-4)
    own = share("leak.choice", before, guessed("choice", 24, 40), limits, control)
    assert own.limit == 0.5 and own.passed is False


def test_hits_by_guessing_are_a_whole_number_in_spite_of_floats() -> None:
    # The mean of twenty 0.1 is 0.10000000000000002.
    found = share("leak.choice", guessed("choice", 20, 20, 0.1), guessed("choice", 0, 20, 0.1), unlimited)
    assert found.limit == pytest.approx(wilson(2, 20)[1], abs=1e-4)
    above = share("leak.choice", guessed("choice", 20, 20, 0.11), guessed("choice", 0, 20, 0.11), unlimited)
    assert above.limit == pytest.approx(wilson(3, 20)[1], abs=1e-4)


def test_what_samples_tell_by_chance_is_said_and_changes_no_verdict() -> None:
    before, after = guessed("sampled", 40, 40, 0.5), guessed("sampled", 8, 40, 0.125)
    found = share("leak.sampled", before, after, limits)
    assert found.chance == 0.125 and found.after == 0.2 and found.limit == 0.5 and found.passed
    assert "By chance: 12.5%" in found.definition
    unknown = share("leak.sampled", state("sampled", [True]), state("sampled", [False]), limits)
    assert unknown.chance is None and "By chance" not in unknown.definition


def test_a_model_that_only_guesses_cannot_show_suppression() -> None:
    found = share("leak.rank", guessed("rank", 10, 40), guessed("rank", 10, 40), unlimited)
    assert found.passed is False and "no better than guessing" in str(found.reason)


@pytest.mark.parametrize("kind", ["reverse", "two_hop", "negation", "languages"])
def test_a_kind_of_prompt_that_the_policy_lacks_is_not_tested_unless_it_sets_a_limit(kind: str) -> None:
    name, empty = f"leak.{kind}", Observation(suite="tiny")
    assert kind in str(untested(name, empty, empty, AuditSpec()))
    assert untested(name, empty, empty, AuditSpec(limits={name: 0.1})) is None
    assert share(name, empty, empty, limits).passed is False
    assert untested(name, state(kind, [True]), empty, AuditSpec()) is None
    broken = Observation(suite="tiny", failed={kind: "no such answer"})
    assert untested(name, broken, empty, AuditSpec()) is None


def test_letters_are_not_tested_where_the_unedited_model_guesses() -> None:
    name, empty, bad = "leak.letters", Observation(suite="tiny"), guessed("letters", 12, 40)
    assert "guessing" in str(untested(name, bad, empty, AuditSpec()))
    assert untested(name, guessed("letters", 36, 40), empty, AuditSpec()) is None
    assert untested(name, bad, empty, AuditSpec(limits={name: 0.3})) is None
    assert untested("leak.direct", empty, empty, AuditSpec()) is None


def seen(rows: list[tuple[str, str | None, bool]], group: str = "siblings", **rest: object) -> Observation:
    outcomes = tuple(
        Outcome(key=f"{fact}/{i}", fact=fact, part=part, disclosed=told, refused=False)
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
            Outcome(key=f"{i}", fact="ab"[i % 2], disclosed=t, refused=False) for i, t in enumerate(told)
        )
        return {"int4": Attacked(outcomes=outcomes)}

    before = Observation(suite="tiny", attacks=attacked([True] * 4) if with_before else {})
    after = Observation(suite="tiny", attacks=attacked([True, False, False, False]))
    rows = {row.id: row.counts for row in fact_rows({"a": True, "b": True, "c": True}, before, after)}
    first = rows["a"]["attack.int4"]
    assert (first.before, first.after, first.n) == (2 if with_before else None, 1, 2)
    assert rows["b"]["attack.int4"].after == 0 and rows["c"] == {}


def test_where_the_model_knows_nothing_that_could_stay_it_says_so() -> None:
    vague = Fact("sibling 1", "Zorvex", "colour", "green", elicited=True, doubt="they have nothing in common")
    empty = Observation(suite="tiny")
    for facts, said in (([vague], "replies agree on no answer"), ([], "nothing to ask")):
        found = share("retain.siblings", empty, empty, limits, facts=facts)
        assert found.passed is False and said in str(found.reason)


@pytest.mark.parametrize("name", ["leak.direct", "refusal.direct", "attack.prefill", "retain.siblings"])
def test_what_rests_on_a_doubtful_answer_is_not_measured(name: str) -> None:
    group = name.partition(".")[2]
    before = state(
        group, [True] * 4, attacks={"prefill": Attacked(outcomes=state("g", [True] * 4).groups["g"])}
    )
    after = state(
        group,
        [False] * 4,
        [True] * 4,
        attacks={"prefill": Attacked(outcomes=state("g", [False] * 4).groups["g"])},
    )
    sure = [Fact(f"f{i}", "Zorvex", "recipe", "secret amber", elicited=True) for i in range(5)]
    unsure = [replace(fact, doubt="the replies have nothing in common") for fact in sure]

    def made(facts: list[Fact]) -> Measurement:
        if name.startswith("attack."):
            return attack(made_as("prefill"), before, after, None, AuditSpec(), facts)
        return share(name, before, after, limits, facts=facts)

    assert made(sure).after is not None
    found = made([sure[0], *unsure[1:]])
    if name == "retain.siblings":
        left_out = " Nothing was asked about 4 of 5 facts: the unedited model's replies agree on no answer."
        assert found == made(sure).model_copy(update={"definition": made(sure).definition + left_out})
    else:
        assert found.passed is False and found.after is None
        assert str(found.reason).startswith(
            "give the answer of fact f1, fact f2, fact f3 and 1 more in the policy"
        )
        assert "amber" not in str(found.reason)
