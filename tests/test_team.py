"""Two processes on one run, over gloo: the patch of one, one report, one folder; and the end of one ends all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from tests.files import THREE, corpus_file, model_folder, pico_policy
from tests.three import Nothing
from tests.two import HELPING, OPTIONS, beside, ended
from unlearn import team
from unlearn.edit import reading
from unlearn.edit.pipeline import edit
from unlearn.edit.requests.resolve import resolve
from unlearn.edit.solve import values
from unlearn.edit.train import null_space
from unlearn.model import generation, scoring
from unlearn.model.editable import EditableModel
from unlearn.patch import Patch
from unlearn.policy.file import load_policy

AT_ONCE = "import os, torch.distributed as dist; dist.init_process_group('gloo'); " + (
    "box = [None]; dist.broadcast_object_list(box, src=0); os._exit(9)"
)
"""A process that ends at the first task that it is given."""
IN_THE_AUDIT = """
import os, sys
from unlearn import team
from unlearn.model import scoring

together = scoring._together

def until_patched(model, *rest):
    if model._patched:
        os._exit(9)
    return together(model, *rest)

scoring._together = until_patched
sys.exit(team.led(lambda: 99))
"""
"""A process that ends while it rates what the edited model holds likely."""
COUNTING = """
import json, os, sys
from unlearn import team
from unlearn.edit.solve import values
from unlearn.edit.train import step_loss
from unlearn.model import generation, scoring

rows = {}

def counted(module, name, what, of):
    work = getattr(module, name)
    def with_count(model, some, *rest):
        rows[what] = rows.get(what, 0) + len(of(some))
        return work(model, some, *rest)
    setattr(module, name, with_count)

counted(generation, "_together", "continued", list)
counted(scoring, "_together", "rated", list)
counted(values, "suspend", "optimised", lambda group: group.rows)
counted(step_loss, "_losses", "trained", lambda pack: pack.rows)
code = team.led(lambda: 99)
with open(os.environ["COUNTED"], "w") as file:
    json.dump(rows, file)
sys.exit(code)
"""
"""A process that helps, and writes down how many rows it was given."""


def figures(run: Path) -> dict[str, float]:
    """All numbers of a report by where they stand in it, and its words as the keys of zeros."""
    report = json.loads((run / "report.json").read_text())
    found: dict[str, float] = {}

    def walk(at: str, value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{at}.{key}", inner)
        elif isinstance(value, list):
            for number, inner in enumerate(value):
                walk(f"{at}.{number}", inner)
        elif isinstance(value, int | float):
            found[at] = value
        else:
            found[f"{at} {value}"] = 0

    for part in ("verdict", "measurements", "facts", "not_tested"):
        walk(part, report[part])
    return found


SUITE = """
extends: quick
add: [leak.sampled, leak.choice, leak.rank, attack.int4]
remove: [drift.hidden]
samples: 3
benign_questions: 12
text_tokens: 256
"""


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("team")
    model, corpus = model_folder(place / "model"), corpus_file(place / "corpus.jsonl", lines=600)
    text, suite = corpus_file(place / "text.jsonl", lines=10), place / "suite.yaml"
    suite.write_text(SUITE)
    statistics = f"statistics: {{corpus: {corpus}, tokens: 12000}}"  # three batches
    audit = f"audit: {{suite: {suite}, text: {text}}}"
    (place / "policy.yaml").write_text(
        pico_policy(model, corpus, facts=THREE, statistics=statistics, audit=audit)
    )
    return place / "policy.yaml"


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process says what is done together; as small as these runs are, one batch would hold all of it."""
    monkeypatch.setattr(generation, "MOST", 8)
    monkeypatch.setattr(scoring, "token_budget", lambda _: 128)
    monkeypatch.setattr(values, "token_budget", lambda *_, **__: 32)


