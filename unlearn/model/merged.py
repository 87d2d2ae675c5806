"""A model with somebody else's adapter: a folder as `peft` writes it, merged into a copy of the base model.

What the folder may ask for and hold is looked at before ``peft`` acts on it. An adapter's configuration can name
modules to import, caches to unpickle, and the model that it was made for; peft leaves out tensors for which a model has
no place without a word.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from unlearn.algebra.low_rank import LowRank
from unlearn.errors import ModelError
from unlearn.files import at_home
from unlearn.model import fourbit
from unlearn.model.boundary import reading
from unlearn.model.described import Config, is_whole
from unlearn.model.editable import EditableModel
from unlearn.model.folder import ADAPTER, Stored, look_through, read_object, stored_in
from unlearn.model.library import Network
from unlearn.model.loading import place_of, tokenizer_in
from unlearn.model.projection import Projection
from unlearn.shown import sentence

if TYPE_CHECKING:
    from peft import PeftModel

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
NAME = "default"
"""What peft calls an adapter that has no name."""
INSIDE = "base_model.model."
"""What names of tensors of an adapter begin with."""
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
        if key.startswith(INSIDE) and not _has_place(key.removeprefix(INSIDE), tensor.shape, network):
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
    if axis is None or not isinstance(module, nn.Linear | Conv1D):
        return axis is None
    return len(shape) == 2 and shape[axis] == Projection(module).shape[axis]


def _same(base: str, name: str) -> bool:
    here, there = Path(at_home(base)), Path(at_home(name))
    if here.exists() and there.exists():
        return here.resolve() == there.resolve()
    return PurePath(base).name.casefold() == PurePath(name).name.casefold()


__all__ = ["ADAPTER", "WEIGHTS", "is_adapter", "with_adapter"]


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter: peft's configuration, and not a whole model beside it."""
    return (folder / ADAPTER).is_file() and not (folder / "config.json").is_file()


def with_adapter(model: EditableModel, folder: Path) -> EditableModel:
    """Merge an adapter into a model, in the dtype that the model computes in.

    What LoRA adds to a quantised model is computed beside its layers instead.

    Args:
        model: a copy of the model that the adapter was made for, to be used for nothing else afterwards: its weights
            are changed.
        folder: with ``adapter_config.json`` and ``adapter_model.safetensors``. A tokenizer beside them takes the place
            of the model's own.

    Returns:
        The edited model, under the folder's name.

    Raises:
        ModelError: the adapter cannot be read, was made for another model, does not fit this one, cannot be merged into
            its weights (or, if these are quantised, is more than LoRA), or would need a pickle or code to be loaded.
    """
    look_through(folder)
    about, stored = read_adapter(folder)
    refuse_other_base(folder, about, (model.name, place_of(model.name)))
    refuse_strange(folder, about, stored, model.model, model.name)
    own = (folder / "tokenizer_config.json").is_file()
    tokenizer = tokenizer_in(folder, str(folder), code=False) if own else model.tokenizer
    with reading(str(folder), f"it cannot be put on {model.name}", outcome="cannot use the adapter"):
        merged = _beside(model, folder, stored) if model.quantised else _merged(model, folder)
    return EditableModel(merged, tokenizer, str(folder), model.storage_dtype)


def _merged(model: EditableModel, folder: Path) -> Network:
    with torch.no_grad():
        return _adapted(model, folder).merge_and_unload(safe_merge=True)


def _beside(model: EditableModel, folder: Path, stored: Mapping[str, Stored]) -> Network:
    """The model with what LoRA adds to it computed beside its layers, for good."""
    from peft.tuners.lora import LoraLayer

    adapted = _adapted(model, folder)
    layers = {
        path: layer
        for path, layer in adapted.get_base_model().named_modules()
        if isinstance(layer, LoraLayer)
    }
    strange = [key for key in stored if not key.endswith((".lora_A.weight", ".lora_B.weight"))]
    strange += [path for path, layer in layers.items() if layer.lora_variant]
    if strange or not layers:
        raise ModelError(
            f"the adapter {folder} is more than plain LoRA ({', '.join(strange[:1]) or 'of another kind'}), and such "
            f"cannot be put on weights that are quantised, as those of {model.name} are; audit it on the checkpoint "
            "that this model was quantised from"
        )
    found = {
        path: LowRank(
            layer.scaling[NAME] * layer.lora_B[NAME].weight.detach(), layer.lora_A[NAME].weight.detach()
        )
        for path, layer in layers.items()
    }
    network: Network = adapted.unload()
    for path, delta in found.items():
        fourbit.put_beside(network.get_submodule(path), delta, f"{path}.weight")
    return network.eval().requires_grad_(False)


def _adapted(model: EditableModel, folder: Path) -> PeftModel:
    """Peft's model around a model."""
    import peft

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        adapted = peft.PeftModel.from_pretrained(
            model.model, str(folder), is_trainable=False, use_safetensors=True, local_files_only=True
        )
    if any("missing adapter keys" in str(one.message) for one in said):
        raise ModelError(
            f"the adapter {folder} lacks weights for layers of {model.name} that its configuration names; was it "
            "made for another model?"
        )
    return adapted
