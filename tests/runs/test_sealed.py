"""Commands that believe a run directory look at its hashes first."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.files import run
from unlearn.errors import UnlearnError
from unlearn.runs.sealed import whole


@pytest.fixture(scope="module")
def made(pico_files: Path) -> Path:
    """A run of the pico model, which knows nothing and fails."""
    assert run("apply", pico_files / "policy.yaml", "--out", pico_files / "run", "--quiet") == 3
    return pico_files / "run"


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def raised(folder: Path) -> None:
    """Raise the limit that everything misses: the report alone then reads as a better one."""
    text = (folder / "report.json").read_text()
    (folder / "report.json").write_text(text.replace('"limit": 0.05', '"limit": 0.95'))


def linked(folder: Path) -> None:
    (folder / "log.txt").rename(folder.parent / "log.txt")
    (folder / "log.txt").symlink_to(folder.parent / "log.txt")


def piped(folder: Path) -> None:
    (folder / "report.md").unlink()
    os.mkfifo(folder / "report.md")


def recorded(folder: Path) -> None:
    """Say in the manifest alone that the run was made with another seed."""
    path = folder / "manifest.json"
    about = json.loads(path.read_text())
    about["settings"]["seed"] += 1
    path.write_text(json.dumps(about))


def commands(folder: Path, made: Path, place: str) -> dict[str, tuple[str | Path, ...]]:
    policy = made.parent / "policy.yaml"
    run_or_patch = folder if place == "run" else folder / "patch.safetensors"
    return {
        "report": ("report", folder if place == "run" else folder / "report.json"),
        "export": ("export", run_or_patch, folder.parent / "exported"),
        "apply": ("apply", policy, "--onto", run_or_patch, "--out", folder.parent / "onto", "-q"),
        "audit": ("audit", run_or_patch, "--policy", policy, "-q"),
    }


@pytest.mark.parametrize("damage", [raised, linked, piped, recorded])
@pytest.mark.parametrize("place", ["run", "file"])
@pytest.mark.parametrize("command", ["report", "export", "apply", "audit"])
def test_a_changed_run_is_not_believed(
    command: str, place: str, damage: object, copy: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(damage)
    damage(copy)
    assert run(*commands(copy, made, place)[command]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith(f"unlearn: {copy} is not as its run left it: ") and "`unlearn verify` lists" in err
    assert sorted(path.name for path in copy.parent.iterdir() if path.is_dir()) == ["run"]


@pytest.mark.parametrize("command", ["report", "export", "apply", "audit"])
def test_one_that_is_whole_is(
    command: str, copy: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*commands(copy, made, "run")[command]) == (0 if command == "export" else 3)
    assert "not as its run left it" not in capsys.readouterr().err


def test_a_report_that_lies_nowhere_is_shown_with_a_note(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(made / "report.json", tmp_path / "report.json")
    assert run("report", tmp_path / "report.json") == 3
    assert "so nothing shows whether it was changed" in capsys.readouterr().err
    assert run("report", made / "report.json") == 3
    assert capsys.readouterr().err == ""


def test_a_folder_without_a_manifest_is_no_run(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "manifest.json").unlink()
    assert run("report", copy) == 1
    assert capsys.readouterr().err.endswith("is not a run directory: it has no manifest.json\n")


def test_a_pipe_in_the_place_of_the_manifest_is_not_waited_for(copy: Path) -> None:
    (copy / "manifest.json").unlink()
    os.mkfifo(copy / "manifest.json")
    with pytest.raises(UnlearnError, match="it is a pipe"):
        whole(copy)
