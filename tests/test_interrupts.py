"""Ctrl-C and its like: the code of the signal, one sentence, and nothing half-written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

MAKE = """
import atexit, os, shutil, sys, time
from pathlib import Path
import click
from unlearn import cli
from unlearn.__main__ import main
from unlearn.runs.folder import whole_folder

remove = shutil.rmtree

def say(word, seconds):
    os.write(1, (word + chr(10)).encode())  # a signal comes at once, and must not find it half printed
    if word in os.environ["AWAITED"].split():
        time.sleep(seconds)

def slowly(*args, **rest):
    say("cleaning", 0.5)
    remove(*args, **rest)

@cli.cli.command("make")
@click.argument("target", type=click.Path(path_type=Path))
@click.argument("seconds", type=float)
def make(target, seconds):
    atexit.register(say, "leaving", 0.5)
    shutil.rmtree = slowly
    with whole_folder(target) as folder:
        (folder / "half").write_text("written")
        say("working", seconds)
    return 3

main()
"""
"""A command of the real command line that makes a folder, and says how far it has come."""


def hear_interrupts() -> None:
    """In a new process: hear Ctrl-C even where the tests run in a shell's background, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def hear_no_hang_up() -> None:
    """In a new process: what nohup does."""
    hear_interrupts()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def making(
    target: Path,
    numbers: dict[str, signal.Signals],
    seconds: float = 60,
    before: Callable[[], None] = hear_interrupts,
) -> tuple[int, list[str], str]:
    """Make a folder, and send a signal at every word of `numbers`; exit code, words, and stderr."""
    root = Path(__file__).resolve().parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", MAKE, "make", target, str(seconds)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, preexec_fn=before, env={**os.environ, "PYTHONPATH": str(root), "AWAITED": " ".join(numbers)},
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        words = []
        try:
            for line in process.stdout:
                words.append(line.strip())
                if words[-1] in numbers:
                    process.send_signal(numbers[words[-1]])
            return process.wait(timeout=60), words, process.stderr.read()
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 129, "hung up"),
    ],
)
def test_whoever_asks_the_process_to_end_gets_a_code_and_a_sentence(
    number: signal.Signals, code: int, word: str, tmp_path: Path
) -> None:
    said = f"unlearn: {word}; nothing was written\n"
    assert making(tmp_path / "deep" / "run", {"working": number}) == (
        code,
        ["working", "cleaning", "leaving"],
        said,
    )
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("again", ["cleaning", "leaving"])
def test_a_second_interrupt_prints_no_traceback(again: str, tmp_path: Path) -> None:
    numbers = {"working": signal.SIGINT, again: signal.SIGINT}
    code, words, err = making(tmp_path / "run", numbers)
    assert (code, err) == (130, "unlearn: interrupted; nothing was written\n")
    assert words == ["working", "cleaning", "leaving"] and os.listdir(tmp_path) == []


def test_an_interrupt_after_the_end_leaves_the_verdict(tmp_path: Path) -> None:
    assert making(tmp_path / "run", {"leaving": signal.SIGINT}, 0) == (3, ["working", "leaving"], "")
    assert os.listdir(tmp_path) == ["run"]


def test_under_nohup_a_hang_up_is_not_heard(tmp_path: Path) -> None:
    numbers = {"working": signal.SIGHUP}
    assert making(tmp_path / "run", numbers, 0.5, hear_no_hang_up) == (3, ["working", "leaving"], "")
    assert os.listdir(tmp_path) == ["run"]


def start(*arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
    """Start the real command in a process of its own."""
    root = Path(__file__).resolve().parent.parent
    return subprocess.Popen(
        [sys.executable, "-m", "unlearn", *map(str, arguments)],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, 130, "interrupted"),
        pytest.param(signal.SIGTERM, 143, "terminated", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_leaves_nothing(
    number: signal.Signals, code: int, word: str, pico_files: Path, tmp_path: Path
) -> None:
    # Enough steps that the run cannot end before the signal comes.
    process = start(
        "apply", pico_files / "policy.yaml", "--out", tmp_path / "deep" / "run",
        "--set", "method.steps=1000000", "--set", "method.converged=1e-30", "--no-cache", cwd=tmp_path,
    )  # fmt: skip
    try:
        limit = time.monotonic() + 60
        while not any((tmp_path / "deep").glob(".run.partial-*/log.txt")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < limit
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (code, "", f"unlearn: {word}; nothing was written\n")
    assert not list(tmp_path.iterdir())


def test_an_interrupt_during_the_imports_is_a_sentence(tmp_path: Path) -> None:
    # A library that takes long to import, of which the first thing heard is a Ctrl-C.
    (tmp_path / "click.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "unlearn", "check"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, preexec_fn=hear_interrupts,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "unlearn: interrupted; nothing was written\n"


def test_an_interrupt_inside_executed_text_ends_with_the_same_code(tmp_path: Path) -> None:
    # As when it comes while an import makes a dataclass: `python -m` would otherwise die of the signal, code -2.
    (tmp_path / "stopped.py").write_text(
        "from unlearn import cli\n"
        "@cli.cli.command('stop')\n"
        "def stop():\n"
        "    exec('raise KeyboardInterrupt')\n"
        "cli.main(['stop'])\n"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "stopped"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "unlearn: interrupted; nothing was written\n")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_an_interrupt_that_a_library_swallows_is_raised_again(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    (tmp_path / "deaf.py").write_text(
        "import os, time\n"
        "from unlearn import cli, signals\n"
        "signals.AGAIN = 0.3\n"
        "@cli.cli.command('stop')\n"
        "def stop():\n"
        "    try:\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "        time.sleep(60)\n"
        "    except BaseException:\n"
        "        pass\n"
        "    time.sleep(60)\n"
        "cli.main(['stop'])\n"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "deaf"], cwd=tmp_path, capture_output=True, text=True, timeout=30,
        preexec_fn=hear_interrupts,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == code and "nothing was written" in done.stderr
