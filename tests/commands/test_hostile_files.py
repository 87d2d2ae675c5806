"""What is named as a file and is none, or more than one: a sentence at once, and nothing is written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.files import corpus_file, policy_text, run
from unlearn import files, patch

FILES = {
    "audit.suite": "audit: {{suite: {}, limits: {{}}}}",
    "audit.text": "audit: {{suite: quick, text: {}}}",
    "audit.benign": "audit: {{suite: quick, benign: {}}}",
    "audit.lookalike": "audit: {{suite: standard, lookalike: {}}}",
}


@pytest.fixture(autouse=True)
def watchdog() -> Iterator[None]:
    """A command that waits for somebody to write into a pipe would wait for ever."""
    timer = threading.Timer(60, os._exit, [99])
    timer.start()
    yield
    timer.cancel()


@pytest.fixture
def hostile(tmp_path: Path) -> dict[str, Path]:
    """Things that are no files, by what a sentence calls them, each as .yaml, .txt, .csv and .jsonl."""
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "device.yaml").symlink_to("/dev/zero")
    (tmp_path / "utf16.yaml").write_bytes("version: 1\n".encode("utf-16"))
    return {
        "it is a folder": tmp_path / "folder.yaml",
        "it is a pipe": tmp_path / "pipe.yaml",
        "it is a device": tmp_path / "device.yaml",
        "is UTF-16 text": tmp_path / "utf16.yaml",
    }


def said(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "unexpected" not in err
    return err


def test_a_policy_or_report_that_is_no_file_is_a_sentence(
    hostile: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for words, path in hostile.items():
        for command in (
            ("check", path),
            ("apply", path),
            ("check", "--suite", path),
            ("stats", path),
        ):
            assert run(*command) == 2
            assert words in said(capsys)
        if "folder" not in words and "UTF" not in words:  # a folder is taken for a run
            assert run("report", path) == 1
            assert words in said(capsys)
            assert run("export", path, path.parent / "exported") == 1
            assert words in said(capsys)
        assert not (path.parent / "exported").exists()


@pytest.mark.parametrize("key", FILES)
def test_a_file_of_a_policy_that_is_none_stops_before_anything_is_loaded(
    tmp_path: Path, hostile: dict[str, Path], key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, path in hostile.items():
        (tmp_path / "p.yaml").write_text(policy_text(audit=FILES[key].format(path.name)))
        assert run("apply", tmp_path / "p.yaml", "--out", tmp_path / "run") == 2
        err = said(capsys)
        assert words in err and str(path) in err and err.startswith(f"unlearn: {key}: ")
        assert not (tmp_path / "run").exists()


def test_a_corpus_with_a_pipe_in_it_is_a_sentence(
    pico_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "corpus").mkdir()
    corpus_file(tmp_path / "corpus" / "a.jsonl", 3)
    os.mkfifo(tmp_path / "corpus" / "b.txt")
    for corpus in ("corpus", "corpus/b.txt"):
        given = f"statistics.corpus={tmp_path / corpus}"
        assert run("stats", pico_files / "policy.yaml", "--set", given, "--quiet") == 1
        assert f"statistics.corpus: {tmp_path}/corpus/b.txt cannot be read: it is a pipe" in said(capsys)


def test_a_run_whose_files_are_pipes_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("manifest.json", "report.json", "patch.safetensors"):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        (tmp_path / "run").mkdir()
        os.mkfifo(tmp_path / "run" / name)
        for command in (
            ("verify", tmp_path / "run", "--files-only"),
            ("report", tmp_path / "run"),
            ("export", tmp_path / "run", tmp_path / "out"),
        ):
            assert run(*command) == 1
            said(capsys)
    with pytest.raises(patch.PatchError, match="it is a pipe"):
        patch.Patch.load(tmp_path / "run" / "patch.safetensors")


@pytest.mark.parametrize(
    "form",
    ["{text: %s}", "{benign: %s}"],
)
def test_files_larger_than_the_bound_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "large.txt").open("wb") as file:
        file.truncate(files.MOST + 1)
    (tmp_path / "p.yaml").write_text(policy_text(audit="audit: " + form % "large.txt"))
    assert run("apply", tmp_path / "p.yaml", "--out", tmp_path / "run") == 2
    assert "it is larger than 256 MiB" in said(capsys)
    with (tmp_path / "p.yaml").open("ab") as file:
        file.truncate(17 * files.MIB)
    assert run("check", tmp_path / "p.yaml") == 2
    assert "it is larger than 16 MiB" in said(capsys)


def test_a_working_folder_that_is_gone_is_a_sentence(tmp_path: Path, root: Path) -> None:
    (tmp_path / "gone").mkdir()
    script = (
        f"cd {tmp_path / 'gone'} && rmdir {tmp_path / 'gone'} && {sys.executable} -m unlearn apply x.yaml"
    )
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert done.returncode == 1
    assert done.stderr == "unlearn: the working folder no longer exists; change to one that does\n"
