"""`import unlearn`: light, complete, and one way from a policy to a verdict."""

from __future__ import annotations

import doctest
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import unlearn
from tests.files import run as command
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Requests
from unlearn.report import measurement
from unlearn.runs import manifest

FUNCTIONS = ("load_policy", "load_model", "resolve", "edit", "audit", "run")


def fresh(code: str) -> str:
    """What a Python of its own prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def model(pico_files: Path) -> EditableModel:
    return unlearn.load_model(str(pico_files / "model"), unlearn.Placement(device="cpu"))


@pytest.fixture(scope="module")
def requests(pico_files: Path, model: EditableModel) -> Requests:
    return unlearn.resolve(model, unlearn.load_policy(pico_files / "policy.yaml"))


@pytest.fixture(scope="module")
def patch(model: EditableModel, requests: Requests) -> unlearn.Patch:
    return unlearn.edit(model, requests)


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'pydantic', 'yaml', 'click', 'matplotlib'}"
    light = f"import sys, unlearn; dir(unlearn); print(sorted({heavy} & set(sys.modules)))"
    assert fresh(light) == "[]\n"
    document = "import sys, unlearn; unlearn.load_policy, unlearn.run, unlearn.audit, unlearn.Report"
    assert fresh(f"{document}; print('torch' in sys.modules)") == "False\n"


def test_every_name_is_there_in_any_order_of_imports() -> None:
    steps = "print(all(callable(getattr(unlearn, name)) for name in unlearn.__all__))"
    asked = "import sys, unlearn; unlearn.Patch; print('torch' in sys.modules)"
    assert fresh(f"{asked}; {steps}") == "True\nTrue\n"
    rooms = "import unlearn.run, unlearn.edit.pipeline as p, unlearn.audit.suite as s"
    assert (
        fresh(f"{rooms}; {steps}; print(p.edit is not s, unlearn.edit.pipeline is p)") == "True\nTrue True\n"
    )
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = unlearn.nothing


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_step_says_what_it_does_with_an_example(name: str) -> None:
    step = inspect.unwrap(getattr(unlearn, name))
    said = inspect.getdoc(step) or ""
    for part in ("Args:", "Raises:", "Examples:", f"unlearn.{name}("):
        assert part in said, part
    assert "return" in inspect.get_annotations(step)


def test_the_steps_one_by_one_judge_as_the_whole_does(
    pico_files: Path, model: EditableModel, requests: Requests, patch: unlearn.Patch, tmp_path: Path
) -> None:
    before = model.fingerprint()
    report = unlearn.audit(model, patch, requests)
    assert model.fingerprint() == before
    whole = unlearn.run(pico_files / "policy.yaml", out=tmp_path / "run")
    assert report.measurements == whole.measurements and report.not_tested == whole.not_tested
    assert not report.passed and report.failures == tuple(m for m in report.measurements if m.passed is False)
    assert all(isinstance(missed, measurement.Measurement) for missed in report.failures)
    patch.save(str(tmp_path / "patch.safetensors"))
    assert (tmp_path / "patch.safetensors").read_bytes() == (tmp_path / "run/patch.safetensors").read_bytes()
    assert unlearn.Patch.load(str(tmp_path / "patch.safetensors")).base == patch.base


def test_an_edited_model_is_judged_as_its_patch(
    pico_files: Path, model: EditableModel, requests: Requests, patch: unlearn.Patch
) -> None:
    edited = unlearn.load_model(str(pico_files / "model"), unlearn.Placement(device="cpu"))
    with edited.patched(patch):
        found = {m.name: m.after for m in unlearn.audit(model, edited, requests).measurements}
    for measured in unlearn.audit(model, patch, requests).measurements:
        after = measured.after
        assert found[measured.name] == (None if after is None else pytest.approx(after, rel=1e-3)), measured
    assert found["drift.norm"]


def python_of(root: Path) -> list[str]:
    """The blocks of Python in the README."""
    blocks = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)
    assert blocks
    return blocks


def test_the_readmes_lines_run(
    root: Path, pico_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a model that knows nothing: the one line that must fail there is turned round."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").mkdir()
    shutil.copy(pico_files / "policy.yaml", tmp_path / "policies/demo.yaml")
    for block in python_of(root):
        with pytest.raises(AssertionError, match="Measurement"):
            exec(block, {})
        exec(block.replace("assert report.passed, ", "assert "), {})
        assert (tmp_path / "patch.safetensors").is_file() and manifest.is_run(tmp_path / "runs/first")


@pytest.mark.slow
def test_the_readmes_lines_forget(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").mkdir()
    shutil.copy(root / "examples/forget.yaml", tmp_path / "policies/demo.yaml")
    for block in python_of(root):
        left: dict[str, object] = {}
        exec(block, left)
        report = left["report"]
        assert isinstance(report, unlearn.Report) and report.passed


def test_errors_are_caught_by_their_names(tmp_path: Path, pico_files: Path) -> None:
    with pytest.raises(unlearn.PolicyError, match=re.escape("nowhere.yaml")):
        unlearn.load_policy(tmp_path / "nowhere.yaml")
    with pytest.raises(unlearn.ModelError):
        unlearn.load_model(str(pico_files / "olmoe"))
    assert issubclass(unlearn.PolicyProblems, unlearn.UnlearnError)


def test_a_run_directory_is_what_the_command_writes(pico_files: Path, tmp_path: Path) -> None:
    policy, out = pico_files / "policy.yaml", tmp_path / "run"
    report = unlearn.run(policy, out, overrides={"method.ridge": "0.5"})
    assert command("verify", out, "--policy", policy) == 0
    recorded = manifest.read(out)
    assert recorded["argv"] == [
        "unlearn",
        "apply",
        str(policy),
        "--out",
        str(out),
        "--set",
        "method.ridge=0.5",
    ]
    assert recorded["settings"]["method"]["ridge"] == 0.5
    assert command(*recorded["argv"][1:], "--force", "--quiet") == 3
    again = unlearn.Report.from_json((out / "report.json").read_bytes())
    assert again.measurements == report.measurements
    with pytest.raises(unlearn.PolicyError, match="exists and is not empty"):
        unlearn.run(policy, out)
    built = unlearn.run(policy, tmp_path / "second", onto=out)
    assert built.manifest["onto"]["path"] == str(out)


ORDER = (
    *(
        "load_policy",
        "Policy",
        "Placement",
        "load_model",
        "resolve",
        "edit",
        "Patch",
        "Means",
        "audit",
        "Report",
        "run",
    ),
    *("UnlearnError", "PolicyError", "PolicyProblems", "ModelError", "PatchError", "AuditError"),
)
"""In which the examples are executed: one goes on where another ended."""


@pytest.fixture
def few(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policies that the examples name, in the process's folder; the one that is edited with fewer prompts."""
    for name in ("policies/demo.yaml", "examples/forget.yaml"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(root / name, tmp_path / name)
    path = tmp_path / "examples/forget.yaml"
    data = yaml.safe_load(path.read_text())
    for relation in data["relations"].values():
        relation["prompts"] = [relation["prompts"][0], relation["prompts"][-1]]
        relation["held_out"] = relation["held_out"][-2:]
    data["keep"]["look_alikes"] = 2
    data["method"] = {"name": "alphaedit", "steps": 15, "rounds": 3, "hard_negatives": 0}
    data["statistics"] = {"tokens": 5000}
    data["audit"] = {"suite": "suite.yaml"}
    path.write_text(yaml.safe_dump(data))
    suite = {
        "name": "few",
        "description": "few",
        "measurements": ["leak.direct", "refusal.direct", "drift.norm"],
    }
    (path.parent / "suite.yaml").write_text(yaml.safe_dump(suite))
    monkeypatch.chdir(tmp_path)


def test_the_example_of_every_name_does_what_it_says(few: None) -> None:
    assert sorted(ORDER) == sorted(unlearn.__all__)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    runner, finder, left = (
        doctest.DocTestRunner(optionflags=flags),
        doctest.DocTestFinder(),
        dict[str, object](),
    )
    for name in ORDER:
        examples = [one for one in finder.find(inspect.unwrap(getattr(unlearn, name)), name) if one.examples]
        assert examples, f"{name} has no example"
        for example in examples:
            example.globs = left
            assert runner.run(example, clear_globs=False).failed == 0, example.name
