"""What goes out may go nowhere: closed, full or abandoned streams change neither the verdict nor the run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.report.cases import rich
from unlearn.streams import Lasting

ROOT = Path(__file__).resolve().parent.parent

JUDGE = """
import sys
from pathlib import Path
import click
from tests.report.cases import rich
from unlearn import cli
from unlearn.__main__ import main
from unlearn.commands.said import tell, written
from unlearn.runs.outcome import write_outcome
from unlearn.progress import progress_for
from unlearn.runs.folder import whole_folder

@cli.cli.command("judge")
@click.argument("target", type=click.Path(path_type=Path))
def judge(target):
    "Write a run and tell its verdict, as `apply` does."
    with whole_folder(target) as folder, progress_for().step("Working"):
        click.echo("unlearn: warning: something", err=True)
        print("and more", file=sys.stderr)
        write_outcome(folder, rich())
    written(target)
    return tell(rich(), False, target)

main()
"""
"""A command of the real command line, with all that is said and written and without a model."""

NOWHERE = {
    "full": ('"$@" > /dev/full', "No space left on device"),
    "closed": ('"$@" >&-', "it is closed"),
    "abandoned": ('"$@" | true; exit ${PIPESTATUS[0]}', "Broken pipe"),
}


def bash(line: str, *arguments: str | Path) -> tuple[int, str, str]:
    """Run a line in which "$@" is Python with these arguments; exit code, stdout and stderr."""
    done = subprocess.run(
        ["bash", "-c", line, "bash", sys.executable, *map(str, arguments)],
        capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a report whose verdict is "failed"."""
    path = tmp_path_factory.mktemp("report") / "report.json"
    assert not rich().passed
    path.write_text(rich().to_json())
    return path


@pytest.mark.parametrize("where", NOWHERE)
def test_the_verdict_stands_where_it_cannot_be_printed(where: str, tmp_path: Path) -> None:
    line, reason = NOWHERE[where]
    code, _, err = bash(line, "-c", JUDGE, "judge", tmp_path / "run")
    assert code == 3
    said = f"the result could not be printed ({reason}); what was written is in {tmp_path / 'run'}"
    assert err == f"unlearn: warning: something\nand more\nunlearn: {said}\n"
    assert (tmp_path / "run" / "manifest.json").is_file()
    assert os.listdir(tmp_path) == ["run"]


def test_where_it_can_be_printed_nothing_else_is_said(tmp_path: Path) -> None:
    code, out, err = bash('"$@"', "-c", JUDGE, "judge", tmp_path / "run")
    assert code == 3 and out.endswith(f"run directory: {tmp_path / 'run'}\n")
    assert err == "unlearn: warning: something\nand more\n"


@pytest.mark.parametrize(
    "line",
    [
        '"$@" 2>&-',
        '"$@" 2> /dev/full',
        '"$@" > /dev/full 2>&1',
        '"$@" <&- >&- 2>&-',
        '"$@" 2>&1 >/dev/full | true; exit ${PIPESTATUS[0]}',
    ],
)
def test_standard_error_may_be_closed_or_full_as_well(line: str, tmp_path: Path) -> None:
    code, _, err = bash(line, "-c", JUDGE, "judge", tmp_path / "run")
    assert (code, err) == (3, "")
    # Nothing meant for a stream has got into a file that was given its number.
    for path in (tmp_path / "run").iterdir():
        assert "something" not in path.read_text() and "run directory:" not in path.read_text(), path.name
    assert os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize("where", NOWHERE)
def test_commands_that_only_print_keep_their_codes(where: str, failed: Path, small_policy: Path) -> None:
    line, reason = NOWHERE[where]
    said = f"unlearn: the result could not be printed ({reason})\n"
    code, _, err = bash(line, "-m", "unlearn", "report", failed, "--as", "json")
    assert code == 3 and err.endswith(said)  # there is a note above it: the file lies in no run directory
    assert bash(line, "-m", "unlearn", "check", small_policy, "--defaults")[::2] == (0, said)


def test_a_wrong_policy_keeps_its_code_where_nobody_reads_its_problems(small_policy: Path) -> None:
    small_policy.write_text("version: 2\n")
    for line in ('"$@" 2> /dev/full', '"$@" 2>&-', '"$@" >&- 2>&-'):
        assert bash(line, "-m", "unlearn", "check", small_policy) == (2, "", "")


def test_a_pipe_that_is_read_to_the_end_gets_everything(failed: Path) -> None:
    # Larger than a pipe holds, into a reader that another program has made the writer not wait for.
    slow = "import os, sys, time; os.set_blocking(1, False); os.execv(sys.executable, sys.argv[1:])"
    line = f'"$1" -c "{slow}" "$@" | (sleep 1; cat)'
    code, out, err = bash(line, "-m", "unlearn", "report", failed, "--as", "html")
    plain = bash('"$@"', "-m", "unlearn", "report", failed, "--as", "html")[1]
    assert code == 0 and "could not be printed" not in err and len(plain) > 1 << 16
    assert out == plain


def test_the_numbers_that_a_write_returns_are_bytes(tmp_path: Path) -> None:
    with (tmp_path / "closed").open("w") as file:
        stream = Lasting(os.open(tmp_path / "closed", os.O_RDONLY), file)
    stream.write("ä" * 100_000)
    assert stream.why_lost() == "it is closed"
    assert (tmp_path / "closed").read_text() == ""
