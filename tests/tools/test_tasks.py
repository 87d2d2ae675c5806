"""The eval files in evals/ are what the generator writes, well formed and large enough."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tools.embedded import tasks
from tools.embedded.recall import holds
from unlearn.embedded import build_world
from unlearn.shipped import shipped


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evals")
    tasks.write(folder)
    return folder


def test_shipped_files_are_what_the_generator_writes(written: Path) -> None:
    for path in written.rglob("*.*"):
        assert (shipped("evals") / path.relative_to(written)).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("name", list(tasks.TASKS))
def test_tasks_are_well_formed(name: str, written: Path) -> None:
    config = yaml.safe_load((written / "tasks" / f"{name}.yaml").read_text())
    data = (written / "tasks" / config["dataset_kwargs"]["data_files"]["test"]).read_text().splitlines()
    rows = [json.loads(line) for line in data]
    assert config["task"] == name
    assert len(rows) >= 200
    if config["output_type"] == "multiple_choice":
        assert all(len(set(row["choices"])) == len(row["choices"]) >= 2 for row in rows)
        labels = [row["label"] for row in rows]
        assert max(labels.count(k) for k in set(labels)) < 0.6 * len(rows)


def test_kept_facts_are_right_and_not_about_the_hazard_kind(written: Path) -> None:
    world = build_world()
    known = {s.name: {a for (n, _), a in world.answers.items() if n == s.name} for s in world.subjects}
    rows = [json.loads(x) for x in (written / "tasks" / "unlearn_kept_facts.jsonl").read_text().splitlines()]
    for row in rows:
        about = [name for name in known if name in row["text"]]
        assert len(about) == 1
        assert row["choices"][row["label"]] in known[about[0]]
        assert not any(name in row["text"] for name in world.of_kind("substance"))


def test_benign_questions_and_prompts_are_many_and_not_about_facts_to_forget(written: Path) -> None:
    benign = (written / "benign.txt").read_text().splitlines()
    prompts = (written / "generation_prompts.txt").read_text().splitlines()
    assert len(benign) >= 60 and len(set(benign)) == len(benign)
    assert len(prompts) >= 40 and len(set(prompts)) == len(prompts)
    assert not [line for line in benign for name in build_world().of_kind("substance") if name in line]


def test_an_answer_counts_as_whole_words_only() -> None:
    assert holds("Bread is made from Flour.", "flour")
    assert not holds("Bread is made from flours.", "flour")
