"""A name is held while a folder is made, and what killed processes leave is swept up: with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from unlearn.errors import PolicyError, UnlearnError
from unlearn.runs import exchange, manifest
from unlearn.runs.exchange import locked, put
from unlearn.runs.folder import held, whole_folder, write_whole

MAKER = """
import signal, sys, time
from pathlib import Path
from unlearn.runs import exchange
from unlearn.runs.folder import whole_folder

def stop(*_):
    print("ready", flush=True)
    time.sleep(60)

rename = Path.rename
def rename_and_stop(self, other):
    done = rename(self, other)
    stop()
    return done

# A shell's background job, such as a test run, hands its children an ignored SIGQUIT.
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
target, point = Path(sys.argv[1]), sys.argv[2]
with whole_folder(target, force=point != "working") as folder:
    (folder / "manifest.json").write_text(sys.argv[3])
    if point == "working":
        stop()
    if point == "between the renames":
        exchange._exchanged = lambda *_: False  # as on a file system that cannot
        Path.rename = rename_and_stop
    if point == "after the exchange":
        exchange.remove = stop
"""
"""Makes a folder TARGET, and stops at a POINT with a word on stdout."""


def run_text(name: str) -> str:
    """A manifest, so that the folder it lies in counts as a run."""
    return json.dumps(
        {"format": manifest.FORMAT, "policy": {"sha256": "00"}, "base": {"name": name}, "files": {}}
    )


OLD, NEW = run_text("old"), run_text("new")


@contextmanager
def stopped(target: Path, point: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has come to a point of making a folder; killed at the end of the block if it still lives."""
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", MAKER, str(target), point, NEW],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for nobody: which process holds a lock is known here."""
    monkeypatch.setattr(exchange, "PATIENCE", 0.0)


def a_run(target: Path) -> Path:
    target.mkdir()
    (target / "manifest.json").write_text(OLD)
    return target


def made(target: Path, text: str = OLD, force: bool = False) -> None:
    """Make a run in this process, as the next run does."""
    with whole_folder(target, force) as folder:
        (folder / "manifest.json").write_text(text)


# --- one at a time


def test_two_processes_never_make_the_same_folder(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with stopped(target, "working") as process:
        for force in (False, True):
            with pytest.raises(PolicyError, match=rf"another process \({process.pid}\); wait for it"):
                made(target, force=force)
        with pytest.raises(PolicyError, match="another process"), held(target):
            pass
        made(tmp_path / "other")  # the control: another name is free
        partial = [path for path in tmp_path.iterdir() if ".partial-" in path.name]
        assert len(partial) == 1 and (partial[0] / "manifest.json").read_text() == NEW
    made(target)  # the kernel has let go of the lock
    assert sorted(os.listdir(tmp_path)) == ["other", "run"]


def test_a_name_is_free_again_after_success_and_after_failure(tmp_path: Path) -> None:
    made(tmp_path / "run")
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "run", force=True):
        raise RuntimeError
    made(tmp_path / "run", force=True)
    assert os.listdir(tmp_path) == ["run"]


def test_whoever_sweeps_up_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "PATIENCE", 30.0)
    lock = exchange._acquired(tmp_path / ".run.unlearn-lock", 0, os.O_CREAT)
    assert lock is not None
    threading.Timer(0.3, exchange._released, (tmp_path / ".run.unlearn-lock", lock)).start()
    made(tmp_path / "run")
    assert os.listdir(tmp_path) == ["run"]


def test_a_file_system_without_locks_is_no_hindrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(exchange.fcntl, "flock", unsupported)
    (tmp_path / ".run.partial-abcdefgh").mkdir()
    made(tmp_path / "run")
    # Whether that one's process is dead cannot be known.
    assert sorted(os.listdir(tmp_path)) == [".run.partial-abcdefgh", "run"]


# --- what appears meanwhile


def test_what_appears_while_the_work_goes_on_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with pytest.raises(UnlearnError, match=r"made by something else .* is in .*run-3$") as told:
        with whole_folder(target) as folder:
            (folder / "manifest.json").write_text(NEW)
            a_run(target)
            a_run(tmp_path / "run-2")
    assert not isinstance(told.value, PolicyError)
    assert (target / "manifest.json").read_text() == OLD
    assert (tmp_path / "run-3" / "manifest.json").read_text() == NEW
    assert sorted(os.listdir(tmp_path)) == ["run", "run-2", "run-3"]


@pytest.mark.parametrize("what", ["file", "link", "stranger"])
def test_even_force_replaces_nothing_else_that_appeared(tmp_path: Path, what: str) -> None:
    target = tmp_path / "run"
    with pytest.raises(UnlearnError, match="the finished work is in"):
        with whole_folder(target, force=True) as folder:
            (folder / "manifest.json").write_text(NEW)
            if what == "file":
                target.write_text("thesis")
            elif what == "link":
                target.symlink_to(tmp_path)
            else:
                target.mkdir()
                (target / "thesis").write_text("years of work")
    assert (tmp_path / "run-2" / "manifest.json").read_text() == NEW
    assert sorted(os.listdir(tmp_path)) == ["run", "run-2"]


