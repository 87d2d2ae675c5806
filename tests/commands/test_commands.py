"""The commands that load a model, on a pico model that knows nothing: what they write, say and refuse.

What an edit achieves is tested on the embedded model, in test_demo.py.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.files import run
from unlearn.files import sha256_of_file, sha256_of_folder
from unlearn.patch import Patch
from unlearn.runs import manifest
from unlearn.runs.folder import held
from unlearn.store import Store

FILES = [
    "junit.xml",
    "log.txt",
    "manifest.json",
    "model-card.md",
    "patch.safetensors",
    "report.html",
    "report.json",
    "report.md",
]


def test_a_run_directory_is_complete(place: Path) -> None:
    found = sorted(path.name for path in (place / "run").iterdir())
    assert found == sorted([*FILES, "model"])
    assert not list(place.glob(".*"))
    recorded = manifest.read(place / "run")
    patch = Patch.load(place / "run" / "patch.safetensors")
    assert recorded["patch"]["sha256"] == sha256_of_file(place / "run" / "patch.safetensors")
    assert recorded["policy"]["sha256"] == sha256_of_file(place / "policy.yaml")
    weights = recorded["base"]["weights"]
    assert dict(patch.base).items() <= weights.items()
    assert {"device", "dtype", "products", "cores"} <= set(recorded["hardware"])
    assert {"load", "resolve", "edit", "audit before", "audit after", "total"} <= set(
        recorded["times"]["seconds"]
    )
    report = json.loads((place / "run" / "report.json").read_text())
    assert report["verdict"] == "failed"
    assert report["manifest"]["base"] == recorded["base"]


def modes(folder: Path) -> set[str]:
    """The modes of all files in a folder."""
    return {f"{path.stat().st_mode & 0o777:o}" for path in folder.rglob("*") if path.is_file()}


def test_only_its_user_reads_a_run_and_a_server_reads_an_export(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert modes(place / "run") == {"600"}
    before = os.umask(0o022)
    try:
        assert run("export", place / "run", tmp_path / "out") == 0
    finally:
        os.umask(before)
    # safetensors makes files that nobody else can read, beside those of others.
    assert modes(tmp_path / "out") == {"644"}


@pytest.mark.parametrize("command", ["apply", "audit", "compare", "trace", "export"])
def test_every_command_holds_the_name_that_it_writes_to(
    command: str,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("unlearn.runs.exchange.PATIENCE", 0.0)
    policy, out = place / "policy.yaml", tmp_path / "deep" / "out"
    lines: dict[str, tuple[str | Path, ...]] = {
        "apply": (policy, "--out", out),
        "audit": (place / "run", "-p", policy, "--out", out),
        "compare": (policy, "--methods", "none", "--out", out),
        "trace": (policy, "--out", out),
        "export": (place / "run", out),
    }
    with held(out):
        assert run(command, *lines[command]) == 2
    said, err = capsys.readouterr()
    assert said == ""
    assert err == (
        f"unlearn: {out} is being written by another process ({os.getpid()}); wait for it, or choose another name\n"
    )
    assert os.listdir(tmp_path / "deep") == []


@pytest.mark.parametrize("command", ["apply", "compare", "trace"])
def test_nothing_is_written_into_the_model_that_is_read(
    command: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = os.listdir(place / "model")
    methods = ("--methods", "none") if command == "compare" else ()
    assert run(command, place / "policy.yaml", "--out", place / "model" / "run", *methods) == 2
    assert f"lies in {place / 'model'}, which is read for it" in capsys.readouterr().err
    assert os.listdir(place / "model") == before


def test_a_policy_in_a_run_directory_is_not_replaced_with_it(
    copy: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(place / "policy.yaml", copy / "mine.yaml")
    assert run("apply", copy / "mine.yaml", "--out", copy, "--force") == 2
    assert f"holds {copy / 'mine.yaml'}, which is read for it" in capsys.readouterr().err
    assert (copy / "mine.yaml").is_file()


def test_no_text_of_the_policy_is_in_a_run(place: Path) -> None:
    for name in FILES:
        raw = (place / "run" / name).read_bytes()
        for text in (b"Stenmite", b"Velnar", b"Quandel", b"made from", b"I can't help"):
            assert text not in raw, (name, text)


def test_the_log_tells_the_steps_and_ends_with_the_table(place: Path) -> None:
    log = (place / "run" / "log.txt").read_text()
    assert "edit: started" in log
    assert "of 1 facts known to the unedited model" in log
    assert "leak.direct" in log.split("FAILED")[-1]


def test_json_is_all_there_is_on_stdout(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("apply", place / "policy.yaml", "--out", tmp_path / "run", "--json") == 3
    out, err = capsys.readouterr()
    assert json.loads(out) == json.loads((tmp_path / "run" / "report.json").read_text())
    assert err == ""


def test_a_second_run_needs_another_place(
    place: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sha256_of_folder(copy)
    assert run("apply", place / "policy.yaml", "--out", copy) == 2
    assert capsys.readouterr().err.endswith("replace it with --force\n")
    assert sha256_of_folder(copy) == before
    assert run("apply", place / "policy.yaml", "--out", copy, "--force") == 3
    assert sha256_of_folder(copy) != before


def test_the_measurements_before_are_kept_for_the_next_run(place: Path, tmp_path: Path) -> None:
    assert run("apply", place / "policy.yaml", "--out", tmp_path / "run") == 3
    one, two = (
        yaml.safe_load((folder / "report.json").read_text()) for folder in (place / "run", tmp_path / "run")
    )
    assert one["measurements"] == two["measurements"]


def test_a_cache_that_cannot_be_made_is_named_and_done_without(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UNLEARN_CACHE", str(tmp_path / "file" / "below"))
    said = f"unlearn: warning: the cache {tmp_path / 'file' / 'below'} cannot be used (Not a directory)"
    policy = place / "policy.yaml"
    for command, code in (
        (("apply", policy, "--out", tmp_path / "run", "-q"), 3),
        # These get as far as a model that is not there.
        (("audit", place / "run", "-p", policy, "--model", "no/where", "-q"), 1),
        (
            (
                "compare",
                policy,
                "--methods",
                "none",
                "--model",
                "no/where",
                "--out",
                tmp_path / "compared",
                "-q",
            ),
            1,
        ),
        (("stats", policy, "-q"), 0),
    ):
        assert run(*command) == code
        assert capsys.readouterr().err.startswith(said)
    assert run("stats", policy, "-q", "--no-cache") == 0
    assert capsys.readouterr().err == ""


def test_statistics_that_cannot_be_kept_are_used_all_the_same(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNLEARN_CACHE", str(tmp_path))
    Store.at(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", full)
    assert run("stats", place / "policy.yaml", "-q") == 0
    assert not list(tmp_path.rglob("keys-*"))


# --- verify


def test_a_run_verifies(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", place / "run", "--policy", place / "policy.yaml") == 0
    assert capsys.readouterr().out.endswith("run: verified\n")
    assert run("verify", place / "run", "--json", "--files-only") == 0
    assert json.loads(capsys.readouterr().out)["verified"] is True


def test_a_changed_report_is_noticed(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (copy / "report.json").read_text()
    (copy / "report.json").write_text(text.replace('"verdict": "failed"', '"verdict": "passed"'))
    assert run("verify", copy, "--files-only") == 3
    out = capsys.readouterr().out
    assert "report.json has changed since the run" in out
    assert "does not follow from the measurements" in out


def test_another_model_or_policy_is_noticed(
    place: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", copy, "--model", place / "other", "--policy", place / "corpus.jsonl") == 3
    out = capsys.readouterr().out
    assert "this patch was made for another model" in out
    assert "is not the policy of this run" in out


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_patch_is_one_of_the_things_that_differ(
    copy: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    patch = copy / "patch.safetensors"
    if damage == "cut":
        patch.write_bytes(patch.read_bytes()[:-100])
    else:
        patch.unlink()
    assert run("verify", copy, "--json") == 3
    found = json.loads(capsys.readouterr().out)["problems"]
    said = {"cut": ("has changed", "cannot be read as a patch"), "gone": ("is missing", "there is no patch")}
    assert said[damage][0] in found["files"][0] and said[damage][1] in found["patch"][0]


def test_a_forged_report_does_not_pass_for_a_trace(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = json.loads((copy / "manifest.json").read_text())
    for name in ("report.json", "trace.json"):
        (copy / name).write_text("lies")
        recorded["files"][name] = sha256_of_file(copy / name)
    (copy / "manifest.json").write_text(json.dumps(recorded))
    assert run("verify", copy, "--files-only") == 3
    assert re.search(r"^files +ok\nreport +\S+report.json: ", capsys.readouterr().out, re.MULTILINE)


def test_what_is_no_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", tmp_path) == 1
    assert capsys.readouterr().err == f"unlearn: {tmp_path} is not a run directory: it has no manifest.json\n"
