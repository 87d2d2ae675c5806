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
    for part in ("keep", "audit", "statistics", "method", "more_forms"):
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
        ({"method": "method: {name: rome, witnesses: 3}"}, "p:13 method.witnesses  unknown key"),
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


def test_overrides_stand_in_for_the_file(small_policy: Path) -> None:
    policy = load_policy(
        small_policy, {"method.name": "rome", "audit.limits.leak.direct": "0.5", "seed": "3"}
    )
    assert (policy.method.name, policy.audit.limits, policy.seed) == ("rome", {"leak.direct": 0.5}, 3)


def test_another_method_drops_the_settings_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(policy_text(method="method: {name: alphaedit, null_space: 0.5}"))
    assert load_policy(path, {"method.name": "rome"}).method.name == "rome"
    assert load_policy(path, {"method.name": "alphaedit"}).method.model_dump()["null_space"] == 0.5


def test_a_wrong_override_is_named_as_such(tmp_path: Path) -> None:
    found = problems(tmp_path, policy_text(), method__name="rmoe", seed="x", name__deep="1")
    assert sum(line.startswith("--set ") for line in found) == 3


def test_what_an_override_says_is_not_looked_for_in_the_file(tmp_path: Path) -> None:
    found = problems(tmp_path, policy_text(), relations__recipe__prompts='["no place"]')
    assert found[0].startswith("--set relations.recipe.prompts[0] ") and "{subject}" in found[0]
    fact = "[{id: a, subject: 12, relation: recipe}]"
    found = problems(tmp_path, policy_text(), facts=fact)
    assert found[0].startswith("--set facts[0].subject ") and 'got a number: write "12" in quotes' in found[0]
    found = problems(tmp_path, policy_text(), method="{name: rome, layers: x}")
    assert found[0].startswith("--set method.layers ")
    assert problems(tmp_path, policy_text(), method__steps="x")[0].startswith("--set method.steps ")


@pytest.mark.parametrize("key", ["audit.limits.leak.direct", "seed", "method.largest"])
def test_a_boolean_is_no_number_in_an_override_either(tmp_path: Path, key: str) -> None:
    found = problems(tmp_path, policy_text(), **{key: "yes"})
    assert found[0].startswith(f"--set {key} ") and "got a boolean (yes)" in found[0]


def test_a_name_with_a_space_is_named_beside_other_problems(tmp_path: Path) -> None:
    relations = 'relations:\n  "made from": {prompts: ["Is {subject} made?"]}'
    facts = 'facts: [{id: a b, subject: Zorvex, relation: "made from"}]'
    found = problems(tmp_path, policy_text(relations=relations, facts=facts, keep=""))
    assert len(found) == 3 and all("use letters, digits" in line for line in found[:2])
    assert found[0].startswith("p:4 relations.made from ")


@pytest.mark.parametrize(
    ("name", "limit", "said"),
    [
        ("leak.direct", "2", "from 0 to 1 (0.02 is 2 %), got 2"),
        ("refusal.direct", "-1", "from 0 to 1, got -1"),
        ("attack.q4", "5", "(0.05 is 5 %)"),
        ("capability", "1.5", "from -1 to 1 (0.015 is 1.5 %)"),
        ("drift.kl", "-0.1", "of at least 0, got -0.1"),
    ],
)
def test_a_limit_that_everything_meets_is_refused(tmp_path: Path, name: str, limit: str, said: str) -> None:
    found = problems(tmp_path, policy_text(audit=f"audit: {{limits: {{{name}: {limit}}}}}"))
    assert len(found) == 2 and said in found[0] and f"audit.limits.{name}" in found[0]


def test_a_seed_is_no_longer_than_a_generator_takes(tmp_path: Path) -> None:
    assert "seed" in problems(tmp_path, policy_text(seed=f"seed: {2**64}"))[0]


NUMBERS = {
    "audit.limits.leak.direct": "audit: {{limits: {{leak.direct: {}}}}}",
    "audit.task_limit": "audit: {{task_limit: {}}}",
    "audit.seed": "audit: {{seed: {}}}",
    "statistics.tokens": "statistics: {{tokens: {}}}",
    "seed": "seed: {}",
    "method.steps": "method: {{name: alphaedit, steps: {}}}",
    "method.clamp": "method: {{name: alphaedit, clamp: {}}}",
    "method.layers[0]": "method: {{name: alphaedit, layers: [{}]}}",
    "method.rank": "method: {{name: lora, rank: {}}}",
    "method.beta": "method: {{name: npo, beta: {}}}",
    "keep.look_alikes": "keep: {{look_alikes: {}}}",
}
ABSURD = [
    *(".nan", ".inf", "-.inf", "-1e999", "1e999"),
    *(f"{sign}1{'0' * zeros}" for sign in ("", "-") for zeros in (25, 400, 5000)),
    f"0x{'f' * 400}",
    "!!int 1.5",
    "1:30",
]


@pytest.mark.parametrize("value", ABSURD, ids=lambda value: value[:12])
@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_that_nothing_can_be_is_a_problem_at_its_place(tmp_path: Path, key: str, value: str) -> None:
    found = problems(tmp_path, policy_text(keep="", changed=NUMBERS[key].format(value)))
    assert len(found) == 2 and len(found[0]) < 700
    assert found[0].startswith(f"p:12 {key} ")


def test_numbers_up_to_their_bounds_are_right(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(policy_text(seed=f"seed: {2**63 - 1}", method="method: {name: lora, rank: 1_000_000}"))
    assert load_policy(path).seed == 2**63 - 1
    path.write_text(policy_text(method="method: {name: lora, rank: 1_000_001}"))
    with pytest.raises(PolicyError, match="method.rank  expected at most 1,000,000"):
        load_policy(path)
    with pytest.raises(PolicyError, match="--set seed  not allowed in a policy: a number beyond 64 bits"):
        load_policy(path, {"method": "{name: lora}", "seed": str(2**63)})


UNREADABLE = ["2020-13-45", '!!int ""', "!!bool maybe", "!!timestamp foo"]


@pytest.mark.parametrize("value", UNREADABLE)
def test_a_value_that_yaml_cannot_read_is_named_with_its_line(tmp_path: Path, value: str) -> None:
    text = policy_text(name=f"name: {value}")
    (found, _) = problems(tmp_path, text)
    assert found.startswith("p:2 name") and "in quotes" in found
    (found, _) = problems(tmp_path, policy_text(), name=value)
    assert found.startswith("--set name ") and "in quotes" in found


def test_schema_covers_every_key() -> None:
    found = schema()
    assert found["additionalProperties"] is False
    assert set(found["properties"]) == set(Policy.model_fields)
    assert all("description" in value or "$ref" in value for value in found["properties"].values())