def test_work_that_cannot_be_put_in_its_place_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run(tmp_path / "run")

    def fails(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    with pytest.raises(UnlearnError, match=r"\(Invalid cross-device link\); the finished work is in .*run-2"):
        with whole_folder(tmp_path / "run", force=True) as folder:
            (folder / "manifest.json").write_text(NEW)
            monkeypatch.setattr("unlearn.runs.folder.put", fails)
    assert (tmp_path / "run" / "manifest.json").read_text() == OLD
    assert (tmp_path / "run-2" / "manifest.json").read_text() == NEW


# --- killed at any point


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT, signal.SIGHUP])
def test_the_next_run_sweeps_up_after_a_killed_one(tmp_path: Path, number: signal.Signals) -> None:
    # SIGHUP: the program here does not listen to it, as the command line does.
    with stopped(tmp_path / "first", "working") as process:
        process.send_signal(number)
        assert process.wait(timeout=30) == -number
    assert len(os.listdir(tmp_path)) == 2
    made(tmp_path / "second")  # under another name, as a default name never comes again
    assert os.listdir(tmp_path) == ["second"]


@pytest.mark.parametrize(
    ("point", "after"), [("between the renames", OLD), ("after the exchange", NEW), ("working", OLD)]
)
def test_a_run_is_never_lost_to_a_kill(tmp_path: Path, point: str, after: str) -> None:
    target = a_run(tmp_path / "run")
    if point == "working":
        target.rename(tmp_path / "elsewhere")  # this point needs no earlier run; the control
    with stopped(target, point) as process:
        process.kill()
        process.wait()
    if point == "working":
        (tmp_path / "elsewhere").rename(target)
    made(tmp_path / "next")
    assert (target / "manifest.json").read_text() == after
    assert sorted(os.listdir(tmp_path)) == ["next", "run"]


def test_a_run_that_was_brought_back_is_not_replaced_without_force(tmp_path: Path) -> None:
    with stopped(a_run(tmp_path / "run"), "between the renames") as process:
        process.kill()
        process.wait()
    assert not (tmp_path / "run").exists()
    with pytest.raises(PolicyError, match="exists and is not empty"):
        made(tmp_path / "run", NEW)
    assert (tmp_path / "run" / "manifest.json").read_text() == OLD
    assert os.listdir(tmp_path) == ["run"]


def test_what_is_not_ours_is_not_swept(tmp_path: Path) -> None:
    for name in (".run.partial-short", ".run.partial-ABCDEFGH", ".run.partial-abcdefgh.txt", ".other.lock",
                 ".other.partial-abcdefgh", "run.partial-abcdefgh", "..unlearn-lock"):  # fmt: skip
        (tmp_path / name).mkdir()
    before = sorted(os.listdir(tmp_path))
    made(tmp_path / "run")
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "run"])


# --- the exchange itself


@pytest.mark.parametrize("in_one_step", [True, False])
def test_folders_change_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_one_step: bool) -> None:
    if not in_one_step:
        monkeypatch.setattr(exchange, "_exchanged", lambda *_: False)
    new, target = tmp_path / "new", a_run(tmp_path / "run")
    new.mkdir()
    put(new, target)
    assert os.listdir(tmp_path) == ["run"] and os.listdir(target) == []
    put(a_run(new), target)  # an empty one is replaced by the renaming
    put(a_run(new), tmp_path / "free")
    assert sorted(os.listdir(tmp_path)) == ["free", "run"]


@pytest.mark.skipif(sys.platform != "linux", reason="one step is Linux's")
def test_on_linux_it_is_one_step(tmp_path: Path) -> None:
    new, target = tmp_path / "new", a_run(tmp_path / "run")
    new.mkdir()
    assert exchange._exchanged(new, target)
    assert os.listdir(target) == [] and os.listdir(new) == ["manifest.json"]
    assert not exchange._exchanged(new, tmp_path / "nowhere")


def test_an_exchange_that_fails_leaves_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = a_run(tmp_path / "run")
    monkeypatch.setattr(exchange, "_exchanged", lambda *_: False)
    with pytest.raises(FileNotFoundError):
        put(tmp_path / "vanished", target)
    assert os.listdir(tmp_path) == ["run"] and (target / "manifest.json").read_text() == OLD


# --- a single file


def test_a_file_is_held_and_swept_like_a_folder(tmp_path: Path) -> None:
    (tmp_path / ".report.md.partial-abcdefgh").mkdir()
    with locked(tmp_path / "report.md"):
        with pytest.raises(PolicyError, match="being written by another process"):
            write_whole(tmp_path / "report.md", "text")
    write_whole(tmp_path / "report.md", "text")
    assert os.listdir(tmp_path) == ["report.md"]
    os.chmod(tmp_path / "report.md", 0o640)
    write_whole(tmp_path / "report.md", "more")
    assert (tmp_path / "report.md").stat().st_mode & 0o777 == 0o640
