"""What the files hold, who is picked, and that nothing which is evaluated reaches the edit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.records import Neighbour, Record, kept_for, load_counterfact, load_zsre, pick
from benchmarks.runner import requests_for
from tests.benchmarks import cases
from unlearn.errors import PolicyError, UnlearnError
from unlearn.policy import StatisticsSpec


def test_this_projects_lines(tmp_path: Path) -> None:
    loaded = load_counterfact(cases.facts_file(tmp_path))
    first = loaded.records[0]
    assert first.prompt == "Zorvex is made from" and first.true == "stone" and first.new == "amber"
    assert first.neighbours[0] == Neighbour("Velnar is made from", "stone", "1")
    assert "not the official one" in " ".join(loaded.notes) and "no generation prompts" in " ".join(
        loaded.notes
    )
    assert "8 neighbourhood prompts whose own object is the new one" in " ".join(loaded.notes)


def test_the_official_list(tmp_path: Path) -> None:
    row = {
        "case_id": 3,
        "requested_rewrite": {
            "prompt": "{} is in", "subject": "Zorvex", "relation_id": "P1",
            "target_true": {"str": "stone"}, "target_new": {"str": "amber"},
        },
        "paraphrase_prompts": ["It rains. Zorvex is in"], "neighborhood_prompts": ["Velnar is in"],
    }  # fmt: skip
    path = tmp_path / "official.json"
    path.write_text(json.dumps([row]))
    loaded = load_counterfact(path)
    assert loaded.records[0].neighbours == (Neighbour("Velnar is in", "stone"),)
    assert not any("not the official" in note for note in loaded.notes)


def test_zsre_needs_its_subject_once_and_as_a_word(tmp_path: Path) -> None:
    def row(subject: str, src: str) -> dict[str, object]:
        rest = {"answers": ["amber"], "rephrase": "Say it?", "loc": "nq question: who", "loc_ans": "me"}
        return {"subject": subject, "src": src, **rest}

    rows = [row("Zorvex", "Where is Zorvex?"), row("US", "Who runs the USA?"), row("A", "Is A like A?")]
    path = tmp_path / "zsre.json"
    path.write_text(json.dumps(rows))
    loaded = load_zsre(path)
    assert [r.template for r in loaded.records] == ["Where is {}?"]
    assert loaded.records[0].neighbours == (Neighbour("nq question: who?", "me"),)
    assert "2 left out" in loaded.notes[0]


@pytest.mark.parametrize("text", ["not json", '{"case_id": 1}', '[{"requested_rewrite": {}}]'])
def test_a_file_of_another_kind_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text(text)
    with pytest.raises(UnlearnError, match=r"facts\.jsonl"):
        load_counterfact(path)


def test_a_seed_picks_and_more_edits_only_add(tmp_path: Path) -> None:
    records = load_counterfact(cases.facts_file(tmp_path)).records
    assert pick(records, 3, 5)[:2] == pick(records, 3, 2) == pick(records, 3, 2)
    assert pick(records, 3, 8) != pick(records, 4, 8)
    with pytest.raises(UnlearnError, match="holds 8 different"):
        pick(records, 0, 9)
    assert len({r.subject for r in pick([*records, *records], 0, 8)}) == 8


def test_kept_subjects_are_no_evaluation_material(tmp_path: Path) -> None:
    records = list(load_counterfact(cases.facts_file(tmp_path)).records)
    stranger = Record("77", "Elsewhere", "{} is in", "x", "y", (), (), relation="8")
    chosen = records[:1]
    kept = kept_for([*records, stranger], chosen, 99)
    assert {r.subject for r in kept} == set(cases.SUBJECTS) - {"Zorvex", "Velnar"}
    # A subject that stands in an evaluated prompt is barred by its name too, where the file does not tell the record.
    bare = Record("5", "Zorvex", "{} is in", "x", "y", ("With Stone, Zorvex is",), (), relation="7")
    assert "Stone" not in {r.subject for r in kept_for(records, [bare], 99)}
    assert len(kept_for(records, chosen, 2)) == 2


def test_the_edit_sees_the_edit_prompt_alone_unless_it_is_told_more(tmp_path: Path) -> None:
    records = load_counterfact(cases.facts_file(tmp_path)).records
    statistics = StatisticsSpec(corpus="x.txt")
    method = {"name": "alphaedit", "ridge": 0.5}
    made = requests_for("some/model", records[:2], records[5:], method, statistics, 3)
    prompts = {p for fact in made.facts for p in made.policy.relations[fact.relation].prompts}
    assert prompts == {"{subject} is made from"}
    assert [made.policy.target(fact) for fact in made.facts] == ["amber", "amber"]
    assert {fact.subject for fact in made.neighbours} == set(cases.SUBJECTS[5:])
    assert made.policy.method.ridge == 0.5 and made.policy.seed == 3
    more = requests_for("some/model", records[:2], (), method, statistics, 3, phrasings=True)
    shown = {p for fact in more.facts for p in more.policy.relations[fact.relation].prompts}
    assert shown == {"{subject} is made from", "Zorro makes {subject} out of"}
    evaluated = {p.replace(r.subject, "{subject}") for r in records[:2] for p in r.paraphrases}
    assert not shown & evaluated
    with pytest.raises(PolicyError, match="ridges"):
        requests_for("some/model", records[:2], (), {"name": "alphaedit", "ridges": 1}, statistics, 0)
