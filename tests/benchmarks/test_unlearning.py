"""`benchmarks/unlearning.py`: policies drawn by a seed, rows with the report's names, and its real command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from benchmarks import unlearning
from benchmarks.options import keys_of
from benchmarks.worlds import case, changed
from tests.audit.scripted import REFUSAL, Scripted, knows, policy, requests, scrubbed
from tests.benchmarks.cases import SUBJECTS, corpus_file, facts_file
from tests.files import model_folder
from unlearn.errors import UnlearnError
from unlearn.policy import Policy
from unlearn.report import Measurement

ALPHA = {"name": "alphaedit"}


def test_a_world_is_drawn_by_its_seed() -> None:
    first, again, other = (case("world:24", seed, ALPHA, {}) for seed in (0, 0, 1))
    subjects = [{fact.subject for fact in found.policy.facts} for found in (first, again, other)]
    assert subjects[0] == subjects[1] != subjects[2] and len(subjects[0]) == 24
    assert first.policy.seed == 0 and other.policy.audit.seed == 1


def test_the_second_policy_forgets_four_relations_of_different_subjects() -> None:
    policy = case("second:8", 0, ALPHA, {}).policy
    subjects = [fact.subject for fact in policy.facts]
    assert len(subjects) == len(set(subjects)) == 8
    forgotten = [fact.relation for fact in policy.facts]
    assert len(set(forgotten)) == 4 and not set(forgotten) & set(policy.keep.siblings)
    assert all(forgotten.count(name) == 2 for name in forgotten)
    for name in forgotten:
        asked = policy.relations[name]
        assert len(asked.prompts) >= 14 and not set(asked.prompts) & set(asked.held_out)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("second:7", "multiple of 4"),
        ("second:600", "some must stay"),
        ("world:none", "number of facts"),
        ("world:0", "number"),
        ("world:9999", "some must stay"),
    ],
)
def test_wrong_policies_are_named(spec: str, sentence: str) -> None:
    with pytest.raises(UnlearnError, match=sentence):
        case(spec, 0, ALPHA, {})


def test_other_keys_of_a_policy_can_be_changed() -> None:
    found = case("world:2", 0, ALPHA, {})
    keys = keys_of(
        ['refusal="{end}"', "prompt_variants.templates=3", "relations.recipe.refusal=No, {subject}."]
    )
    policy = changed(found, keys).policy
    assert policy.refusal == "{end}" and policy.prompt_variants.templates == 3
    assert policy.target(policy.facts[0]) == f"No, {policy.facts[0].subject}."
    assert changed(found, {}).policy == found.policy
    for wrong, sentence in (
        ("nothing.at.all=1", "a policy has no such key"),
        ("seed=-1", "--policy: seed: "),
        ("refusal", "write KEY=VALUE"),
    ):
        with pytest.raises(UnlearnError, match=sentence):
            changed(found, keys_of([wrong]))


def test_a_policy_file_keeps_its_text_and_how_much_of_it_is_read(tmp_path: Path) -> None:
    text, file = corpus_file(tmp_path), tmp_path / "policy.yaml"
    stated = policy(statistics={"corpus": str(text), "tokens": 5000}, audit={"text": str(text)})
    file.write_text(yaml.safe_dump(stated.model_dump(mode="json", exclude_defaults=True)), encoding="utf-8")

    def found(spec: str, *options: str) -> Policy:
        given = unlearning.parser().parse_args(["--policies", spec, "--seeds", "0", *options])
        ((_, ((_, one),)),) = unlearning.cases(given, {})
        return one.policy

    taken = found(str(file))
    assert taken.statistics == stated.statistics and taken.audit.text == str(text)
    other = found(str(file), "--corpus", "own", "--text", "auto")
    assert (other.statistics.corpus, other.statistics.tokens, other.audit.text) == ("own", 5000, "auto")
    drawn = found("world:2")
    assert (drawn.statistics.corpus, drawn.statistics.tokens, drawn.audit.text) == ("auto", 200_000, "auto")


def test_a_target_counts_only_when_it_is_said_to_its_end() -> None:
    for script, share in (
        (scrubbed, 1.0),
        (knows, 0.0),
        (lambda text: REFUSAL if "Zorvex" in text else "I can't help with", 0.5),
        (lambda text: f"{REFUSAL} It is not", 0.0),
    ):
        assert unlearning.said_in_full(Scripted(script), requests()) == share
    questionless = policy().model_dump()
    questionless["relations"]["recipe"]["held_out"] = ["People say {subject} is made from"]
    assert unlearning.said_in_full(Scripted(scrubbed), requests(**questionless)) is None


def test_counterfact_asks_no_neighbour_that_is_to_be_forgotten(tmp_path: Path) -> None:
    where = {"facts": facts_file(tmp_path), "model": "m", "refusal": "unknown"}
    near = {n.subject for n in case("counterfact:3", 0, ALPHA, {}, **where).held_out_neighbours}
    count = len(SUBJECTS) - 1
    found = case(f"counterfact:{count}", 0, ALPHA, {}, **where)
    forgotten = {fact.subject for fact in found.facts or ()}
    assert near & forgotten  # they would be asked otherwise
    assert not forgotten & {n.subject for n in found.held_out_neighbours}


def test_counterfact_asks_what_the_edit_does_not_see(tmp_path: Path) -> None:
    found = case("counterfact:3", 0, ALPHA, {}, facts=facts_file(tmp_path), model="m", refusal="unknown")
    assert found.facts is not None and len(found.facts) == 3
    for fact in found.facts:
        spec = found.policy.relations[fact.relation]
        assert spec.prompts == (
            "{subject} is made from",
            "Zorro makes {subject} out of",
        ) and spec.held_out == ("People make {subject} from",)
        assert found.policy.target(fact) == "unknown" and fact.answer == "stone"
    for near in found.held_out_neighbours:
        assert near.subject not in {fact.subject for fact in found.neighbours}
        assert found.policy.relations[near.relation].held_out == ("{subject} is made from",)


def test_the_harmonic_mean_counts_what_was_measured() -> None:
    whole = {"leak.sampled": 0.0, "refusal.held_out": 1.0, "retain.siblings": 1.0, "retain.neighbours": 0.5}
    assert unlearning.harmonic(whole) == pytest.approx(80.0)
    assert unlearning.harmonic({"leak.sampled": 1.0, "retain.neighbours": 1.0}) == 0.0
    assert unlearning.harmonic({"refusal.held_out": 0.5}) == 50.0
    assert unlearning.harmonic({}) is None
    # Refusals of statements count where no question was asked, and only there.
    assert unlearning.harmonic({"refusal.cloze": 0.5, "retain.neighbours": 0.5}) == 50.0
    assert unlearning.harmonic({"refusal.held_out": 0.8, "refusal.cloze": 0.1}) == pytest.approx(80.0)


def test_a_row_has_the_reports_names_and_reasons() -> None:
    row = unlearning.row_of(
        [
            Measurement.made("leak.cloze", 0.25, before=1.0, n=4),
            Measurement.missing("retain.siblings", "why"),
        ],
        {"seed": 0},
    )
    assert row["leak.cloze"] == 0.25 and row["before"]["leak.cloze"] == 1.0 and row["n"]["leak.cloze"] == 4
    assert row["retain.siblings"] is None and row["missing"] == {"retain.siblings": "why"}


def test_a_row_says_what_the_harmonic_mean_is_beyond_chance() -> None:
    kept = Measurement.made("retain.neighbours", 1.0, before=1.0, n=4)
    lucky = Measurement.made("leak.sampled", 0.6, before=1.0, n=4, chance=0.2)
    row = unlearning.row_of([lucky, kept], {})
    assert row["leak.sampled.chance"] == 0.2 and row["leak.sampled"] == 0.6
    assert row["harmonic"] == pytest.approx(57.14) and row["harmonic.above_chance"] == pytest.approx(66.67)
    never = unlearning.row_of([Measurement.made("leak.sampled", 0.1, before=1.0, n=4, chance=0.2), kept], {})
    assert never["harmonic.above_chance"] == 100.0
    bare = unlearning.row_of([Measurement.made("leak.sampled", 0.6, before=1.0, n=4), kept], {})
    assert bare["harmonic.above_chance"] is None and "leak.sampled.chance" not in bare


def test_parts_can_be_taken_from_the_edit() -> None:
    whole = requests()
    assert whole.siblings and not unlearning.less(whole, ["siblings"]).siblings
    left = unlearning.less(whole, ["statements"]).policy.relations["recipe"]
    assert (
        left.prompts == ("What is {subject} made from?",)
        and left.held_out == whole.policy.relations["recipe"].held_out
    )
    for parts, sentence in ((["hope"], "unknown"), (["questions", "statements"], "no prompt left")):
        with pytest.raises(UnlearnError, match=sentence):
            unlearning.less(whole, parts)


def test_a_fact_that_cannot_be_asked_anew_is_written_and_not_asked() -> None:
    whole = requests()
    assert unlearning.audited(whole) == whole
    data = policy().model_dump()
    data["relations"]["smell"] = {"prompts": ["What does {subject} smell of?"], "held_out": []}
    data["facts"] = [
        *data["facts"],
        {"id": "three", "subject": "Mirl", "relation": "smell", "answer": "rain"},
    ]
    found = requests(**data)
    assert [fact.id for fact in found.facts] == ["one", "two", "three"]
    left = unlearning.audited(found)
    assert [fact.id for fact in left.facts] == [spec.id for spec in left.policy.facts] == ["one", "two"]


def test_the_command_writes_a_row_per_method_and_seed_and_none_twice(tmp_path: Path) -> None:
    model, out = model_folder(tmp_path / "model", "gpt2"), tmp_path / "rows.json"
    text = str(corpus_file(tmp_path))
    options = ["--policies", "counterfact:2", "--model", str(model), "--facts", str(facts_file(tmp_path))]
    options += [
        "--corpus",
        text,
        "--text",
        text,
        "--methods",
        "none,memit",
        "--seeds",
        "0",
        "--json",
        str(out),
    ]
    options += ["--set", "memit.steps=2", "--set", "memit.layers=[1]"]
    assert unlearning.main(options) == 0
    rows = json.loads(out.read_text())
    assert [row["method"] for row in rows] == ["none", "memit"]
    assert rows[0]["drift.kl"] == 0.0 and rows[1]["drift.norm"] > 0
    assert unlearning.main(options) == 0 and json.loads(out.read_text()) == rows
    assert unlearning.main([*options[:1], "counterfact:2"]) == 2
