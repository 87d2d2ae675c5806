"""A terminal, a log and a document show what a text holds; none of them obeys it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from rich.console import Console

from tests.files import corpus_file, model_folder, pico_policy, policy_text, run
from tests.report.cases import rich as rich_report
from unlearn.commands.said import say
from unlearn.compare.document import Comparison, Failure
from unlearn.compare.table import markdown as compared
from unlearn.compare.table import table as comparison_table
from unlearn.progress import RichProgress
from unlearn.report import Report
from unlearn.report.terminal import print_report, printed
from unlearn.runs.log import log_to, warned

ATTACK = "\x1b]0;TITLE\x07\x1b[2J\x9b31m\u202egnissap\u2066\r\x08\x08[red]x[/red]"
ESCAPED = "\\u001b]0;TITLE\\u0007\\u001b[2J\\u009b31m\\u202egnissap\\u2066\\r\\b\\b"
YAML = json.dumps(ATTACK)  # a quoted scalar of YAML as well


def plain(text: str) -> bool:
    """Whether a terminal would obey nothing in it but line feeds."""
    return all(letter.isprintable() or letter == "\n" for letter in text)


def hostile() -> Report:
    """A report of which every text is hostile."""
    data = json.loads(rich_report().to_json())
    data["not_tested"] = [ATTACK, "one\ntwo"]
    data["manifest"]["policy"]["name"] = ATTACK
    data["manifest"]["base"] = {"name": ATTACK, "identity": ATTACK}
    data["facts"][0]["id"] = ATTACK
    for row in data["measurements"]:
        row["name"] += ATTACK
        row["definition"] = ATTACK
        row["reason"] = row["reason"] and ATTACK
        row["parts"] = {ATTACK + name: part for name, part in row["parts"].items()}
    return Report.from_json(json.dumps(data))


@pytest.mark.parametrize(
    "changes, place",
    [
        ({"x": f"{YAML}: 1"}, "p.yaml:13 "),
        ({"keep": f"keep: {{siblings: [{YAML}]}}"}, "p.yaml:12 keep.siblings[0]"),
        ({"method": f"method: {YAML}"}, "p.yaml:13 method"),
        ({"method": f"method: {{name: {YAML}}}"}, "p.yaml:13 method"),
        ({"facts": f"facts: [{{id: {YAML}, subject: A, relation: {YAML}}}]"}, "p.yaml:10 facts[0].id"),
        ({"audit": f"audit: {{limits: {{{YAML}: 1}}}}"}, "p.yaml:13 audit.limits."),
    ],
)  # fmt: skip
def test_the_problems_of_a_policy_are_lines_that_can_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, str], place: str
) -> None:
    (tmp_path / "p.yaml").write_text(policy_text(**changes))
    assert run("check", tmp_path / "p.yaml") == 2
    out, err = capsys.readouterr()
    assert out == "" and plain(err) and place in err


def test_a_problem_is_one_line_however_long_its_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.yaml").write_text(
        policy_text(refusal=f'"{"x" * 5000}\\nPASSED": 1', seed=f"seed: {'9' * 9000}")
    )
    assert run("check", tmp_path / "p.yaml") == 2
    err = capsys.readouterr().err
    assert max(map(len, err.splitlines())) < 700 and "PASSED" not in [line[:6] for line in err.splitlines()]


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", ATTACK),
        ("check", "nowhere.yaml", f"--{ATTACK}"),
        ("report", ATTACK),
        ("report", "--as", ATTACK, "x"),
        ("check", "--suite", f"{ATTACK}.yaml"),
        (ATTACK,),
    ],
)
def test_an_error_is_one_line_that_can_be_read(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) in (1, 2)
    out, err = capsys.readouterr()
    assert out == "" and plain(err) and err.count("\n") == 1 and "b]0;TITLE" in err


def test_what_check_prints_can_be_read_by_a_person_and_again_by_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.yaml").write_text(policy_text(model=f"model: {YAML}", refusal='refusal: "é"'))
    assert run("check", tmp_path / "p.yaml") == 0
    out = capsys.readouterr().out
    assert plain(out) and ESCAPED in out and "[red]x[/red]" in out
    assert run("check", tmp_path / "p.yaml", "--defaults") == 0
    out = capsys.readouterr().out
    assert plain(out)
    (tmp_path / "q.yaml").write_text(out)
    assert run("check", tmp_path / "q.yaml", "--defaults", "--json") == 0
    out = capsys.readouterr().out
    assert plain(out) and json.loads(out)["model"] == ATTACK


@pytest.mark.parametrize("form", ["text", "json", "html", "md", "junit", "card"])
def test_a_report_is_shown_in_every_form_without_being_obeyed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    found = hostile()
    path = tmp_path / "report.json"
    path.write_text(
        found.model_dump_json()
    )  # as a forger would write it, with C1 and reordering characters raw
    assert run("report", path, "--as", form) in (0, 3)
    out = capsys.readouterr().out
    assert plain(out) and "u202egnissap" in out
    if form == "json":
        assert Report.from_json(out) == found
    if form == "junit":
        ET.fromstring(out)


def test_a_terminal_takes_no_text_for_markup() -> None:
    for paint in (
        lambda console: print_report(hostile(), console),
        lambda console: printed(comparison_table(comparison()), 200, console),
    ):
        with Console(force_terminal=True, width=300, color_system="truecolor", record=True) as console:
            with console.capture() as caught:
                paint(console)
        assert (
            "\x1b]0;" not in caught.get() and "\x1b[2J" not in caught.get() and "\u202e" not in caught.get()
        )
        assert "[red]x[/red]" in caught.get()


def comparison() -> Comparison:
    failed = Failure(method=ATTACK, seed=0, step=0, edits=0, reason=ATTACK + "\n# PASSED")
    return Comparison(
        policy=ATTACK, model=ATTACK, facts=1, steps=1, seeds=(0,), methods=(ATTACK,), points=(), failures=(failed,),
        manifest={},
    )  # fmt: skip


def test_a_comparison_is_one_line_per_line() -> None:
    page = compared(comparison(), [])
    assert plain(page) and "\n# PASSED" not in page
    assert plain(comparison().to_json())


def test_the_label_of_a_bar_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "300")
    with RichProgress().step(f"Loading {ATTACK}", total=1):
        pass
    err = capsys.readouterr().err
    assert "[red]x[/red]" in err and "u001b]0;TITLE" in err and "\x1b]0;" not in err and "\u202e" not in err


def test_a_log_has_one_line_per_message_whatever_it_quotes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("unlearn.somewhere")
    with log_to(tmp_path / "log.txt"), warned(quiet=False):
        log.warning("the tokenizer says %s", ATTACK + "\n2026-01-01 INFO unlearn: passed")
        try:
            raise ValueError(ATTACK)
        except ValueError:
            log.exception("failed")
    text = (tmp_path / "log.txt").read_text()
    assert plain(text) and sum(line.endswith("unlearn: passed") for line in text.splitlines()) == 1
    assert "\n2026-01-01" not in text and "Traceback" in text
    err = capsys.readouterr().err
    assert plain(err) and err.startswith("unlearn: warning: the tokenizer says \\u001b")


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A policy whose files and prompts have hostile names and words, and a run of it."""
    folder = tmp_path_factory.mktemp("hostile")
    name = ATTACK.replace("/", "")
    model_folder(folder / name)
    corpus_file(folder / f"{name}.jsonl")
    asked = json.dumps(f"What {ATTACK} \n is {{subject}} made from?")
    recipe = f"prompts: [{asked}, '{{subject}} is made from'], held_out: ['Tell me what {{subject}} is made from.']"
    relations = f"relations: {{recipe: {{{recipe}}}, colour: {{prompts: ['What colour is {{subject}}?']}}}}"
    model, corpus = (Path(json.dumps(f"{name}{end}")) for end in ("", ".jsonl"))
    text = pico_policy(model, corpus, relations=relations)
    (folder / "p.yaml").write_text(text)
    assert run("apply", folder / "p.yaml", "--out", folder / "run", "--show-text", "--quiet") == 3
    return folder / "p.yaml", folder / "run"


