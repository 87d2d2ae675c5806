"""`unlearn stats export` and `import`: what one machine has computed, another takes from a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.files import run


@pytest.fixture(scope="module")
def exported(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("exported") / "statistics.safetensors"
    assert run("stats", "export", file, "--policy", place / "policy.yaml", "-q") == 0
    return file


def kept(cache: Path) -> list[Path]:
    return sorted(cache.glob("keys-*"))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of another machine."""
    monkeypatch.setenv("UNLEARN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_another_machine_takes_from_the_file_what_it_would_have_computed(
    place: Path, exported: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = place / "policy.yaml"
    assert run("stats", "show", policy, "--no-cache", "--json") == 0
    computed = yaml.safe_load(capsys.readouterr().out)["layers"]
    assert not elsewhere.exists()
    assert run("stats", "import", exported, "--policy", policy) == 0
    assert "layers 1, 2" in capsys.readouterr().out
    before = [(path.name, path.stat().st_mtime_ns) for path in kept(elsewhere)]
    assert len(before) == 2
    assert run("stats", policy, "--json") == 0
    assert yaml.safe_load(capsys.readouterr().out)["layers"] == computed
    assert [(path.name, path.stat().st_mtime_ns) for path in kept(elsewhere)] == before


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (("--model", "{place}/other"), "another model"),
        (("--set", "statistics.corpus={corpus}"), "another corpus"),
        (("--set", "statistics.tokens=1500"), "(2000, not 1500)"),
    ],
)
def test_a_file_of_something_else_is_refused_and_nothing_is_kept(
    place: Path,
    exported: Path,
    elsewhere: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    changed: tuple[str, str],
    says: str,
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text((place / "corpus.jsonl").read_text() + '{"text": "One more."}\n')
    given = [word.format(place=place, corpus=corpus) for word in changed]
    assert run("stats", "import", exported, "--policy", place / "policy.yaml", *given, "-q") == 1
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert not kept(elsewhere)


def test_an_export_replaces_nothing_unasked(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, file = place / "policy.yaml", tmp_path / "precious"
    file.write_text("precious")
    assert run("stats", "export", file, "--policy", policy, "-q") == 2
    assert "--force" in capsys.readouterr().err and file.read_text() == "precious"
    assert run("stats", "export", file, "--policy", policy, "-q", "--force") == 0
    assert run("stats", "import", file, "--policy", policy, "-q") == 0
    sealed = place / "run" / "statistics.safetensors"
    assert run("stats", "export", sealed, "--policy", policy, "-q") == 2 and not sealed.exists()


def test_an_export_that_fails_leaves_nothing_behind(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unlearn.edit.statistics_file.save_file", full)
    file = tmp_path / "statistics.safetensors"
    assert run("stats", "export", file, "--policy", place / "policy.yaml", "-q") == 1
    assert not list(tmp_path.iterdir())
