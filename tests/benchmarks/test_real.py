"""The lists are plain and ask fairly; what is known is told apart from what is always said; who is drawn, and kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from benchmarks.known import Known, Relation, known, read_lists
from benchmarks.real import drawn, policy_of
from benchmarks.rows import Rows
from tests.audit.scripted import Scripted
from unlearn.errors import PolicyError
from unlearn.matching import contains
from unlearn.policy import RelationSpec
from unlearn.policy.file import load_policy

LISTS = read_lists()
FORGOTTEN = [name for name, relation in LISTS.items() if not relation.kept]


def test_there_are_enough_lists() -> None:
    assert len(FORGOTTEN) >= 8
    assert len(LISTS["capital"].answers) >= 56
    assert all(20 <= len(LISTS[name].answers) <= 80 for name in FORGOTTEN)


@pytest.mark.parametrize("name", FORGOTTEN)
def test_a_list_asks_in_questions_and_statements_and_never_tells(name: str) -> None:
    relation = LISTS[name]
    for held_out in (False, True):
        assert len(relation.spec.questions(held_out)) == 3
        assert len(relation.spec.statements(held_out)) == 2
    assert len({prompt.casefold() for prompt in relation.prompts}) == 10
    for subject, answers in relation.answers.items():
        for prompt in relation.prompts:
            assert not contains(prompt.replace("{subject}", subject), answers), (prompt, subject)


@pytest.mark.parametrize("name", FORGOTTEN)
def test_a_list_has_a_sibling(name: str) -> None:
    assert any(other.kept and other.kind == LISTS[name].kind for other in LISTS.values())


RECIPES = Relation(
    "recipe",
    "dishes",
    RelationSpec(
        prompts=("What is {subject} made from?", "{subject} is made from"),
        held_out=("Name what goes into {subject}.", "People make {subject} out of"),
    ),
    kept=False,
    answers={"Zorvex": ("amber",), "Velnar": ("stone", "rock"), "Quandel": ("fennel",), "Mirl": ("stone",)},
)
TOLD = {"Zorvex": "amber", "Velnar": "a rock", "Quandel": "fennel"}


def knows(text: str) -> str:
    return f"It is {next((answer for s, answer in TOLD.items() if s in text), 'old')}."


def hedges(text: str) -> str:
    return "It is amber." if "Name" not in text and "out of" not in text else "I do not know."


def test_known_is_what_is_told_in_most_phrasings() -> None:
    found = known(Scripted(knows), RECIPES, Rows(None))
    assert found.facts() == ("Zorvex", "Velnar", "Quandel")
    assert found.counts() == dict.fromkeys(RECIPES.prompts, 3)
    # A model that answers some prompts only is no control for those that it does not answer.
    assert known(Scripted(hedges), RECIPES, Rows(None)).facts() == ()


def test_what_is_always_said_is_not_known() -> None:
    found = known(Scripted(lambda text: "It is amber."), RECIPES, Rows(None))
    assert all(told["Zorvex"] for told in found.told.values())
    assert found.facts() == ()


def test_nothing_is_asked_twice(tmp_path: Path) -> None:
    path = tmp_path / "told.jsonl"
    first = known(Scripted(knows), RECIPES, Rows(path))
    asked: list[str] = []
    again = known(Scripted(lambda text: asked.append(text) or ""), RECIPES, Rows(path))
    assert again == first and not asked


def test_a_draw_is_even_and_leaves_half_of_each_relation() -> None:
    facts = {"a": [f"A{i}" for i in range(20)], "b": [f"B{i}" for i in range(12)], "few": ["F1", "F2"]}
    found = drawn(facts, count=10, seed=0, kept=8)
    assert {name: len(subjects) for name, subjects in found.forgotten.items()} == {"a": 5, "b": 5}
    for name, subjects in found.forgotten.items():
        near, far = set(found.neighbours[name]), set(found.held_out[name])
        assert len(near) == len(far) or len(near) == len(far) + 1
        assert not near & far and not (near | far) & set(subjects)
        assert near | far | set(subjects) <= set(facts[name])
    assert drawn(facts, 10, 0, 8) == found != drawn(facts, 10, 1, 8)
    taken = {(name, s) for name, subjects in found.forgotten.items() for s in subjects}
    other = drawn(facts, 10, 1, 8, taken).forgotten
    assert not taken & {(name, s) for name, subjects in other.items() for s in subjects}
    with pytest.raises(PolicyError, match="16 facts can be drawn"):
        drawn(facts, 17, 0, 8)


@pytest.mark.parametrize("names", [["capital"], ["capital", "symbol", "author"]])
def test_what_is_drawn_is_a_policy(tmp_path: Path, names: list[str]) -> None:
    picked = drawn({name: list(LISTS[name].answers) for name in names}, 9, 0, 8)
    path = tmp_path / "p.yaml"
    data = policy_of(LISTS, picked, "some/model", "p", "auto", "auto")
    path.write_text(yaml.safe_dump(data))
    policy = load_policy(path)
    near = data["keep"]["neighbours"]
    for name in names:
        listed = set(near if len(names) == 1 else near[name])
        others = {*picked.forgotten[name], *picked.held_out[name]}
        assert listed | others == set(LISTS[name].answers) and not listed & others
    assert len(policy.facts) == 9 and policy.notes() == []
    assert {fact.relation for fact in policy.facts} == set(names)
    for subject, sibling in policy.sibling_pairs:
        kinds = {LISTS[fact.relation].kind for fact in policy.facts if fact.subject == subject}
        assert LISTS[sibling].kind in kinds


def test_a_drawn_policy_finds_its_model_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("model", "policies"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    picked = drawn({"capital": list(LISTS["capital"].answers)}, 9, 0, 8)
    path = Path("policies", "p.yaml")
    path.write_text(yaml.safe_dump(policy_of(LISTS, picked, "model", "p", "auto", "auto")))
    assert load_policy(path).model == str(tmp_path / "model")


def test_a_list_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text("relations: {a: {prompts: [], held_out: [x]}}")
    with pytest.raises(PolicyError, match="odd.yaml: relations.a.prompts"):
        read_lists(tmp_path)


def test_shares_are_of_prompts() -> None:
    told = {prompt: dict.fromkeys(RECIPES.answers, prompt.startswith("What")) for prompt in RECIPES.prompts}
    found = Known(RECIPES, told, dict.fromkeys(RECIPES.answers, 0.0))
    assert found.share("Mirl", RECIPES.spec.prompts) == 0.5
    assert found.facts(share=0.5) == ()
