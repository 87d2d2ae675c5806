"""Ctrl-C and its like: the code of the signal, one sentence, and nothing half-written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def hear_interrupts() -> None:
    """In a new process: hear Ctrl-C even where the tests run in a shell's background, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
    """Start the real command in a process of its own."""
    root = Path(__file__).resolve().parent.parent
    return subprocess.Popen(
        [sys.executable, "-m", "unlearn", *map(str, arguments)],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_that_a_library_swallows_is_raised_again(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    (tmp_path / "deaf.py").write_text(
        "import os, time\n"
        "from unlearn import cli\n"
        "cli.AGAIN = 0.3\n"
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
