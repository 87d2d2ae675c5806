"""What an adapter's folder may ask for and hold: looked at before ``peft`` acts on it.

An adapter's configuration can name modules to import, caches to unpickle, and the model that it was made for; peft
leaves out tensors for which a model has no place without a word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePath

from torch import nn
from transformers.pytorch_utils import Conv1D

from unlearn.errors import ModelError
from unlearn.files import at_home
from unlearn.model.described import Config, is_whole
from unlearn.model.folder import ADAPTER, read_object
from unlearn.model.stored import Stored, stored_in
from unlearn.shown import sentence

WEIGHTS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"
KINDS = ("ADALORA", "IA3", "LOHA", "LOKR", "LORA", "OFT", "VERA")
"""Kinds of adapters that are merged into weights without anything else being fetched or run."""

_REQUESTS = {
    "megatron_config": "imports a module that it names",
    "corda_config": "reads a pickle that it names",
    "lora_ga_config": "reads a pickle that it names",
    "arrow_config": "chooses among other adapters",
    "layer_replication": "repeats layers of the model",
}
_INSIDE = "base_model.model."
_PART = re.compile(r"(?P<module>.+?)\.(?P<part>(?:lora|ia3|hada|lokr|oft|vera|token)_\w+)(?:\.|$)")


def read_adapter(folder: Path) -> tuple[Config, Mapping[str, Stored]]:
    """Return an adapter's configuration and what the header of its weights says.

    Raises:
        ModelError: one of the files cannot be read, there is only a pickle, it is of a kind that cannot be merged, or
            it asks for more than weights.
    """
    path = folder / ADAPTER
    about = read_object(path)
    kind = about.get("peft_type")
    if kind is None and about.get("auto_mapping"):
        raise ModelError(f"{path}: the adapter needs code of its own, which is not run")
    if kind not in KINDS:
        raise ModelError(
            f"{path}: an adapter of the kind {sentence(str(kind), 40)} cannot be merged into weights; audit one of the "
            f"kinds {', '.join(KINDS)}, or a whole model"
        )
    for key, does in _REQUESTS.items():
        if about.get(key) is not None:
            raise ModelError(f"{path}: {key} {does}; save the adapter without it")
    if not (folder / WEIGHTS).exists():
        hint = "; it holds a pickle, which is never loaded" if (folder / PICKLE).exists() else ""
        raise ModelError(f"the adapter {folder} has no {WEIGHTS}{hint}: save it with safetensors")
    return about, stored_in([folder / WEIGHTS], str(folder), "cannot use the adapter")


def refuse_other_base(folder: Path, about: Config, names: tuple[str, ...]) -> None:
    """Refuse an adapter that says that it was made for another model: put on this one it could do anything.

    Args:
        names: what the model in hand is called, and the folder that it lies in.

    Raises:
        ModelError: the names differ, and so do the last parts of both.
    """
    base = about.get("base_model_name_or_path")
    if base is None or base == "":
        return
    if not isinstance(base, str) or not any(_same(base, name) for name in names):
        raise ModelError(
            f"the adapter {folder} was made for the model {sentence(str(base), 120)!r}, and the policy names "
            f"{names[0]!r}; name that model in the policy, or, if both are the same, name this one in {ADAPTER} as "
            "base_model_name_or_path"
        )


def refuse_strange(
    folder: Path, about: Config, stored: Mapping[str, Stored], network: nn.Module, name: str
) -> None:
    """Refuse tensors for which a model has no place, or one of another size.

    Args:
        stored: its tensors; those of LoRA are (rank, d_in) and (d_out, rank).

    Raises:
        ModelError: naming the first.
    """
    ranks = {tensor.shape[0] for key, tensor in stored.items() if ".lora_A." in key and tensor.shape}
    pattern = about.get("rank_pattern")
    for rank in (about.get("r"), *(pattern.values() if isinstance(pattern, dict) else ())):
        if ranks and rank is not None and not (is_whole(rank) and 1 <= rank <= max(ranks)):
            raise ModelError(
                f"{folder / ADAPTER}: a rank of {sentence(repr(rank), 40)}, and its weights have at most {max(ranks)}"
            )
    for key, tensor in stored.items():
        if key.startswith(_INSIDE) and not _has_place(key.removeprefix(_INSIDE), tensor.shape, network):
            raise ModelError(
                f"the adapter {folder} does not fit {name}: there is no place for {key} {tensor.shape}; was it made "
                "for another model?"
            )


def _has_place(path: str, shape: tuple[int, ...], network: nn.Module) -> bool:
    found = _PART.match(path)
    try:
        if found is None:
            return tuple(network.get_parameter(path).shape) == shape
        module = network.get_submodule(found["module"])
    except AttributeError:
        return False
    axis = {"lora_A": 1, "lora_B": 0}.get(found["part"])
    sizes = _sizes(module)
    return axis is None or (sizes is not None and len(shape) == 2 and shape[axis] == sizes[axis])


def _sizes(module: nn.Module) -> tuple[int, int] | None:
    """Of a linear layer, (d_out, d_in)."""
    if isinstance(module, Conv1D):
        return int(module.weight.shape[1]), int(module.weight.shape[0])
    return (module.out_features, module.in_features) if isinstance(module, nn.Linear) else None


def _same(base: str, name: str) -> bool:
    here, there = Path(at_home(base)), Path(at_home(name))
    if here.exists() and there.exists():
        return here.resolve() == there.resolve()
    return PurePath(base).name.casefold() == PurePath(name).name.casefold()
