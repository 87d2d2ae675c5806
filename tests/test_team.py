"""Two processes on one run, over gloo: the patch of one, one report, one folder; and the end of one ends all."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.files import corpus_file, model_folder, pico_policy
from unlearn import cli
from unlearn.edit import reading
from unlearn.model import generation
from unlearn.patch import Patch

HELPING = "import sys; from unlearn import team; sys.exit(team.led(lambda: 99))"
DYING = "import os, torch.distributed as dist; dist.init_process_group('gloo'); " + (
    "box = [None]; dist.broadcast_object_list(box, src=0); os._exit(9)"
)
"""A process that ends at the first task that it is given."""
COUNTING = """
import json, os, sys
from unlearn import team
from unlearn.model import generation, scoring

rows = {"continued": 0, "rated": 0}

def counted(module, what):
    together = module._together
    def with_count(model, some, *rest):
        rows[what] += len(some)
        return together(model, some, *rest)
    module._together = with_count

counted(generation, "continued")
counted(scoring, "rated")
code = team.led(lambda: 99)
with open(os.environ["COUNTED"], "w") as file:
    json.dump(rows, file)
sys.exit(code)
"""
"""A process that helps, and writes down how many rows it was given."""


@contextmanager
def beside(monkeypatch: pytest.MonkeyPatch, program: str) -> Iterator[subprocess.Popen[str]]:
    """This process is the first of two, and the other runs a program."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in {**shared, "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    environment = {
        **os.environ,
        **shared,
        "RANK": "1",
        "LOCAL_RANK": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    words = [sys.executable, "-c", program]
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as other:
        try:
            yield other
        finally:
            other.kill()


def ended(*arguments: str | Path) -> object:
    with pytest.raises(SystemExit) as left:
        cli.main([str(argument) for argument in arguments])
    return left.value.code


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("team")
    model, corpus = model_folder(place / "model"), corpus_file(place / "corpus.jsonl", lines=600)
    statistics = f"statistics: {{corpus: {corpus}, tokens: 12000}}"  # three batches
    (place / "policy.yaml").write_text(pico_policy(model, corpus, statistics=statistics))
    return place / "policy.yaml"


def test_two_processes_make_the_run_of_one(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ("--device", "cpu", "--no-cache", "--quiet")
    monkeypatch.setattr(generation, "MOST", 8)  # rows of a batch
    assert ended("apply", policy, "--out", tmp_path / "one", *options) == 3
    together = reading.summed
    tasks = []

    def summed(task, *rest):  # type: ignore[no-untyped-def]
        made = together(task, *rest)
        tasks.append((int(made[-1]), task.tokens))
        return made

    monkeypatch.setattr(reading, "summed", summed)
    capfd.readouterr()
    monkeypatch.setenv("COUNTED", str(tmp_path / "counted.json"))
    with beside(monkeypatch, COUNTING) as other:
        assert ended("apply", policy, "--out", tmp_path / "two", *options) == 3
        assert other.wait() == 3 and other.stderr is not None
        assert other.stderr.read() == ""
    assert tasks == [(12000, 12000)]
    one, two = (tmp_path / name for name in ("one", "two"))
    assert sorted(os.listdir(one)) == sorted(os.listdir(two))
    whole, shared = (Patch.load(folder / "patch.safetensors") for folder in (one, two))
    for name, delta in whole.factors.items():
        difference = shared.factors[name].dense() - delta.dense()
        assert float(difference.norm() / delta.dense().norm()) < 1e-5
    reports = [json.loads((folder / "report.json").read_text()) for folder in (one, two)]
    names = [[row["name"] for row in report["measurements"]] for report in reports]
    assert names[0] == names[1] and reports[0]["verdict"] == reports[1]["verdict"]


def test_a_process_that_ends_ends_the_run_with_one_sentence(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with beside(monkeypatch, DYING) as other:
        options = ("--device", "cpu", "--no-cache", "--quiet")
        assert ended("apply", policy, "--out", tmp_path / "run", *options) == 1
        assert other.wait() == 9
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("unlearn")]
    assert said == [
        "unlearn: another process of this run has ended, and its share is lost; start all of them again"
    ]
    assert os.listdir(tmp_path) == []


def test_the_others_end_with_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed as dist

    with beside(monkeypatch, HELPING) as other:
        dist.init_process_group("gloo")
        dist.destroy_process_group()
        assert other.wait() == 1 and other.stderr is not None
        said = [line for line in other.stderr.read().splitlines() if line.startswith("unlearn")]
    assert said == ["unlearn: the first process of this run has ended, and nothing was written by the others"]
