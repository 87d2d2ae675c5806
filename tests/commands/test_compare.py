"""`unlearn compare` on a pico model that knows nothing: rows, resumption, failures, and what is written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.files import THREE, corpus_file, model_folder, pico_policy, run
from unlearn.commands.compare import entries_of
from unlearn.compare import points as pointing
from unlearn.compare.document import Comparison, Failure, Point
from unlearn.compare.table import COLUMNS, cell, columns, markdown, rows
from unlearn.patch import Patch
from unlearn.report import Measurement

METHODS = "alphaedit,none,rome:layer=9"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pico model, a corpus, a policy of three facts, and a comparison in two steps."""
    folder = tmp_path_factory.mktemp("compare")
    model, corpus = model_folder(folder / "model"), corpus_file(folder / "corpus.jsonl")
    (folder / "policy.yaml").write_text(pico_policy(model, corpus, facts=THREE))
    assert (
        run("compare", folder / "policy.yaml", "--methods", METHODS, "--steps", "2", "--out", folder / "out")
        == 0
    )
    return folder


@pytest.fixture
def found(place: Path) -> dict[str, Any]:
    return json.loads((place / "out" / "compare.json").read_text())


def test_the_folder_has_everything(place: Path, found: dict[str, Any]) -> None:
    names = sorted(os.listdir(place / "out"))
    assert names == [
        "compare.json", "compare.md", "curves.svg", "log.txt", "patches", "points", "states.svg",
    ]  # fmt: skip
    for name in ("curves", "states"):
        drawn = (place / "out" / f"{name}.svg").read_text()
        assert ElementTree.fromstring(drawn).get("role") == "img" and "Stenmite" not in drawn
    assert (
        len(list((place / "out" / "points").glob("*.seed*")))
        == len(os.listdir(place / "out" / "patches"))
        == 4
    )
    assert [(p["method"], p["step"], p["edits"]) for p in found["points"]] == [
        ("alphaedit", 1, 1), ("alphaedit", 2, 3), ("none", 1, 1), ("none", 2, 3),
    ]  # fmt: skip
    for point in found["points"]:
        assert (place / "out" / point["patch"]).is_file()
        measured = {m["name"]: m for m in point["measurements"]}
        assert {"refusal.direct", "leak.cloze", "drift.kl", "drift.norm_growth", "drift.hidden"} <= set(
            measured
        )
        # Counts are about the facts written so far: two prompts each.
        assert measured["refusal.direct"]["n"] == point["edits"]
        assert measured["refusal.oldest"]["n"] == 1


def test_only_its_user_reads_a_comparison(place: Path, found: dict[str, Any]) -> None:
    files = [path for path in (place / "out").rglob("*") if path.is_file()]
    assert len(files) > 8 and {f"{path.stat().st_mode & 0o777:o}" for path in files} == {"600"}
    assert not [path for path in place.iterdir() if path.name.startswith(".")]


def test_a_method_that_fails_is_a_row(found: dict[str, Any], place: Path) -> None:
    (failed,) = found["failures"]
    assert failed["method"] == "rome:layer=9" and "layers 0 to 3" in failed["reason"]
    page = (place / "out" / "compare.md").read_text()
    assert "## Failed" in page and "rome:layer=9" in page


def test_doing_nothing_costs_nothing_and_an_edit_does(found: dict[str, Any]) -> None:
    values = {
        p["method"]: {m["name"]: m["after"] for m in p["measurements"]}
        for p in found["points"]
        if p["step"] == 2
    }
    assert values["none"]["drift.kl"] == pytest.approx(0, abs=1e-6)
    assert values["none"]["drift.hidden"] == values["none"]["drift.norm_growth"] == 0
    assert values["alphaedit"]["drift.hidden"] > 0 and values["alphaedit"]["drift.norm"] > 0
    edited = next(p for p in found["points"] if p["method"] == "alphaedit")
    assert edited["layers"] == [1, 2]


def test_steps_build_on_each_other_and_trained_ones_start_anew(place: Path, found: dict[str, Any]) -> None:
    first, second = (Patch.load(place / "out" / p["patch"]) for p in found["points"][:2])
    assert not first.header["builds_on"] and len(second.header["builds_on"]) == 1
    assert set(first.state) == set(second.state) and first.base == second.base
    assert [p["from_scratch"] for p in found["points"]] == [False, False, True, True]


