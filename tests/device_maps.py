"""Device maps for small models: files that say which of a model's modules goes where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unlearn.model.editable import EditableModel


def paths(network: Any, blocks: str, at: str = "") -> list[str]:
    """Paths of modules that together are a whole model, its blocks one by one."""
    found = []
    for name, child in network.named_children():
        path = f"{at}.{name}" if at else name
        within = path == blocks or blocks.startswith(f"{path}.")
        found += paths(child, blocks, path) if within else [path]
    return found


def map_of(model: EditableModel, file: Path, places: dict[int, str | int], main: str | int = "cpu") -> Path:
    """Write a device map: blocks by number, everything else on one device."""
    blocks = model.anatomy.family.blocks
    wanted = {
        path: places.get(int(path.rpartition(".")[2]), main) if path.startswith(f"{blocks}.") else main
        for path in paths(model.model, blocks)
    }
    file.write_text(json.dumps(wanted))
    return file
