"""A run on a pico model, made once for all commands that read one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.files import corpus_file, model_folder, pico_policy, run


@pytest.fixture(scope="package")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pico model, another one of the same shape, a corpus, a policy, and a run of it."""
    folder = tmp_path_factory.mktemp("place")
    model, corpus = model_folder(folder / "model"), corpus_file(folder / "corpus.jsonl")
    model_folder(folder / "other", seed=1)
    (folder / "policy.yaml").write_text(pico_policy(model, corpus))
    # It knows nothing, so nothing can be shown to be suppressed: a failed audit, and a complete run directory.
    assert run("apply", folder / "policy.yaml", "--out", folder / "run", "--save-model", "--quiet") == 3
    return folder


@pytest.fixture
def copy(place: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may damage."""
    return Path(shutil.copytree(place / "run", tmp_path / "run"))
