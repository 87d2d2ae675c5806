"""One model on several devices: which block goes where, by `accelerate`.

Blocks may lie on a device, in the host's memory (beside a GPU, which computes with them), or on disk, where they are
read from the model's own files for every pass. What stands around the blocks stays on the first device: an edit and
an audit read it all the time.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from unlearn.errors import ModelError, PolicyError
from unlearn.files import at_home, read_json
from unlearn.model.anatomy import family_of
from unlearn.model.described import is_whole
from unlearn.model.library import Network
from unlearn.team import seated

DeviceMap = Mapping[str, str | int]
"""Where the modules of a model go, by their paths: the number of a GPU, ``cuda:1``, ``cpu`` or ``disk``."""


class Origin(NamedTuple):
    """The arguments of ``EditableModel.load``, with which another process loads the same model."""

    name: str
    device: str
    dtype: str
    trust_remote_code: bool
    made_in: str | None
    tokenizer: str
    device_map: str | None


OFFLOADED = ("cpu", "disk")


def device_map(asked: str, empty: Network, dtype: torch.dtype) -> DeviceMap:
    """Where the modules of a model go.

    Args:
        asked: ``auto`` (the GPUs as far as they hold it, then the host's memory, then the disk), or a JSON file with an
            object from paths of modules to devices.
        empty: the model without memory behind its weights.
        dtype: in which it will be loaded.

    Raises:
        PolicyError: the file is no such object, or there are several processes.
        ModelError: it names no module of this model, leaves some out, names a device that is not there, or offloads
            what is no block.
    """
    if seated().size > 1:
        raise PolicyError(
            f"--device-map {asked}: each process of this run would spread the model over the same devices; start one "
            "process, or leave it out"
        )
    if asked == "auto":
        return _kept_around(empty, _inferred(empty, dtype))
    path = Path(at_home(asked))
    found = _read(path)
    _refuse_misfit(path, empty, found)
    moved = [name for name, place in _kept_around(empty, found).items() if found[name] != place]
    if moved:
        raise ModelError(
            f"{path}: {moved[0] or 'the whole model'} is to be offloaded, and only blocks can be "
            f"({family_of(empty.config).blocks}.0 and so on); put what stands around them on a device"
        )
    return found


def refuse_apart(places: DeviceMap, empty: Network, stored: Container[str], name: str) -> None:
    """Refuse to leave experts on disk whose files hold each by itself: what lies there is read as it stands.

    Args:
        stored: the names of the tensors in the files.
    """
    if "disk" not in places.values() or not family_of(empty.config).experts:
        return
    if not any(key in stored for key, _ in empty.named_parameters() if ".experts." in key):
        raise ModelError(
            f"{name}: its files hold every expert by itself, so that blocks cannot be left on disk; put them on cpu in "
            "the --device-map"
        )


def _inferred(empty: Network, dtype: torch.dtype) -> DeviceMap:
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    whole = list(empty._no_split_modules or ())
    room = get_balanced_memory(empty, no_split_module_classes=whole, dtype=dtype)
    found: DeviceMap = infer_auto_device_map(
        empty, max_memory=room, no_split_module_classes=whole, dtype=dtype
    )
    return found


def _read(path: Path) -> DeviceMap:
    about = read_json(path, "the device map", error=PolicyError)
    if not isinstance(about, dict) or not about or not all(map(_is_place, about.values())):
        raise PolicyError(
            f"{path}: a device map is a JSON object from paths of modules to devices, each the number of a GPU, "
            '"cuda:1", "cpu" or "disk"'
        )
    return {
        name: int(place.partition(":")[2]) if isinstance(place, str) and place.startswith("cuda:") else place
        for name, place in about.items()
    }


def _is_place(place: object) -> bool:
    if isinstance(place, str):
        return bool(re.fullmatch(r"cpu|disk|cuda:\d+", place))
    return is_whole(place) and place >= 0


def _refuse_misfit(path: Path, empty: Network, found: DeviceMap) -> None:
    modules = {name for name, _ in empty.named_modules()}
    strange = sorted(found.keys() - modules)
    if strange:
        raise ModelError(f"{path}: this model has no module {strange[0]!r}")
    left = [
        name
        for name in (*dict(empty.named_parameters()), *dict(empty.named_buffers()))
        if not any(name.startswith(f"{one}." if one else "") for one in found)
    ]
    if left:
        raise ModelError(f"{path}: it does not say where {left[0]} goes, and {len(left) - 1} others")
    numbers = [place for place in found.values() if isinstance(place, int)]
    if max(numbers, default=-1) >= torch.cuda.device_count():
        raise ModelError(f"{path}: this machine has no CUDA device {max(numbers)}")


def _kept_around(empty: Network, found: DeviceMap) -> DeviceMap:
    """The same, but what is no block, and would be offloaded, goes to the first device."""
    blocks = family_of(empty.config).blocks
    main = next((place for place in found.values() if place not in OFFLOADED), "cpu")
    inside = re.compile(rf"{re.escape(blocks)}(\.|$)")
    return {
        name: main if place in OFFLOADED and place != main and not inside.match(name) else place
        for name, place in found.items()
    }
