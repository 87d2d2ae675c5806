"""Names and places of run directories: what is refused before the work."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest

from tests.runs.test_folder import OLD
from unlearn.commands.options import Place
from unlearn.errors import PolicyError, UnlearnError
from unlearn.runs.folder import LONGEST, held, whole_folder


@pytest.mark.parametrize("length", [LONGEST + 1, 300, 5000])
def test_a_name_that_is_too_long_is_refused_before_the_work(tmp_path: Path, length: int) -> None:
    with pytest.raises(UnlearnError, match="too long"), whole_folder(tmp_path / ("n" * length)):
        raise AssertionError("the work has begun")
    assert os.listdir(tmp_path) == []
    longest = "ä" * (LONGEST // 2)
    for _ in range(2):
        with whole_folder(tmp_path / longest, force=True) as folder:
            (folder / "manifest.json").write_text(OLD)
    assert os.listdir(tmp_path) == [longest]


@pytest.mark.parametrize("name", ["[a-z]*?", "-run", "run\n2", " run ", "a.partial-b", ".hidden", "run/"])
def test_any_other_name_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with whole_folder(Path(name), force=True) as folder:
            (folder / "manifest.json").write_text(OLD)
            assert len(os.listdir(".")) >= 2
    assert os.listdir(tmp_path) == [name.rstrip("/")]


def test_a_name_that_is_no_text_is_refused_before_the_work(tmp_path: Path) -> None:
    for target in (tmp_path / "\udc80", tmp_path / "\udc80" / "run"):
        with pytest.raises(PolicyError, match="is no UTF-8 text"), whole_folder(target):
            raise AssertionError("the work has begun")
    assert os.listdir(tmp_path) == []
    with pytest.raises(click.BadParameter, match="null character"):
        Place().convert("a\0b", None, None)


def test_a_working_directory_that_changes_does_not_move_the_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with whole_folder(Path("run")):
        monkeypatch.chdir(tmp_path / "elsewhere")
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "run"] and os.listdir() == []


def test_a_working_directory_that_is_gone_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for attempt in (whole_folder(Path("run")), held(Path("run"))):
        with pytest.raises(UnlearnError, match="No such file or directory"), attempt:
            raise AssertionError("the work has begun")
    monkeypatch.chdir(tmp_path)


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
