"""What a run records, and how a changed file is noticed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from unlearn import __version__, manifest
from unlearn.errors import UnlearnError
from unlearn.policy_file import load_policy

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
    assert found["settings"]["method"]["name"] == "alphaedit"
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
    before = manifest.sha256_of_file(small_policy)
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
    assert manifest.changes(tmp_path, recorded) == []
    (tmp_path / "a").write_text("changed")
    (tmp_path / "b").unlink()
    (tmp_path / "d").write_text("new")
    assert manifest.changes(tmp_path, recorded) == [
        "a has changed since the run",
        "b is missing",
        "d was not written by the run",
    ]


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
    first = manifest.sha256_of_folder(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = manifest.sha256_of_folder(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, manifest.sha256_of_folder(tmp_path)}) == 3