def test_what_is_finished_is_not_done_again(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[tuple[str, int]] = []
    real = pointing._made

    def counted(bench: Any, label: str, policy: Any, done: Any, batch: Any, step: int, *rest: Any) -> Point:
        made.append((label, step))
        return real(bench, label, policy, done, batch, step, *rest)

    monkeypatch.setattr(pointing, "_made", counted)
    before = json.loads((place / "out" / "compare.json").read_text())
    arguments = [
        "compare",
        place / "policy.yaml",
        "--steps",
        "2",
        "--out",
        place / "out",
        "--json",
        "--methods",
    ]
    assert run(*arguments, METHODS) == 0
    again = json.loads(capsys.readouterr().out)
    assert made == [("rome:layer=9", 1)]  # what failed is tried again
    assert again["points"] == before["points"]
    # One lost patch costs its step and those after it, and no other method.
    lost = place / "out" / before["points"][1]["patch"]
    lost.unlink()
    made.clear()
    assert run(*arguments, "none,alphaedit") == 0
    assert made == [("alphaedit", 2)]
    assert [p["method"] for p in json.loads(capsys.readouterr().out)["points"]] == ["none"] * 2 + [
        "alphaedit"
    ] * 2
    made.clear()
    assert run(*arguments, "alphaedit", "--set", "seed=3") == 0  # another seed is another edit
    assert made == [("alphaedit", 1), ("alphaedit", 2)]


def test_no_text_of_the_policy_is_in_a_comparison(place: Path) -> None:
    for path in (place / "out").rglob("*"):
        if path.suffix in (".json", ".md", ".svg", ".txt"):
            for text in (b"Stenmite", b"Velnar", b"Quandel", b"made from", b"I can't help"):
                assert text not in path.read_bytes(), (path, text)


def test_seeds_repeat_and_shuffle(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "compare",
        place / "policy.yaml",
        "--methods",
        "none",
        "--seeds",
        "1,2",
        "--out",
        tmp_path / "out",
    ]
    assert run(*arguments) == 0
    out = capsys.readouterr().out
    assert "seeds 1, 2 (mean ± standard deviation)" in out
    found = Comparison.model_validate_json((tmp_path / "out" / "compare.json").read_bytes())
    assert [p.seed for p in found.at("none", 3)] == [1, 2]


def test_an_interruption_says_what_is_kept(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: Any) -> Point:
        raise KeyboardInterrupt

    monkeypatch.setattr(pointing, "_made", stop)
    assert run("compare", place / "policy.yaml", "--methods", "none", "--out", tmp_path / "out") == 130
    said = capsys.readouterr().err
    kept = f"what was finished is in {tmp_path / 'out'}, and the same command goes on from there"
    assert said == f"unlearn: interrupted; {kept}\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--methods", "alphedit"], "there is no method 'alphedit'; did you mean `alphaedit`?"),
        (["--methods", "alphaedit:kept"], "expected alphaedit:KEY=VALUE, got 'kept'"),
        (["--methods", "none,none"], "a method is named twice"),
        (["--methods", "none", "--seeds", "x"], "expected whole numbers such as 0,1,2, got 'x'"),
        (["--methods", "none", "--seeds", "1,1"], "seeds must differ"),
        (["--methods", "none", "--seeds", str(2**63)], "have 63 bits"),
        (["--methods", "none", "--seeds", "9" * 5000], "expected whole numbers"),
        (["--methods", "alphaedit:kept=x"], "--set method.kept  expected `auto` or a number"),
    ],
)
def test_bad_usage(
    arguments: list[str], sentence: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("compare", place / "policy.yaml", "--out", tmp_path / "out", *arguments) == 2
    assert sentence in " ".join(capsys.readouterr().err.replace("  ", "  ").split("\n"))
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("x")
    assert run("compare", place / "policy.yaml", "--methods", "none", "--out", tmp_path) == 2
    assert "holds something else than a comparison" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["mine.txt"]


# --- without a model


def test_a_model_that_cannot_be_loaded_leaves_no_folder(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("compare", place / "policy.yaml", "--methods", "none", "--out", tmp_path / "deep" / "out")
    (tmp_path / "empty").mkdir()
    assert run(*given, "--model", tmp_path / "empty") == 1
    assert "config.json cannot be read" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["empty"]


def test_a_place_that_cannot_hold_a_folder_is_noticed_before_the_model(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    given = ("compare", place / "policy.yaml", "--methods", "none", "--model", "no/such/model", "--out")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert run(*given, out) == 2
        assert f"cannot write to {out}: " in capsys.readouterr().err
    inside = place / "sealed" / "compared"
    inside.parent.mkdir()
    (inside.parent / "manifest.json").write_text('{"format": "unlearn-run-1"}')
    assert run(*given, inside) == 2
    assert "which is sealed" in capsys.readouterr().err


def test_entries_keep_brackets_together() -> None:
    assert entries_of("alphaedit:layers=[1, 2]:kept=0, none") == {
        "alphaedit:layers=[1, 2]:kept=0": {
            "method.name": "alphaedit",
            "method.layers": "[1, 2]",
            "method.kept": "0",
        },
        "none": {"method.name": "none"},
    }


def point(method: str, seed: int, edits: int, value: float | None) -> Point:
    name = "leak.direct"
    made = (
        Measurement.missing(name, "no prompts")
        if value is None
        else Measurement.made(name, value, before=1.0)
    )
    tasks = [Measurement.made(f"capability.{task}", score) for task, score in (("a", 0.5), ("b", 0.7))]
    return Point(
        method=method, seed=seed, step=1, edits=edits, measurements=(made, *tasks), judged=(1, 2), layers=(1,),
        from_scratch=False, seconds=2.0, patch="patches/x",
    )  # fmt: skip


def test_the_table_means_over_seeds_and_never_hides_a_gap() -> None:
    found = Comparison(
        policy="p", model="m", facts=4, steps=1, seeds=(0, 1), methods=("a", "b", "c"),
        points=(point("a", 0, 4, 0.1), point("a", 1, 4, 0.3), point("b", 0, 4, 0.2), point("b", 1, 4, None)),
        failures=(Failure(method="c", seed=0, step=0, edits=0, reason="no"),),
    )  # fmt: skip
    names = [c.name for c in columns(found)]
    at = 2 + names.index("leak.direct")
    unedited, first, second = rows(found, last_only=True)
    assert (unedited[at], first[at], second[at]) == ("100.0", "20.0 ±14.1", "-")
    assert first[2 + names.index("capability")] == "60.0 ±0.0"
    assert first[-2:] == ["1/2", "2.0"]
    page = markdown(found, ["curves.svg"])
    assert "- c: not run: no" in page and "- `leak.direct` (b): no prompts" in page
    assert "![curves](curves.svg)" in page
    assert Comparison.model_validate_json(found.to_json()) == found
    assert [cell(COLUMNS[-1], v) for v in (0.0, 2e-6, 0.0456, 1234.0, None)] == [
        "0.000",
        "2e-06",
        "0.046",
        "1.23e+03",
        "-",
    ]
