"""A folder appears whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path

import click
import pytest
import torch
from safetensors.torch import save_file

from unlearn.commands.options import Place
from unlearn.errors import PatchError, PolicyError, UnlearnError
from unlearn.patch import Patch
from unlearn.runs import manifest
from unlearn.runs.folder import EXPORTED, check_target, outside_runs, whole_folder, write_whole

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


def test_nothing_is_written_into_a_folder_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    inside = tmp_path / "model" / "deep" / "run"
    with pytest.raises(PolicyError, match="lies in .*model, which is read for it"):
        with whole_folder(inside, sources=[tmp_path / "model"]):
            raise AssertionError("the work has begun")
    assert os.listdir(tmp_path / "model") == []
    with whole_folder(tmp_path / "model-run", sources=[tmp_path / "model"]):  # a name that only begins alike
        pass


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
@pytest.mark.parametrize("private", [False, True])
def test_all_files_have_one_mode_whichever_library_wrote_them(
    tmp_path: Path, umask: int, private: bool
) -> None:
    before = os.umask(umask)
    try:
        with whole_folder(tmp_path / "run", private=private) as folder:
            assert folder.stat().st_mode & 0o077 == 0  # nobody looks at half a run
            (folder / "model").mkdir()
            (folder / "model" / "config.json").write_text("{}")
            save_file({"w": torch.zeros(2)}, folder / "model" / "w.safetensors")
            handle, _ = tempfile.mkstemp(dir=folder)
            os.close(handle)
            (folder / "run.sh").write_text("")
            (folder / "run.sh").chmod(0o777)
    finally:
        os.umask(before)
    found = list((tmp_path / "run").rglob("*"))
    folders = {path.stat().st_mode & 0o777 for path in found if path.is_dir()}
    files = {path.stat().st_mode & 0o777 for path in found if path.is_file()}
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o777 & ~umask
    assert folders == {0o700 if private else 0o777 & ~umask}
    assert len(found) == 5 and files == {0o600 if private else 0o666 & ~umask}


# --- permissions


def test_a_place_without_permission_is_refused_before_the_work(shared: Path) -> None:
    (shared / "closed").mkdir()
    (shared / "closed").chmod(0o555)
    for target in (shared / "closed" / "run", shared / "closed" / "deep" / "run"):
        with pytest.raises(UnlearnError, match="^cannot write to .*: Permission denied$"):
            with whole_folder(target):
                raise AssertionError("the work has begun")
    (shared / "closed").chmod(0o000)
    with pytest.raises(UnlearnError, match="Permission denied"), whole_folder(shared / "closed" / "run"):
        raise AssertionError("the work has begun")
    with whole_folder(shared / "run"):
        pass
    assert sorted(os.listdir(shared)) == ["closed", "run"]


def test_force_refuses_what_it_could_not_remove_before_the_work(shared: Path) -> None:
    run = shared / "run"
    (run / "model").mkdir(parents=True)
    (run / "manifest.json").write_text(OLD)
    (run / "model" / "weights").write_text("")
    (run / "model").chmod(0o555)
    with pytest.raises(PolicyError, match="no permission to remove what is in .*model"):
        with whole_folder(run, force=True):
            raise AssertionError("the work has begun")
    assert (run / "manifest.json").read_text() == OLD and os.listdir(shared) == ["run"]
    (run / "model").chmod(0o755)
    with whole_folder(run, force=True):
        pass
    assert os.listdir(shared) == ["run"] and os.listdir(run) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="to make another user's run needs root")
def test_force_refuses_another_users_run_before_the_work(shared: Path) -> None:
    mine, theirs = os.geteuid(), shared / "run"
    theirs.mkdir()
    (theirs / "manifest.json").write_text(OLD)
    theirs.chmod(0o777)
    os.seteuid(0)
    os.chown(theirs, 65533, 65533)
    os.seteuid(mine)
    with pytest.raises(PolicyError, match="belongs to another user; --force does not replace it"):
        with whole_folder(theirs, force=True):
            raise AssertionError("the work has begun")
    assert os.listdir(shared) == ["run"]


def test_a_folder_that_may_be_written_and_not_read_is_written(shared: Path) -> None:
    (shared / "box").mkdir()
    (shared / "box").chmod(0o333)
    with whole_folder(shared / "box" / "run"):
        pass
    (shared / "box").chmod(0o755)
    assert os.listdir(shared / "box") == ["run"]


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


def test_a_missing_permission_is_called_that(shared: Path) -> None:
    run = shared / "closed" / "run"
    run.mkdir(parents=True)
    (run / "patch.safetensors").write_text("")
    (run / "patch.safetensors").chmod(0)
    with pytest.raises(PatchError, match="cannot be read: Permission denied"):
        Patch.load(run / "patch.safetensors")
    (shared / "closed").chmod(0)
    with pytest.raises(PatchError, match="cannot be read: Permission denied"):
        Patch.load(run / "patch.safetensors")
    with pytest.raises(click.BadParameter, match=f"{run} cannot be read: Permission denied"):
        Place(exists=True).convert(str(run), None, None)
    with pytest.raises(click.BadParameter, match="does not exist"):
        Place(exists=True).convert(str(shared / "nothing"), None, None)
    with pytest.raises(PatchError, match="there is no patch at"):
        Patch.load(shared / "nothing")
