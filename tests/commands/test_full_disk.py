"""A disk that fills up while a run is written: one sentence, and nothing is left."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.files import corpus_file, model_folder, pico_policy, run, small_disk_at
from unlearn.errors import UnlearnError
from unlearn.patch import Patch
from unlearn.runs.folder import whole_folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pico model, a corpus, and a policy."""
    folder = tmp_path_factory.mktemp("disk")
    model, corpus = model_folder(folder / "model"), corpus_file(folder / "corpus.jsonl")
    (folder / "policy.yaml").write_text(pico_policy(model, corpus))
    return folder


def test_a_disk_that_fills_up_leaves_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "patch.safetensors")

    monkeypatch.setattr(Patch, "save", full)
    assert run("apply", place / "policy.yaml", "--out", tmp_path / "run") == 1
    assert capsys.readouterr().err.startswith("unlearn: no space left on the device")
    assert os.listdir(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for a log and not for a patch."""
    yield from small_disk_at(tmp_path / "disk", "16k")


def test_a_real_full_disk(place: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("apply", place / "policy.yaml", "--out", small_disk / "run") == 1
    err = capsys.readouterr().err
    assert err.startswith("unlearn: no space left on the device"), err
    assert err.count("\n") == 1
    assert os.listdir(small_disk) == []


@pytest.mark.parametrize("files", range(1, 9))
def test_a_disk_that_is_full_at_any_point_keeps_all_or_nothing(files: int, tmp_path: Path) -> None:
    # With room for so many files and folders: its own, the parent, the lock, the hidden folder, and what is in it.
    with contextmanager(small_disk_at)(tmp_path / "disk", f"1m,nr_inodes={files}") as disk:
        try:
            with whole_folder(disk / "deep" / "run") as folder:
                (folder / "model").mkdir()
                (folder / "model" / "weights").write_text("1")
                (folder / "log.txt").write_text("2")
        except (UnlearnError, OSError) as problem:
            assert files < 7 and "No space left on device" in str(problem)
            assert os.listdir(disk) == []
        else:
            assert files >= 7 and os.listdir(disk / "deep") == ["run"]
            assert {path.stat().st_mode & 0o077 for path in (disk / "deep" / "run").iterdir()} != {0}
