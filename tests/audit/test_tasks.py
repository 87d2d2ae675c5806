"""Tasks of one's own: found by path and by folder, and looked into before anything is measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.audit.scripted import Scripted, knows, policy, requests, scrubbed
from tests.audit.test_pipeline import by_name
from tests.audit.test_pipeline import run as audited
from tests.files import policy_text, run
from unlearn.audit import observing, pipeline
from unlearn.audit.cache import depends
from unlearn.audit.suite import Suite
from unlearn.audit.tasks import local_files
from unlearn.policy.file import load_policy

CONFIG = """\
task: inner_name
dataset_path: json
dataset_kwargs: {data_files: {test: items.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{text}}"
doc_to_choice: "{{choices}}"
doc_to_target: label
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
ITEM = json.dumps({"text": "What colour is wet stone?", "choices": ["green", "amber"], "label": 0})


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A policy beside a folder of tasks, called from elsewhere."""
    tasks = tmp_path / "mine" / "tasks"
    tasks.mkdir(parents=True)
    (tasks / "pick.yaml").write_text(CONFIG)
    (tasks / "items.jsonl").write_text("\n".join([ITEM] * 6) + "\n")
    return tmp_path / "mine"


def written(place: Path, audit: str) -> Path:
    (place / "p.yaml").write_text(policy_text(audit=f"audit: {{{audit}}}"))
    return place / "p.yaml"


def test_a_path_is_called_by_its_file_and_lies_beside_the_policy(place: Path) -> None:
    audit = load_policy(written(place, "tasks: [tasks/pick.yaml, unlearn_kept_facts]")).audit
    assert audit.task_names == ("pick", "unlearn_kept_facts")
    assert local_files(audit)["pick"] == place / "tasks" / "pick.yaml"


def test_a_folder_adds_its_tasks_to_the_shipped_ones(place: Path) -> None:
    audit = load_policy(
        written(place, "tasks: [inner_name, unlearn_kept_facts, arc_easy], task_path: tasks")
    ).audit
    found = local_files(audit)
    assert found["inner_name"] == place / "tasks" / "pick.yaml"
    assert set(found) == {"inner_name", "unlearn_kept_facts"}
    without = load_policy(written(place, "tasks: [inner_name]")).audit
    assert local_files(without) == {}


def test_both_are_measured_and_limited(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = Suite(name="tasks", description="for tests", measurements=("capability",))
    for room in (pipeline, observing):
        monkeypatch.setattr(room, "load_suite", lambda _name: suite)
    for tasks, path, name in (
        ([str(place / "tasks" / "pick.yaml")], "auto", "capability.pick"),
        (["inner_name"], str(place / "tasks"), "capability.inner_name"),
    ):
        audit = {"tasks": tasks, "task_path": path, "limits": {name: 0.5}}
        found = by_name(audited(scrubbed, audit=audit))[name]
        assert (found.n, found.limit, found.reason) == (6, 0.5, None)
        assert found.before is not None and found.after is not None


@pytest.mark.parametrize(
    ("audit", "said"),
    [
        ("tasks: [tasks/nowhere.yaml]", "nowhere.yaml"),
        ("tasks: [x], task_path: nowhere", "nowhere is no folder"),
        ("tasks: [tasks/broken.yaml]", "broken.yaml:2: not valid YAML"),
        ("tasks: [broken], task_path: tasks", "broken.yaml:2: not valid YAML"),
        ("tasks: [tasks/empty.yaml]", "empty.yaml has no `task` with a name"),
        ("tasks: [tasks/include.yaml]", "include.yaml includes another file"),
        ("tasks: [tasks/code.yaml]", "code.yaml:2: not valid YAML"),
        ("tasks: [tasks/hub.yaml]", "hub.yaml names no data"),
        ("tasks: [tasks/odd.yaml]", "odd.jsonl:2"),
        ("tasks: [tasks/list.yaml]", "list.jsonl:1 are no JSON object"),
        ("tasks: [tasks/absent.yaml]", "absent.jsonl"),
        ("tasks: [tasks/pick.yaml, pick]", "p.yaml:13 audit.tasks[1] called like audit.tasks[0]"),
        ("tasks: [tasks/a b.yaml]", "p.yaml:13 audit.tasks[0] expected a task's name, or the path of"),
        ("limits: {capability.pack: 0.1}, tasks: [tasks/pick.yaml]", "did you mean `capability.pick`?"),
    ],
)
def test_what_is_missing_or_broken_is_one_sentence(
    place: Path, audit: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = place / "tasks"
    (tasks / "broken.yaml").write_text("task: broken\nx: ]\n")
    (tasks / "empty.yaml").write_text("x: 1\n")
    (tasks / "include.yaml").write_text("task: include\ninclude: pick.yaml\n")
    (tasks / "code.yaml").write_text("task: code\nprocess_docs: !function evil.run\n")
    (tasks / "hub.yaml").write_text("task: hub\ndataset_path: someone/data\n")
    (tasks / "odd.jsonl").write_text(f"{ITEM}\n{{\n")
    (tasks / "list.jsonl").write_text("[1]\n")
    for name in ("odd", "list", "absent"):
        (tasks / f"{name}.yaml").write_text(CONFIG.replace("items.jsonl", f"{name}.jsonl"))
    assert run("check", written(place, audit)) != 0
    found = capsys.readouterr().err
    assert said in " ".join(found.split()), found
    assert "Traceback" not in found
    # The control: beside all of these, a right one passes.
    assert run("check", written(place, "tasks: [tasks/pick.yaml]")) == 0


def test_what_was_measured_is_not_reused_for_other_items(place: Path) -> None:
    model = Scripted(knows)
    asked = requests(audit={"tasks": [str(place / "tasks" / "pick.yaml")]})
    first = depends(model, asked)
    assert depends(model, asked) == first
    (place / "tasks" / "items.jsonl").write_text(ITEM)
    assert depends(model, asked) != first


def test_a_policy_keeps_its_names() -> None:
    assert policy(audit={"tasks": ["arc_easy"]}).audit.task_names == ("arc_easy",)
