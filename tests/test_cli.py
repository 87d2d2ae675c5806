"""Words, streams and exit codes: every failure is one sentence on stderr, and leaves nothing behind."""

from __future__ import annotations

import errno
import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.files import run
from unlearn import cli
from unlearn.commands.said import written
from unlearn.errors import ModelError, PolicyError, PolicyProblems
from unlearn.policy.file import load_policy
from unlearn.signals import Terminated

COMMANDS = ("apply", "audit", "check", "compare", "export", "stats", "trace", "verify")


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- help and usage


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(
    command: str, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, flag) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert re.search(rf"^ +Examples?:\n +unlearn {command} ", out, re.MULTILINE), out


def test_the_group_lists_the_commands_and_the_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    out = capsys.readouterr().out
    assert all(f"\n  {command} " in out for command in COMMANDS)
    assert "3 ran, and the" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_guide_names_every_command(command: str, root: Path) -> None:
    assert f"unlearn {command} " in (root / "docs" / "guides" / "commands.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["chek"], "unlearn: No such command 'chek'. Did you mean 'check'? (see `unlearn --help`)"),
        (["apply"], "unlearn: Missing argument 'POLICY' (see `unlearn apply --help`)"),
        (
            ["check"],
            "unlearn: missing argument POLICY (or --schema, or --suite) (see `unlearn check --help`)",
        ),
        (["check", "--set", "x", "p"], "unlearn: Invalid value for --set: expected KEY=VALUE, got 'x' (see"),
        (["check", "nowhere.yaml"], "unlearn: nowhere.yaml: no such file; shipped policies: "),
        (["verify", "nowhere"], "unlearn: Invalid value for 'RUN': Directory 'nowhere' does not exist"),
    ],
)
def test_bad_usage_exits_2_with_a_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(sentence), err
    assert err.count("\n") == 1


def test_no_command_prints_the_help_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Usage: unlearn")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == "unlearn 0.1.0\n"


# --- errors become sentences


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (ModelError("no such model"), 1, "unlearn: no such model\n"),
        (PolicyProblems(["p:1 x  wrong", "1 problem"]), 2, "p:1 x  wrong\n1 problem\n"),
        (KeyboardInterrupt(), 130, "unlearn: interrupted; nothing was written\n"),
        (Terminated(), 143, "unlearn: terminated; nothing was written\n"),
        (Terminated(signal.SIGHUP), 129, "unlearn: hung up; nothing was written\n"),
        (
            OSError(errno.ENOSPC, "No space", "x/y"),
            1,
            "unlearn: no space left on the device at x/y; nothing was writ",
        ),
        (
            RuntimeError("I/O error: No space left on device (os error 28)"),
            1,
            "unlearn: no space left on the device; ",
        ),
        (
            RuntimeError("Error while serializing: I/O error: File too large (os error 27)"),
            1,
            "unlearn: a file is larger than this system, or its limit for a process (ulimit -f), allows; nothing was",
        ),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded"),
            1,
            "unlearn: no space left on the device for this user; ",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "f"), 1, "unlearn: f: Permission denied\n"),
        (MemoryError(), 1, "unlearn: out of memory; "),
        (
            ZeroDivisionError("division\nby zero"),
            1,
            "unlearn: unexpected ZeroDivisionError: division by zero; `unl",
        ),
    ],
)
def test_every_exception_is_a_sentence_with_its_code(
    error: BaseException,
    code: int,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setitem(cli.cli.commands, "check", click.Command("check", callback=fail))
    assert run("check") == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(sentence), err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "error", [ModelError("a\x1b[2Jb"), PolicyError("a\x1b[2Jb"), RuntimeError("a\x1b[2Jb")]
)
def test_debug_shows_the_traceback_and_then_the_sentence(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setitem(cli.cli.commands, "check", click.Command("check", callback=fail))
    monkeypatch.setenv("UNLEARN_DEBUG", "0")  # restored after the test, which --debug would not be
    code = run("check")
    sentence = capsys.readouterr().err
    assert "Traceback" not in sentence
    assert run("--debug", "check") == code
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):\n") and "in fail\n" in shown
    assert shown.endswith(sentence) and "\x1b" not in shown and shown.count(r"a\u001b[2Jb") == 2


