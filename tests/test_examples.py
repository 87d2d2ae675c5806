"""The examples do what they say: quickly on a model that knows nothing, and in full on the one that ships."""

from __future__ import annotations

import ast
import json
import runpy
import shutil
from pathlib import Path

import pytest

from unlearn.report import Report

NAMES = ("forget.py", "forget.ipynb")


def executed(place: Path, name: str) -> dict[str, object]:
    """Execute a script, or a notebook's cells one after another, and return what it leaves."""
    if name.endswith(".py"):
        return runpy.run_path(str(place / name), run_name="__main__")
    left: dict[str, object] = {"__name__": "__main__"}
    for cell in json.loads((place / name).read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), left)
    return left


@pytest.fixture
def examples(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the examples, in which the process is."""
    shutil.copytree(root / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path / "examples")
    return tmp_path / "examples"


@pytest.mark.parametrize("name", NAMES)
def test_every_line_runs(
    examples: Path, pico_files: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(pico_files / "policy.yaml", examples / "forget.yaml")
    text = (examples / name).read_text()
    short = text.replace('STEPS = "30"', 'STEPS = "2"').replace('STEPS = \\"30\\"', 'STEPS = \\"2\\"')
    assert short != text
    (examples / name).write_text(short)
    executed(examples, name)
    said = capsys.readouterr().out
    assert "lora" in said and "failed" in said  # a model that knows nothing cannot be shown to have forgotten


def test_the_notebook_is_one_and_holds_no_output(root: Path) -> None:
    book = json.loads((root / "examples/forget.ipynb").read_text())
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    cells = book["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells) > 8
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    for cell in code:
        ast.parse("".join(cell["source"]))


@pytest.mark.slow
def test_the_script_forgets(examples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    executed(examples, "forget.py")
    rows = {
        line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line[:1] != " "
    }
    leak, refusal, siblings, neighbours = map(float, rows["alphaedit"][:4])
    assert rows["unedited"][1:3] == ["1.000", "0.000"] and rows["alphaedit"][-1] == "passed"
    assert leak <= 0.05 and refusal >= 0.9 and siblings >= 0.95 and neighbours >= 0.95


@pytest.mark.slow
def test_the_notebook_forgets(examples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left = executed(examples, "forget.ipynb")
    report, before, after = left["report"], left["before"], left["after"]
    assert isinstance(report, Report) and report.passed, report
    assert before != after and "can't help" in str(after)
