"""What every test gets: no network, a cache of its own, and small models without downloads."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import settings

from tests.files import corpus_file, model_folder, pico_policy, policy_text

# Before anything imports transformers or datasets, which read these once.
for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ[name] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Processes side by side share the cores: more threads than cores make each of them wait for the others.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
os.environ["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"
os.environ.pop("UNLEARN_DEBUG", None)

# Shared machines are slow at times; a test must not fail for it.
settings.register_profile("unlearn", deadline=None)
settings.load_profile("unlearn")

LONGEST = ("test_known_cases.py", "test_points.py", "test_talk.py", "test_dtype.py")
"""Files that take longest: begun last, one of them would keep a process busy when the others have nothing left."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def pytest_report_header() -> str:
    libraries = ", ".join(
        f"{name} {version(name)}" for name in ("torch", "transformers", "lm_eval", "pydantic")
    )
    return f"python {platform.python_version()}, {libraries}"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache per test session: shared between its tests, never with the user's."""
    folder = tmp_path_factory.mktemp("cache")
    kept = os.environ.get("UNLEARN_CACHE")
    os.environ["UNLEARN_CACHE"] = str(folder)
    yield folder
    if kept is None:
        del os.environ["UNLEARN_CACHE"]
    else:
        os.environ["UNLEARN_CACHE"] = kept


@pytest.fixture
def root() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture
def small_policy(tmp_path: Path) -> Path:
    """The file of a small right policy for the embedded model."""
    path = tmp_path / "small.yaml"
    path.write_text(policy_text())
    return path


@pytest.fixture(scope="module")
def pico_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pico model, one that cannot be edited, a corpus, and a policy."""
    folder = tmp_path_factory.mktemp("pico")
    model, corpus = model_folder(folder / "model"), corpus_file(folder / "corpus.jsonl")
    model_folder(folder / "olmoe", "olmoe")
    (folder / "policy.yaml").write_text(pico_policy(model, corpus))
    return folder


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A folder that every user may write, in which this process is not root."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o777)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        os.seteuid(user)
        for path in (folder, *folder.rglob("*")):
            if path.is_dir():
                path.chmod(0o700)
        shutil.rmtree(folder)
