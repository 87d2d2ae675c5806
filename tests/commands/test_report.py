"""`unlearn report`, strict judging and --show-text, with a pico model that knows nothing."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.files import corpus_file, model_folder, pico_policy, run
from tests.report.cases import rich, share
from unlearn.report import Report, schema
from unlearn.report.files import DOCUMENTS
from unlearn.report.words import met


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pico model, a strict policy for it, and a run with --show-text."""
    folder = tmp_path_factory.mktemp("place")
    model, corpus = model_folder(folder / "model"), corpus_file(folder / "corpus.jsonl")
    audit = f"audit: {{suite: quick, text: {corpus}, judge: strict, limits: {{drift.kl: 9.0}}}}"
    (folder / "policy.yaml").write_text(pico_policy(model, corpus, audit=audit))
    assert run("apply", folder / "policy.yaml", "--out", folder / "run", "--show-text", "--quiet") == 3
    return folder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "report.json"
    path.write_text(rich().to_json())
    return path


def test_show_text_reaches_the_page_and_no_other_file(place: Path) -> None:
    page = (place / "run" / "report.html").read_text()
    assert "Stenmite" in page and "--show-text" in page
    for path in (place / "run").iterdir():
        if path.name not in ("report.html", "manifest.json", "report.json"):
            assert b"Stenmite" not in path.read_bytes(), path.name
    assert "Stenmite" not in (place / "run" / "report.json").read_text()
    assert run("verify", place / "run") == 0


def test_show_text_without_a_run_directory_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("audit", place / "run", "-p", place / "policy.yaml", "--show-text") == 2
    assert "only with --out" in capsys.readouterr().err


def test_a_strict_policy_judges_strictly(place: Path) -> None:
    report = Report.from_json((place / "run" / "report.json").read_bytes())
    assert {m.judged for m in report.measurements} == {"strict"} and report.strict
    assert report.manifest["settings"]["audit"]["judge"] == "strict"
    kl = next(m for m in report.measurements if m.name == "drift.kl")
    assert kl.passed and kl.ci95[1] < 9.0
    suite = ET.fromstring((place / "run" / "junit.xml").read_text()).find("testsuite")
    judged = met(report)[1]
    assert int(suite.get("tests")) == judged == len(list(suite.iter("testcase")))


def test_every_form_is_that_of_the_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forms = {"json": "report.json", "md": "report.md", "junit": "junit.xml", "card": "model-card.md"}
    for form, name in forms.items():
        assert run("report", place / "run", "--as", form) == 3
        assert capsys.readouterr().out == (place / "run" / name).read_text()
    assert run("report", place / "run", "--as", "html") == 3
    assert "Stenmite" not in capsys.readouterr().out, "a page made anew has no text"
    assert run("report", place / "run") == 3
    assert capsys.readouterr().out.startswith("FAILED")


def test_a_verdict_can_be_judged_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.json"
    path.write_text(Report.of([share("leak.direct", 40, 0, 40, 0.02)]).to_json())
    assert run("report", path) == 0
    assert run("report", path, "--judge", "strict") == 3
    assert "even if all went well it would take 189 items" in " ".join(capsys.readouterr().out.split())
    assert run("report", path, "--judge", "point") == 0


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("report", "--schema") == 0
    assert json.loads(capsys.readouterr().out) == json.loads(schema())


def test_a_file_is_written_outside_the_run(
    place: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("report", file, "--as", "junit", "--out", tmp_path / "junit.xml") == 3
    assert (tmp_path / "junit.xml").read_text() == DOCUMENTS["junit.xml"](rich())
    assert capsys.readouterr().out == ""
    assert run("report", place / "run", "--out", place / "run" / "more.txt") == 2
    assert "sealed" in capsys.readouterr().err and not (place / "run" / "more.txt").exists()
    assert run("report", file, "--out", tmp_path / "no" / "where.txt") == 1
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(("content", "words"), [(None, "cannot be read"), ("{}", "not a valid report")])
def test_what_is_no_report(
    tmp_path: Path, content: str | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    assert run("report", tmp_path / "report.json") == 1
    said = capsys.readouterr().err
    assert words in said and str(tmp_path) in said and said.count("\n") == 1
    assert run("report") == 2
