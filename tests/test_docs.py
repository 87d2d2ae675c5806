"""README and documentation are true: policy, replies, rows, links, and the help of the command line."""

from __future__ import annotations

import re
import runpy
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

import unlearn
from tests.files import run
from tools.cli_reference import PAGE, page

FENCED = r"```{kind}\n(.*?)```"
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")


@pytest.fixture
def readme(root: Path) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


def replies(readme: str) -> dict[str, tuple[str, str]]:
    """What README says that the model replies to each question, before and after."""
    rows = re.findall(r"^\| ([^|]+\?) \| ([^|]+) \| ([^|]+) \|$", readme, re.MULTILINE)
    return {question: (before, after) for question, before, after in rows}


def test_the_readme_is_short(readme: str) -> None:
    assert 300 < len(readme.split()) < 700


def test_the_readmes_policy_is_the_shipped_one_and_has_no_problem(
    readme: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = root / "examples" / "first.yaml"
    assert re.findall(FENCED.format(kind="yaml"), readme, re.DOTALL) == [policy.read_text(encoding="utf-8")]
    assert run("check", policy) == 0
    assert capsys.readouterr().err == ""


def test_the_readmes_rows_are_rows_of_the_demo(readme: str, root: Path) -> None:
    demo = (root / "docs" / "guides" / "demo.md").read_text(encoding="utf-8").splitlines()
    rows = [line.strip() for line in readme.splitlines() if line.strip().startswith("✓")]
    assert len(rows) == 8
    assert set(rows) <= set(demo)


def asked(root: Path, folder: Path, question: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What examples/ask.py prints."""
    monkeypatch.setattr("sys.argv", ["ask.py", str(folder), question])
    with redirect_stdout(StringIO()) as said:
        runpy.run_path(str(root / "examples" / "ask.py"), run_name="__main__")
    return said.getvalue().strip()


def test_the_first_reply_before_is_the_models(
    readme: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question, (before, _) = next(iter(replies(readme).items()))
    assert asked(root, root / "unlearn" / "embedded" / "model", question, monkeypatch) == before


@pytest.mark.slow
def test_all_replies_are_those_of_the_model_before_and_after(
    readme: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("apply", root / "examples" / "first.yaml", "--suite", "quick", "--out", tmp_path / "two") == 0
    assert run("export", tmp_path / "two", tmp_path / "edited") == 0
    shown = replies(readme)
    assert len(shown) == 3
    for question, (before, after) in shown.items():
        assert asked(root, root / "unlearn" / "embedded" / "model", question, monkeypatch) == before
        assert asked(root, tmp_path / "edited", question, monkeypatch) == after


def test_every_link_between_pages_leads_to_a_file(root: Path) -> None:
    pages = [*root.glob("*.md"), *(root / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(root)}: {target}"
        for page in pages
        for target in LINK.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_the_page_of_the_command_line_is_its_help() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: python -m tools.cli_reference"


def test_every_public_name_has_its_place_on_the_page_of_python(root: Path) -> None:
    shown = (root / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    errors = {name for name in unlearn.__all__ if name.endswith(("Error", "Problems"))}
    assert "::: unlearn.errors\n" in shown
    assert {name for name in unlearn.__all__ if f".{name}\n" in shown} == set(unlearn.__all__) - errors