def test_an_error_after_the_work_says_where_that_lies(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted_while_it_tells() -> None:
        written(Path("runs/first"))
        raise KeyboardInterrupt

    monkeypatch.setitem(
        cli.cli.commands, "check", click.Command("check", callback=interrupted_while_it_tells)
    )
    assert run("check") == 130
    assert capsys.readouterr().err == "unlearn: interrupted; what was written is in runs/first\n"


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252:replace", "utf-8"])
def test_what_is_piped_is_utf_8_whatever_the_locale(
    small_policy: Path, tmp_path: Path, root: Path, encoding: str
) -> None:
    text = small_policy.read_text(encoding="utf-8")
    small_policy.write_text(text.replace("Stenmite", "Ωmég \N{WAVING HAND SIGN}"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(root / "cli.py"), "check", str(small_policy), "--defaults"],
        capture_output=True, timeout=60, env={**os.environ, "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    (tmp_path / "again.yaml").write_bytes(done.stdout)
    assert load_policy(tmp_path / "again.yaml").facts[0].subject == "Ωmég \N{WAVING HAND SIGN}"


def test_a_terminal_that_lacks_a_letter_shows_its_number(small_policy: Path, root: Path) -> None:
    import pty

    text = small_policy.read_text(encoding="utf-8")
    small_policy.write_text(text.replace("Stenmite", "Ωmeg"), encoding="utf-8")
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, str(root / "cli.py"), "check", str(small_policy), "--defaults"],
        stdout=theirs, stderr=subprocess.PIPE, timeout=60, env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )  # fmt: skip
    os.close(theirs)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"subject: \\u03a9meg" in os.read(ours, 1 << 16)
    os.close(ours)


# --- three ways to start it


def test_module_and_launcher_are_the_same_command(
    root: Path, small_policy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    kept = signal.getsignal(signal.SIGINT)
    for start_it in (lambda: runpy.run_module("unlearn", run_name="__main__"),
                     lambda: runpy.run_path(str(root / "cli.py"), run_name="__main__")):  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["unlearn", "check", str(small_policy)])
        with pytest.raises(SystemExit) as left:
            start_it()
        assert left.value.code == 0
        said.append(capsys.readouterr().out)
    signal.signal(signal.SIGINT, kept)  # the process of the command goes deaf before it ends
    assert said[0] == said[1] != ""


# --- models that cannot be used


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("nowhere/at-all", "cannot load the model 'nowhere/at-all'"),
        ("olmoe", "models of type 'olmoe' cannot be edited"),
    ],
)
@pytest.mark.parametrize("command", ["apply", "stats"])
def test_a_model_that_cannot_be_used(
    command: str,
    model: str,
    sentence: str,
    pico_files: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = pico_files / model if (pico_files / model).exists() else model
    out_option = ["--out", tmp_path / "deep" / "run"] if command == "apply" else []
    assert run(command, pico_files / "policy.yaml", "--model", name, *out_option) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"unlearn: {sentence}"), err
    assert err.count("\n") == 1
    assert listing(tmp_path) == []


def test_layers_that_the_model_does_not_have(
    pico_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--set", "method.layers=[2, 7]", "--out", tmp_path / "run"]
    assert run("apply", pico_files / "policy.yaml", *options) == 2
    assert (
        capsys.readouterr().err
        == f"unlearn: method.layers: {pico_files / 'model'} has layers 0 to 3, not [7]\n"
    )
    assert listing(tmp_path) == []


def test_a_policy_problem_comes_before_the_model(
    pico_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", "nowhere", "--set", "facts=[]", "--out", tmp_path / "run"]
    assert run("apply", pico_files / "policy.yaml", *options) == 2
    assert "--set facts  must not be empty" in capsys.readouterr().err
    assert listing(tmp_path) == []
