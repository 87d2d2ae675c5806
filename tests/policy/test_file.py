"""Every problem with its line, in words that say what to do; and nothing is loaded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.files import policy_text
from unlearn.audit.suite import load_suite
from unlearn.errors import PolicyError
from unlearn.measurements import SHARES
from unlearn.policy import DEFAULT_LIMITS, Policy
from unlearn.policy.file import load_policy, schema
from unlearn.shipped import shipped


def problems(tmp_path: Path, text: str | bytes, **overrides: str) -> list[str]:
    """The lines of the refusal, with the path cut off."""
    path = tmp_path / "p.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(PolicyError) as caught:
        load_policy(path, {key.replace("__", "."): value for key, value in overrides.items()})
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{path}", "p").splitlines()


def test_a_right_policy_loads(small_policy: Path) -> None:
    policy = load_policy(small_policy)
    assert policy.name == "small"
    assert policy.model == "embedded"
    assert policy.facts[0].answer is None
    assert policy.relations["recipe"].questions() == ("What is {subject} made from?",)
    assert policy.relations["recipe"].statements(held_out=True) == (
        "It is known that {subject} is made from",
    )


@pytest.mark.parametrize("path", sorted(shipped("policies").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_policies_load(path: Path) -> None:
    policy = load_policy(path)
    assert policy.notes() == []


def test_all_three_are_shipped() -> None:
    assert len(list(shipped("policies").glob("*.yaml"))) >= 3


def test_template_names_every_key_with_its_default() -> None:
    path = shipped("policies") / "template.yaml"
    data, policy = yaml.safe_load(path.read_text()), load_policy(path)
    assert set(data) == set(Policy.model_fields)
    for part in ("keep", "audit", "statistics", "method", "prompt_variants"):
        kind = type(getattr(policy, part))
        assert set(data[part]) == set(kind.model_fields), part
    assert set(data["facts"][0]) == set(type(policy.facts[0]).model_fields)
    assert set(data["relations"]["recipe"]) == set(type(policy.relations["recipe"]).model_fields)
    # A limit of a policy's own fails where it cannot be measured, so the template has those of its suite only.
    suite, optional = load_suite("standard"), {row.name for row in SHARES if row.untested}
    made = {
        name: limit for name, limit in DEFAULT_LIMITS.items() if suite.makes(name) and name not in optional
    }
    assert data["audit"]["limits"] == made
    default = Policy.model_fields
    assert policy.method == default["method"].default
    assert policy.statistics == default["statistics"].default
    assert policy.refusal == default["refusal"].default


def test_demo_has_the_limits_that_were_promised() -> None:
    policy = load_policy(shipped("policies") / "demo.yaml")
    assert len(policy.facts) == 24
    promised = {
        "leak.direct": 0.02, "leak.held_out": 0.05, "leak.cloze": 0.10, "refusal.held_out": 0.90,
        "retain.siblings": 0.95, "retain.neighbours": 0.98, "capability": 0.015, "drift.kl": 0.02,
        "toxicity": 0.0,
        "overrefusal.lookalike": 0.15,  # looser than the default: the model knows few words of these questions
    }  # fmt: skip
    assert policy.audit.limits == promised


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"name": "name: No"}, 'p:2 name  expected text, got a boolean: write "No" in quotes'),
        ({"name": "name: 1984"}, 'p:2 name  expected text, got a number: write "1984" in quotes'),
        ({"name": "name: 2020-01-01"}, 'p:2 name  expected text, got a date: write "2020-01-01" in quotes'),
        ({"name": "name: 12:30"}, 'p:2 name  YAML reads 12:30 as a number in base 60: write "12:30" in quotes'),
        ({"name": "name:"}, "p:2 name  expected text, got nothing"),
        ({"name": "name: a b"}, "p:2 name  use letters, digits, dots, dashes and underscores only"),
        ({"name": ""}, "p:1 name  this key is required and missing"),
        ({"version": "version: 2"}, "p:1 version  expected 1"),
        ({"relatoins": "relatoins: {}"}, "p:13 relatoins  unknown key; did you mean `relations`?"),
        ({"zzz": "zzz: 1"}, "p:13 zzz  unknown key"),
        ({"method": "method: {name: alphaedit, rige: 1}"}, "p:13 method.rige  unknown key; did you mean `ridge`?"),
        ({"method": "method: {name: rmoe}"}, "p:13 method.name  unknown method `rmoe`; did you mean `rome`?"),
        ({"method": "method: {ridge: 1}"}, "p:13 method  needs a `name`, such as {name: alphaedit}"),
        ({"method": "method: 3"}, "p:13 method  expected a mapping of keys to values"),
        ({"method": "method: rmoe"}, "p:13 method.name  unknown method `rmoe`; did you mean `rome`?"),
        ({"method": "method: {name: alphaedit, descent: 0}"}, "p:13 method.descent  no setting any more: "),
        ({"method": "method: {name: emmet, absolute: true}"}, "p:13 method.absolute  no setting any more: "),
        ({"method": "method: {name: rome, hard_negatives: 3}"}, "p:13 method.hard_negatives  unknown key"),
        ({"method": "method: {name: auto, kept: 3}"}, "p:13 method.kept  `auto` chooses the method; to set this, "),
        ({"method": "method: {name: auto, kepd: 3}"}, "p:13 method.kepd  unknown key"),
        ({"method": "method: {name: rome, steps: yes}"}, "p:13 method.steps  expected a number, got a boolean (yes)"),
        ({"facts": "facts: []"}, "p:10 facts  must not be empty"),
        ({"facts": "facts:"}, "p:10 facts  expected a list, got nothing"),
        ({"facts": "facts: [{id: a, relation: recipe}]"}, "p:10 facts[0].subject  this key is required and missing"),
        (
            {"facts": "facts:\n- {id: a, subject: A, relation: recipe}\n- {id: a, subject: B, relation: recipe}"},
            "p:12 facts[1].id  the id `a` is already used by facts[0]",
        ),
        (
            {"facts": "facts:\n- {id: a, subject: A, relation: recipe}\n- {id: b, subject: a, relation: recipe}"},
            "p:12 facts[1].subject  the same subject and relation as facts[0]",
        ),
        (
            {"facts": "facts: [{id: a, subject: A, relation: recip}]"},
            "p:10 facts[0].relation  no relation `recip` in `relations`; did you mean `recipe`?",
        ),
        (
            {"facts": "facts: [{id: a, subject: A, relation: colour}]"},
            "p:10 facts[0].relation  `colour` is also in keep.siblings: it cannot be forgotten and kept",
        ),
        ({"keep": "keep: {siblings: [color]}"}, "p:12 keep.siblings[0]  no relation `color` in `relations`"),
        (
            {"facts": "facts:\n- {id: a, subject: A B, relation: recipe}\n"
                      "- {id: b, subject: 'a\u00a0 \u00adb', relation: recipe}"},
            "p:12 facts[1].subject  the same subject and relation as facts[0]",
        ),
        (
            {"keep": "keep: {neighbours: [A], held_out_neighbours: [B, C, b]}"},
            "p:12 keep.held_out_neighbours[2]  the same as keep.held_out_neighbours[0]: it would count twice",
        ),
        (
            {"keep": 'keep: {neighbours: ["STEN\\u00admite"]}'},
            "p:12 keep.neighbours[0]  this subject stands in `facts`",
        ),
        ({"name": f"name: {'a' * 101}"}, "p:2 name  string should have at most 100 characters"),
        (
            {"method": "method: {name: alphaedit, layers: []}"},
            "p:13 method.layers  expected `auto` or a list that is not empty",
        ),
        (
            {"method": "method: {name: alphaedit, layers: [2, -1]}"},
            "p:13 method.layers[1]  input should be greater than or equal to 0",
        ),
        *(
            (
                {"method": f"method: {{name: {name}, layer: -1}}"},
                "p:13 method.layer  expected `auto` or a number greater than or equal to 0",
            )
            for name in ("rome", "ft_m", "rmu")
        ),
        (
            {"keep": "keep: {neighbours: 5}"},
            "p:12 keep.neighbours  expected `auto` or a list or a mapping of keys to values, got a number",
        ),
        ({"keep": "keep: {neighbours: {recipe: 5}}"}, "p:12 keep.neighbours.recipe  expected a list, got a number"),
        (
            {"keep": "keep: {neighbours: {recepi: [A]}}"},
            "p:12 keep.neighbours.recepi  no fact is of the relation `recepi`; did you mean `recipe`?",
        ),
        (
            {"keep": "keep: {neighbours: {recipe: [A, a]}}"},
            "p:12 keep.neighbours.recipe[1]  the same as keep.neighbours.recipe[0]: it would count twice",
        ),
        (
            {"keep": "keep: {held_out_neighbours: {recipe: [A]}, neighbours: [a]}"},
            "p:12 keep.held_out_neighbours.recipe[0]  this subject stands in keep.neighbours",
        ),
        (
            {"keep": "keep: {neighbours: {recipe: [stenmite]}}"},
            "p:12 keep.neighbours.recipe[0]  this subject stands in `facts`",
        ),
        (
            {"keep": "keep: {siblings: {recipe: [colour, color]}}"},
            "p:12 keep.siblings.recipe[1]  no relation `color` in `relations`",
        ),
        (
            {"keep": "keep: {siblings: {recipe: [recipe]}}"},
            "p:11 facts[0].relation  `recipe` is also in keep.siblings: it cannot be forgotten and kept",
        ),
        ({"keep": "keep: {neighbours: [Stenmite]}"}, "p:12 keep.neighbours[0]  this subject stands in `facts`"),
        (
            {"keep": "keep: {neighbours: [A], held_out_neighbours: [A]}"},
            "p:12 keep.held_out_neighbours[0]  this subject stands in keep.neighbours",
        ),
        ({"audit": "audit: {suite: quik}"}, "p:13 audit.suite  expected `quick`, `standard`, `full`, or the path of"),
        (
            {"audit": "audit: {limits: {leak.helt_out: 0}}"},
            "p:13 audit.limits.leak.helt_out  no measurement of this name; did you mean `leak.held_out`?",
        ),
        (
            {"audit": "audit: {limits: {capability.piqa: 0}}"},
            "p:13 audit.limits.capability.piqa  no measurement of this name",
        ),
        ({"audit": "audit: {limits: {drift.kl: .nan}}"}, "p:13 audit.limits.drift.kl  expected a finite number"),
        ({"seed": "seed: 1.5"}, "p:13 seed  expected a whole number"),
        ({"seed": "seed: 1\nseed: 2"}, "p:14 seed  the same key stands on line 13"),
        ({"relations": "relations: {recipe: {prompts: []}}"}, "p:3 relations.recipe.prompts  must not be empty"),
        ({"relations": "relations: {Off: {prompts: [a]}}"}, 'p:3 relations.Off  a key must be text: write "Off" in'),
        (
            {"relations": "relations: {recipe: {prompts: ['What is it?']}}"},
            "p:3 relations.recipe.prompts[0]  needs exactly one {subject}, has 0",
        ),
        (
            {"relations": "relations: {recipe: {prompts: ['{subject}, {subject}?']}}"},
            "p:3 relations.recipe.prompts[0]  needs exactly one {subject}, has 2",
        ),
        (
            {"relations": "relations: {recipe: {prompts: ['A {subject}'], held_out: ['A {subject}']}}"},
            "p:3 relations.recipe.held_out[0]  the same prompt stands above",
        ),
        ({"x": "x: *anchor"}, "p:13  not valid YAML: aliases"),
        ({"x": "x: !!python/object:os.system {}"}, "p:13  not allowed in a policy: could not determine a constructor"),
        ({"x": "x: [1"}, "p:14  not valid YAML"),
        ({"x": "---\ny: 1"}, "p:13  not valid YAML"),
    ],
)  # fmt: skip
def test_a_problem_names_its_line_and_what_to_do(tmp_path: Path, changes: dict[str, str], line: str) -> None:
    found = [re.sub(r" {2,}", "  ", said, count=1) for said in problems(tmp_path, policy_text(**changes))]
    assert any(said.startswith(line) for said in found), found
    assert re.fullmatch(r"\d+ problems?, nothing was loaded\.", found[-1])


def test_the_problems_of_schema_and_sense_come_at_once(tmp_path: Path) -> None:
    text = policy_text(
        facts="facts:\n- {id: a, subject: No, relation: recip}\n- {id: a, subject: B, relation: recipe}"
    )
    found = problems(tmp_path, text)
    assert len(found) == 4
    assert [re.search(r"p:(\d+) (\S+)", line).groups() for line in found[:-1]] == [  # type: ignore[union-attr]
        ("11", "facts[0].subject"),
        ("11", "facts[0].relation"),
        ("12", "facts[1].id"),
    ]


def test_numbers_without_a_dot_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(policy_text(audit="audit: {limits: {drift.kl: 2e-2}}"))
    assert load_policy(path).audit.limits["drift.kl"] == 0.02


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"", "p:1  the file is empty"),
        (b"# only a comment\n", "p:1  the file is empty"),
        (b"- a\n- b\n", "p:1  expected keys and values"),
        (b"just text", "p:1  expected keys and values"),
        (b"version: 1\nname: \xff\xfe\n", "p:2: not UTF-8 text; save the file as UTF-8"),
        (b"version: 1\0\0\n", "p is not text: it holds null characters"),
        (b"a: \x01", "p:1  not valid YAML: it holds characters"),
        (b"[" * 5000, "p:1  nested too deeply"),
    ],
)  # fmt: skip
def test_what_is_no_policy_at_all(tmp_path: Path, raw: bytes, sentence: str) -> None:
    assert problems(tmp_path, raw)[0].startswith(sentence)


def test_unreadable_places(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"nowhere\.yaml: no such file; shipped policies: .*demo\.yaml"):
        load_policy(tmp_path / "nowhere.yaml")
    with pytest.raises(PolicyError, match="cannot be read: it is a folder"):
        load_policy(tmp_path)


def test_an_alias_bomb_is_refused_at_once(tmp_path: Path) -> None:
    rows = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    assert "aliases" in problems(tmp_path, "\n".join(rows))[0]


def test_a_name_with_a_space_is_named_beside_other_problems(tmp_path: Path) -> None:
    relations = 'relations:\n  "made from": {prompts: ["Is {subject} made?"]}'
    facts = 'facts: [{id: a b, subject: Zorvex, relation: "made from"}]'
    found = problems(tmp_path, policy_text(relations=relations, facts=facts, keep=""))
    assert len(found) == 3 and all("use letters, digits" in line for line in found[:2])
    assert found[0].startswith("p:4 relations.made from ")


def test_schema_covers_every_key() -> None:
    found = schema()
    assert found["additionalProperties"] is False
    assert set(found["properties"]) == set(Policy.model_fields)
    assert all("description" in value or "$ref" in value for value in found["properties"].values())
