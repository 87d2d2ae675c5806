"""The commands and what they have kept: a warm cache gives what a cold one gave, and a changed one changes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from tests.audit.scripted import Scripted, knows, requests
from tests.files import corpus_file, model_folder, pico_policy, run
from unlearn.audit.cache import depends
from unlearn.patch import sha256_of
from unlearn.policy import EMBEDDED


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A pico model, a policy, a run with a cold cache, and that cache."""
    folder = tmp_path_factory.mktemp("kept")
    model, corpus = model_folder(folder / "model"), corpus_file(folder / "corpus.jsonl")
    (folder / "policy.yaml").write_text(pico_policy(model, corpus))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("UNLEARN_CACHE", str(folder / "cache"))
        assert run("apply", folder / "policy.yaml", "--out", folder / "cold", "-q") == 3
    yield folder


@pytest.fixture
def cache(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the cache as the cold run left it, now in use."""
    shutil.copytree(place / "cache", tmp_path / "cache")
    monkeypatch.setenv("UNLEARN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tensors(run: Path) -> dict[str, str]:
    with safe_open(run / "patch.safetensors", "pt") as patch:
        return {name: sha256_of(patch.get_tensor(name)) for name in patch.keys()}  # noqa: SIM118


def measured(run: Path) -> Any:
    return json.loads((run / "report.json").read_text())["measurements"]


def edited(cache: Path) -> None:
    (observation,) = (cache / "observations").iterdir()
    text = observation.read_bytes()
    assert b'"disclosed":false' in text
    observation.write_bytes(text.replace(b'"disclosed":false', b'"disclosed":true'))


def swapped(cache: Path) -> None:
    one, other = sorted(cache.glob("keys-*"))
    whole = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(whole)


def absurd(cache: Path) -> None:
    for file in cache.glob("keys-*"):
        file.write_bytes(file.read_bytes()[:128] + b"\xff" * 4096)


def nonsense(cache: Path) -> None:
    (cache / "paces").write_text('{"a": "b"}')


def disowned(cache: Path) -> None:
    (cache / "secret").chmod(0o644)


@pytest.mark.parametrize(("damages", "says"), [
    ([], []), ([edited, swapped, nonsense], ["does not fit its seal"] * 4), ([disowned], ["may be read by others"]),
])  # fmt: skip
def test_whatever_is_in_the_cache_the_patch_and_the_report_are_those_of_a_cold_run(
    place: Path,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damages: list[Callable[[Path], None]],
    says: list[str],
) -> None:
    for damage in damages:
        damage(cache)
    assert run("apply", place / "policy.yaml", "--out", tmp_path / "warm", "-q") == 3
    warnings = [line for line in capsys.readouterr().err.splitlines() if str(cache) in line]
    assert len(warnings) == len(says) and all(say in line for say, line in zip(says, warnings, strict=True))
    assert all(line.startswith("unlearn: warning: ") for line in warnings)
    assert tensors(tmp_path / "warm") == tensors(place / "cold")
    assert measured(tmp_path / "warm") == measured(place / "cold")


def test_what_was_made_anew_is_kept_again(
    place: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absurd(cache)
    for warnings in (2, 0):
        assert run("stats", place / "policy.yaml", "-q") == 0
        assert capsys.readouterr().err.count("does not fit its seal") == warnings


def test_a_copy_of_the_embedded_model_is_not_measured_with_its_scorer() -> None:
    model, given = Scripted(knows), requests()
    copied = given.policy.model_copy(update={"model": "/a/copy/of/it"})
    mine, other = depends(model, given), depends(model, replace(given, policy=copied))
    assert given.policy.model == EMBEDDED and mine["model"] == other["model"] and mine != other
