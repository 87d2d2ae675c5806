"""`unlearn apply --device-map`: a whole run with blocks on disk is that of one device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.device_maps import map_of
from tests.files import run
from unlearn.model.editable import EditableModel


def test_a_whole_run_with_blocks_on_disk_measures_the_same(place: Path, tmp_path: Path) -> None:
    """Load, answers, statistics, values, writes, audit and export."""
    model = EditableModel.load(str(place / "model"), device="cpu")
    file = map_of(model, tmp_path / "map.json", {0: "disk", 2: "disk"})
    options = ("--device-map", file, "--quiet", "--no-cache", "--save-model")
    assert run("apply", place / "policy.yaml", "--out", tmp_path / "run", *options) == 3
    one, two = (
        json.loads((folder / "report.json").read_text()) for folder in (place / "run", tmp_path / "run")
    )
    assert one["measurements"] == two["measurements"]
    saved = [folder / "model" / "model.safetensors" for folder in (place / "run", tmp_path / "run")]
    assert saved[0].read_bytes() == saved[1].read_bytes()
    told = json.loads((tmp_path / "run" / "manifest.json").read_text())["hardware"]["device"]
    assert told == "cpu (cpu, disk)"


def test_a_device_beside_a_map_is_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--device-map", "auto", "--device", "cpu")
    assert run("apply", place / "policy.yaml", "--out", tmp_path / "run", *options) == 2
    assert capsys.readouterr().err == "unlearn: --device cpu and --device-map auto: give one of the two\n"
    assert not (tmp_path / "run").exists()
