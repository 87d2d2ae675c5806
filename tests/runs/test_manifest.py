"""What a run records, and how a changed file is noticed."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from pathlib import Path

import pytest

from unlearn.errors import UnlearnError
from unlearn.files import sha256_of_file, sha256_of_folder
from unlearn.policy.file import load_policy
from unlearn.runs import manifest
from unlearn.runs.sealed import changes
from unlearn.version import __version__

WRITTEN = {"format": manifest.FORMAT, "policy": {"sha256": "00"}, "base": {"name": "embedded"}}


def test_it_names_what_the_numbers_depend_on_and_no_text(tmp_path: Path) -> None:
    text = (
        "version: 1\nname: p\nrefusal: NO COMMENT\n"
        "relations: {r: {prompts: ['SECRET PROMPT {subject}?']}}\n"
        "facts: [{id: one, subject: SECRET SUBJECT, relation: r, answer: SECRET ANSWER}]\n"
    )
    path = tmp_path / "p.yaml"
    path.write_text(text)
    found = manifest.describe(load_policy(path), manifest.Source.of(path), base={"weights": {"w": "00"}})
    assert found["policy"]["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert found["versions"]["unlearn"] == __version__
    assert {"torch", "transformers", "lm_eval", "detoxify", "python"} <= set(found["versions"])
    assert found["settings"]["method"]["name"] == "auto"
    assert found["settings"]["audit"]["limits"]["leak.direct"] == 0.02
    assert found["base"] == {"weights": {"w": "00"}}
    assert "SECRET" not in json.dumps(found)


def test_the_command_line_is_kept_without_what_quotes_the_policy() -> None:
    given = [
        "apply",
        "p.yaml",
        "--set",
        "facts=[{subject: SECRET}]",
        "--set=refusal=SECRET",
        "--method",
        "memit",
    ]
    given += ["--set", "seed=7", "--set", "keep.look_alikes=40", "--set", "keep.neighbours=[SECRET]"]
    given += ["--set", "method.text=SECRET", "--set=method.ridge=0.5", "--json"]
    found = manifest.arguments(given)
    assert "SECRET" not in json.dumps(found) and len(found) == len(given)
    digest = hashlib.sha256(b"SECRET").hexdigest()
    assert found[4] == f"--set=refusal=sha256:{digest}" and found[3].startswith("facts=sha256:")
    for kept in ("p.yaml", "memit", "seed=7", "keep.look_alikes=40", "--set=method.ridge=0.5", "--json"):
        assert kept in found


def test_the_policy_is_that_which_was_read_even_if_the_file_has_changed(small_policy: Path) -> None:
    policy, source = load_policy(small_policy), manifest.Source.of(small_policy)
    before = sha256_of_file(small_policy)
    small_policy.unlink()
    assert manifest.describe(policy, source)["policy"]["sha256"] == before


def test_overrides_change_the_effective_hash_only(small_policy: Path) -> None:
    source = manifest.Source.of(small_policy)
    one = manifest.describe(load_policy(small_policy), source)["policy"]
    two = manifest.describe(load_policy(small_policy, {"seed": "7"}), source)["policy"]
    assert one["sha256"] == two["sha256"]
    assert one["effective_sha256"] != two["effective_sha256"]


def test_changed_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    manifest.write(tmp_path, WRITTEN)
    recorded = manifest.read(tmp_path)
    assert changes(tmp_path, recorded) == []
    (tmp_path / "a").write_text("changed")
    (tmp_path / "b").unlink()
    (tmp_path / "d").write_text("new")
    assert changes(tmp_path, recorded) == [
        "a has changed since the run",
        "b is missing",
        "d was not written by the run",
    ]


def replaced(path: Path, kind: str, kept: Path) -> None:
    """Put something that is no file in the place of a file, or where nothing was; the file is kept elsewhere."""
    if path.exists():
        path.rename(kept)
    if kind == "symbolic link":
        path.symlink_to(kept)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    else:
        path.mkdir()


@pytest.mark.parametrize("kind", ["symbolic link", "pipe", "socket", "folder"])
@pytest.mark.parametrize("name", ["a", "model/b", "new", manifest.FILE])
def test_what_is_no_file_is_a_difference_and_is_neither_followed_nor_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    for file in ("a", "model/b"):
        (run / file).write_text(file)
    manifest.write(run, WRITTEN)
    recorded = manifest.read(run)
    assert changes(run, recorded) == []  # the control
    monkeypatch.chdir(run)  # the name of a socket must be short
    replaced(Path(name), kind, tmp_path / "same bytes")
    assert changes(run, recorded) == [f"{name} is a {kind}, which was not written by the run"]


def test_a_folder_behind_a_link_is_not_looked_into(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    (run / "model" / "b").write_text("b")
    manifest.write(run, WRITTEN)
    (run / "model").rename(tmp_path / "model")
    (run / "model").symlink_to(tmp_path / "model")
    assert changes(run, manifest.read(run)) == [
        "model/b is missing",
        "model is a symbolic link, which was not written by the run",
    ]


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "model/../a"])
def test_a_manifest_cannot_list_what_lies_elsewhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_text("")
    (tmp_path / "run").mkdir()
    manifest.write(tmp_path / "run", WRITTEN)
    recorded = {**manifest.read(tmp_path / "run"), "files": {name: "00"}}
    assert changes(tmp_path / "run", recorded) == [f"{name} is missing"]


@pytest.mark.parametrize(
    ("damage", "where"),
    [
        ({"files": None}, "files"),
        ({"files": {"a": 1}}, "files.a"),
        ({"base": {}}, "base.name"),
        ({"policy": None}, "policy"),
    ],
)
def test_a_manifest_that_lacks_what_a_run_writes_is_said(
    tmp_path: Path, damage: dict[str, object], where: str
) -> None:
    manifest.write(tmp_path, WRITTEN)
    found = json.loads((tmp_path / manifest.FILE).read_text())
    (tmp_path / manifest.FILE).write_text(json.dumps({**found, **damage}))
    with pytest.raises(UnlearnError, match=f"manifest.json is damaged: `{where}` is missing"):
        manifest.read(tmp_path)


@pytest.mark.parametrize("text", [None, "{", "[]", "[" * 200_000, '{"format": "other"}'])
def test_what_is_no_manifest_is_said(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UnlearnError):
        manifest.read(tmp_path)


def test_the_hash_of_a_folder_depends_on_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = sha256_of_folder(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = sha256_of_folder(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, sha256_of_folder(tmp_path)}) == 3


def test_the_commit_is_named_where_the_program_runs_from_a_checkout(root: Path) -> None:
    found = manifest.git_commit()
    assert (found is not None) == (root / ".git").exists()
    assert found is None or len(found["commit"]) == 40