def test_no_document_of_a_run_holds_what_a_terminal_obeys(
    hostile_run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = hostile_run
    names = {path.name for path in folder.iterdir() if path.suffix != ".safetensors"}
    assert {"manifest.json", "report.json", "report.html", "junit.xml", "log.txt", "model-card.md"} <= names
    for name in names:
        text = (folder / name).read_text(encoding="utf-8").replace("\t", "")
        assert plain(text), name
        assert "]0;TITLE" in text or name in ("report.md", "log.txt"), name
    assert json.loads((folder / "manifest.json").read_text())["base"]["name"].endswith(
        ATTACK.replace("/", "")
    )
    assert run("verify", folder, "--quiet") == 0
    out, err = capsys.readouterr()
    assert plain(out) and plain(err)


def test_a_run_is_verified_from_anywhere_and_where_its_policys_folder_was_moved(
    hostile_run: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    policy, folder = hostile_run
    for place in (policy.parent, policy.parent.parent):
        monkeypatch.chdir(place)
        given = os.path.relpath(policy, place)
        assert run("verify", os.path.relpath(folder, place), "--policy", given, "--files-only") == 0
    shutil.copytree(policy.parent, tmp_path / "moved")
    assert (
        run("verify", tmp_path / "moved" / "run", "--policy", tmp_path / "moved" / "p.yaml", "--files-only")
        == 0
    )
    capsys.readouterr()
    record = json.loads((folder / "manifest.json").read_text())
    record["settings"]["audit"]["text"] = str(policy.parent / "another.jsonl")
    (tmp_path / "moved" / "run" / "manifest.json").write_text(json.dumps(record))
    assert (
        run("verify", tmp_path / "moved" / "run", "--policy", tmp_path / "moved" / "p.yaml", "--files-only")
        == 3
    )
    assert "settings.audit.text in manifest.json is not the policy's" in capsys.readouterr().out


def test_a_plan_shows_prompts_on_a_line_each(
    hostile_run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    policy, _ = hostile_run
    assert run("apply", policy, "--dry-run", "--quiet") == 0
    out, _ = capsys.readouterr()
    assert plain(out) and f"What {ESCAPED}[red]x[/red] \\n is {{subject}} made from?" in out


def test_a_policy_whose_name_is_no_text_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / os.fsdecode(b"p\xff\x1b.yaml")
    path.write_text(policy_text())
    assert run("check", path) == 0
    out, _ = capsys.readouterr()
    assert plain(out) and "p\\udcff\\u001b.yaml: ok" in out


def test_commands_write_through_one_function(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = [
        path.name
        for path in (root / "unlearn").rglob("*.py")
        if "click.echo(" in path.read_text() and path.name != "said.py"
    ]
    assert not others
    say(ATTACK + "\n\tend")
    assert capsys.readouterr().out == f"{ESCAPED}[red]x[/red]\n\tend\n"
