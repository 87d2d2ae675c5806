"""The shipped data is found in a checkout, in an editable install and in a wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from unlearn import shipped as module
from unlearn.errors import UnlearnError
from unlearn.shipped import shipped

WHERE = "from unlearn.shipped import shipped; print(shipped('policies')); print(shipped('evals'))"


def where(cwd: Path, *path: Path) -> list[Path]:
    """Ask a fresh interpreter, which sees only `path`, where the data lies."""
    code = f"import sys; sys.path[:0] = {[str(p) for p in path]!r}; {WHERE}"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=cwd, capture_output=True, text=True, check=True
    )
    return [Path(line) for line in done.stdout.split()]


def built(root: Path, folder: Path, editable: bool) -> Path:
    """Build a wheel (hatchling only: nothing is installed or downloaded) and unpack it like an installer does."""
    build = "build_editable" if editable else "build_wheel"
    code = f"import hatchling.build as b; print(b.{build}({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def test_in_a_checkout(root: Path, tmp_path: Path) -> None:
    assert where(tmp_path, root) == [root / "policies", root / "evals"]


def test_in_an_editable_install(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    site = built(root, tmp_path, editable=True)
    (pth,) = site.glob("*.pth")
    # What `site` does with the file that an editable install leaves in site-packages.
    assert where(tmp_path, *map(Path, pth.read_text().split())) == [root / "policies", root / "evals"]


def test_in_a_wheel(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    site = built(root, tmp_path, editable=False)
    assert where(tmp_path, site) == [site / "unlearn" / "policies", site / "unlearn" / "evals"]
    assert (site / "unlearn" / "policies" / "demo.yaml").is_file()
    assert (site / "unlearn" / "py.typed").is_file()
    for name in ("cli.py", "tools", "benchmarks"):
        assert not (site / name).exists(), f"a top-level {name} would collide with other packages"
    assert not [*site.rglob("examples"), *site.rglob("forget.*")]
    shipped_files = {
        path.relative_to(root).as_posix() for path in (root / "evals").rglob("*") if path.is_file()
    }
    assert all((site / "unlearn" / name).is_file() for name in shipped_files)
    for name in ("embedded/model", "templates"):
        for path in (root / "unlearn" / name).rglob("*"):
            assert (site / path.relative_to(root)).exists()


def test_an_incomplete_installation_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_PACKAGE", tmp_path / "unlearn")
    with pytest.raises(UnlearnError, match="reinstall unlearn"):
        shipped("evals")