def test_two_processes_make_the_run_of_one(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ended("apply", policy, "--out", tmp_path / "one", *OPTIONS) == 3
    together = reading.summed
    tasks = []

    def summed(task, *rest):  # type: ignore[no-untyped-def]
        made = together(task, *rest)
        tasks.append((int(made[-1]), task.tokens))
        return made

    monkeypatch.setattr(reading, "summed", summed)
    monkeypatch.setenv("COUNTED", str(tmp_path / "counted.json"))
    capfd.readouterr()
    with beside(monkeypatch, COUNTING) as other:
        assert ended("apply", policy, "--out", tmp_path / "two", *OPTIONS) == 3
        assert other.wait() == 3 and other.stderr is not None
        assert other.stderr.read() == ""
    assert tasks == [(12000, 12000)]
    one, two = (tmp_path / name for name in ("one", "two"))
    assert sorted(os.listdir(tmp_path)) == ["counted.json", "one", "two"]
    assert sorted(os.listdir(one)) == sorted(os.listdir(two))
    whole, shared = (Patch.load(folder / "patch.safetensors") for folder in (one, two))
    for name, delta in whole.factors.items():
        difference = shared.factors[name].dense() - delta.dense()
        assert float(difference.norm() / delta.dense().norm()) < 1e-5
    assert figures(two) == pytest.approx(figures(one), rel=1e-4, abs=1e-6)
    counted = json.loads((tmp_path / "counted.json").read_text())
    assert counted.keys() == {"continued", "rated", "optimised"} and min(counted.values()) >= 2


def test_two_processes_train_the_update_of_one(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As the first process says, and not as each finds by itself.
    monkeypatch.setattr(null_space, "token_budget", lambda *_, **__: 256)
    monkeypatch.setattr(null_space, "dtype_of_products", lambda _: torch.float32)
    method = {"method": "{name: null_space_tuning, steps: 12, layers: [1, 2], null_space: 0.7}"}
    wanted = load_policy(policy, method)
    made: list[Patch] = []

    def train() -> int:
        model = EditableModel.load(wanted.model, device="cpu")
        made.append(edit(model, resolve(model, wanted)))
        return 0

    train()
    monkeypatch.setenv("COUNTED", str(tmp_path / "counted.json"))
    with beside(monkeypatch, COUNTING) as other:
        assert team.led(train) == 0 == other.wait()
    alone, together = made
    for fact, reached in alone.header["values"].items():
        assert together.header["values"][fact] == pytest.approx(reached, rel=1e-4)
    for name, delta in alone.factors.items():
        difference = together.factors[name].dense() - delta.dense()
        assert float(difference.norm() / delta.dense().norm()) < 1e-5
    rows = json.loads((tmp_path / "counted.json").read_text())["trained"]
    assert rows >= 12 * 12  # of 46 or so that a step reads


@pytest.mark.parametrize("program", [AT_ONCE, IN_THE_AUDIT])
def test_a_process_that_ends_ends_the_run_with_one_sentence(
    policy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    program: str,
) -> None:
    with beside(monkeypatch, program) as other:
        assert ended("apply", policy, "--out", tmp_path / "run", *OPTIONS) == 1
        assert other.wait() == 9
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("unlearn")]
    assert said == [
        "unlearn: another process of this run has ended, and its share is lost; start all of them again"
    ]
    assert os.listdir(tmp_path) == []


def test_a_signal_to_the_first_in_the_middle_of_a_task_ends_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted() -> list[torch.Tensor]:
        raise KeyboardInterrupt

    def run() -> int:
        assert team.summed(Nothing(), team.seated(), list) == []
        with pytest.raises(KeyboardInterrupt):
            team.summed(Nothing(), team.seated(), interrupted)
        return 130

    with beside(monkeypatch, HELPING) as other:
        assert team.led(run) == 130
        assert other.wait() == 1


def test_the_others_end_with_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed as dist

    with beside(monkeypatch, HELPING) as other:
        dist.init_process_group("gloo")
        dist.destroy_process_group()
        assert other.wait() == 1 and other.stderr is not None
        said = [line for line in other.stderr.read().splitlines() if line.startswith("unlearn")]
    assert said == ["unlearn: the first process of this run has ended, and nothing was written by the others"]
