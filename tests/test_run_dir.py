"""A folder appears whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from unlearn import manifest
from unlearn.errors import PolicyError, UnlearnError
from unlearn.run_dir import EXPORTED, check_target, outside_runs, whole_folder, write_whole

OLD = json.dumps(
    {"format": manifest.FORMAT, "policy": {"sha256": "00"}, "base": {"name": "embedded"}, "files": {}}
)


def test_the_target_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "run"
    with whole_folder(target) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
        assert folder.name.startswith(".run.partial-")
    assert (target / "a").read_text() == "1"
    assert os.listdir(target.parent) == ["run"]
    assert target.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt(), RuntimeError("x")]
)
def test_nothing_is_left_of_a_failure(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), whole_folder(tmp_path / "deep" / "run") as folder:
        (folder / "half").write_text("written")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_an_existing_run_is_kept_unless_forced(tmp_path: Path) -> None:
    target = tmp_path / "run"
    target.mkdir()
    with whole_folder(target) as folder:  # an empty folder is no loss
        (folder / "manifest.json").write_text(OLD)
    with pytest.raises(PolicyError, match="replace it with --force"), whole_folder(target):
        pass
    assert (target / "manifest.json").read_text() == OLD
    with pytest.raises(RuntimeError), whole_folder(target, force=True) as folder:
        raise RuntimeError
    assert (target / "manifest.json").read_text() == OLD
    with whole_folder(target, force=True) as folder:
        (folder / "manifest.json").write_text("new")
    assert (target / "manifest.json").read_text() == "new"
    assert os.listdir(tmp_path) == ["run"]


def test_force_does_not_replace_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with (
        pytest.raises(PolicyError, match="--force does not replace it"),
        whole_folder(tmp_path / "home", force=True),
    ):
        pass
    assert (tmp_path / "home" / "thesis.tex").exists()
    for name, text in (("manifest.json", '{"name": "a web page"}'), ("config.json", "{}")):
        (tmp_path / "home" / name).write_text(text)
        with (
            pytest.raises(PolicyError, match="--force does not"),
            whole_folder(tmp_path / "home", force=True),
        ):
            pass
    assert (tmp_path / "home" / "thesis.tex").exists()
    (tmp_path / "home" / EXPORTED).write_text("{}")
    with whole_folder(tmp_path / "home", force=True):
        pass
    assert not any((tmp_path / "home").iterdir())


def test_nothing_more_is_written_into_a_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    inside = tmp_path / "run" / "deep" / "edited"
    outside_runs(inside)  # it is a run only once its manifest is there
    (tmp_path / "run" / "manifest.json").write_text(OLD)
    with pytest.raises(PolicyError, match="which is sealed"):
        outside_runs(inside)
    with pytest.raises(PolicyError, match="which is sealed"), whole_folder(inside):
        raise AssertionError("the work has begun")
    assert not inside.parent.exists()
    (tmp_path / "run" / "manifest.json").write_text(
        '{"format": "unlearn-run-1"}'
    )  # damaged, and a run all the same
    with pytest.raises(PolicyError, match="which is sealed"):
        outside_runs(inside)
    (tmp_path / "run" / "manifest.json").unlink()
    with pytest.raises(PolicyError, match="which is sealed"):
        outside_runs(inside, tmp_path / "run")
    (tmp_path / "run" / "manifest.json").write_text(OLD)
    outside_runs(tmp_path / "edited")
    outside_runs(tmp_path / "run")  # to replace it as a whole is another matter
    check_target(tmp_path / "run", force=True)


def test_what_the_work_reads_is_never_its_target(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "manifest.json").write_text(OLD)
    (run / "patch.safetensors").write_text("")
    for source in (run, run / "patch.safetensors"):
        with pytest.raises(PolicyError, match="is read for it"), whole_folder(run, True, [source]):
            raise AssertionError("the work has begun")
    with whole_folder(run, True, ["someone/model", None, tmp_path / "other"]):
        pass


def test_a_file_in_the_way_and_a_place_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PolicyError, match="is not a folder"), whole_folder(tmp_path / "file"):
        pass
    with pytest.raises(UnlearnError, match="cannot write to"), whole_folder(tmp_path / "file" / "below"):
        pass


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_a_folder_that_cannot_be_renamed_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(PolicyError, match="choose a new folder"), whole_folder(Path(name)):
        raise AssertionError("the work has begun")
    assert os.listdir(tmp_path) == ["here"] and os.listdir(tmp_path / "here") == []


def test_a_mount_point_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda self: self == tmp_path)
    with pytest.raises(PolicyError, match="choose a new folder"), whole_folder(tmp_path):
        raise AssertionError("the work has begun")


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "report.md"
    write_whole(file, "old")
    assert file.read_text() == "old" and os.listdir(tmp_path) == ["report.md"]
    link = tmp_path / "link.md"
    link.symlink_to(file)
    write_whole(link, "newer")
    assert link.is_symlink() and file.read_text() == "newer"

    def full(self: Path, text: str, encoding: str | None = None) -> int:
        self.write_bytes(text[:2].encode())
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UnlearnError, match=r"report.md cannot be written: No space left"):
        write_whole(file, "newest")
    assert file.read_text() == "newer" and sorted(os.listdir(tmp_path)) == ["link.md", "report.md"]


def test_a_file_in_a_place_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UnlearnError, match="cannot be written: No such file"):
        write_whole(tmp_path / "nowhere" / "report.md", "text")
    with pytest.raises(UnlearnError, match="cannot be written: Is a directory"):
        write_whole(tmp_path, "text")
    write_whole(Path("/dev/null"), "text")
