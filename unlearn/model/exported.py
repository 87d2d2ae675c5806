"""A patched model as an ordinary folder, written from the base model's files: one of them is in memory at a time.

What the files call a weight need not be its name in the model (a checkpoint of the bare decoder, or of an older
library). It ends alike, and of several that do, the patch's hash tells which is meant.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from unlearn.errors import ModelError
from unlearn.model import folder
from unlearn.model.anatomy import Anatomy, turned
from unlearn.model.boundary import reading
from unlearn.model.described import refuse_blocks_left_out, refuse_missing
from unlearn.model.editable import EditableModel
from unlearn.model.ends import Ends
from unlearn.model.fit import check_fit, summed
from unlearn.model.guard import guarded
from unlearn.model.loading import Checkpoint
from unlearn.model.trial import refuse_not_finite, suited
from unlearn.patch import Patch, sha256_of
from unlearn.progress import NO_PROGRESS, Progress


class Place(NamedTuple):
    """Where a weight lies."""

    key: str
    """Its name in the files."""
    sha256: str


@dataclass(frozen=True)
class Files:
    """The editable weights of a checkpoint, one of them in memory at a time; what `check_fit` needs of a model."""

    checkpoint: Checkpoint
    anatomy: Anatomy
    base: Mapping[str, str]
    """SHA-256 by name, as a patch has them."""

    @property
    def name(self) -> str:
        """What the user calls the model."""
        return self.checkpoint.name

    @property
    def storage_dtype(self) -> torch.dtype:
        """In which they are hashed and saved."""
        return self.checkpoint.kept

    @property
    def dtype(self) -> torch.dtype:
        """In which the model would compute."""
        return self.checkpoint.dtype

    @cached_property
    def places(self) -> Mapping[str, Place]:
        """Where the weights lie that the patch knows."""
        return {name: self._place(name, digest) for name, digest in self.base.items()}

    def fingerprint(self, names: Sequence[str]) -> dict[str, str]:
        """SHA-256 of weights that the patch knows, (d_out, d_in) in ``storage_dtype``."""
        return {name: self.places[name].sha256 for name in names}

    def shape(self, name: str) -> tuple[int, int]:
        """(d_out, d_in)."""
        return self.anatomy.shape(self.checkpoint.empty, name)

    def oriented(self, name: str, stored: Tensor) -> Tensor:
        """A weight as (d_out, d_in), from how its file has it, and back."""
        return turned(self.anatomy.linear(self.checkpoint.empty, name), stored)

    def refuse_gaps(self) -> None:
        """Refuse files that lack a weight of the model, or hold blocks that its configuration does not have.

        A load says so by itself, and an export loads nothing. What a library has renamed is known by its shape.
        """
        empty, stored = self.checkpoint.empty, self.checkpoint.stored
        names: dict[Tensor, list[str]] = {}
        for name, parameter in empty.named_parameters(remove_duplicate=False):
            names.setdefault(parameter, []).append(name)  # of tied ones the files hold one
        read = {
            parameter: {key for key in stored for name in called if _ends(key, self._ending(name))}
            for parameter, called in names.items()
        }
        unread = stored.keys() - set().union(*read.values())
        shapes = {tuple(stored[key].shape) for key in unread}
        missing = [names[one][0] for one, keys in read.items() if not keys and tuple(one.shape) not in shapes]
        refuse_missing(missing, self.name)
        refuse_blocks_left_out(self.checkpoint.folder / folder.CONFIG, empty.config, unread)

    def _ending(self, name: str) -> str:
        """What the files' name of a weight ends in, whatever its blocks are called there."""
        block = self.anatomy.family.blocks
        if name.startswith(f"{block}."):
            return f"{block.rpartition('.')[2]}{name.removeprefix(block)}"
        return ".".join(name.split(".")[-2:])

    def _place(self, name: str, digest: str) -> Place:
        ending = self._ending(name)
        shape = tuple(self.oriented(name, torch.empty(self.shape(name), device="meta")).shape)
        alike = [
            key
            for key, tensor in self.checkpoint.stored.items()
            if _ends(key, ending) and tensor.shape == shape
        ]
        found = [Place(key, self._sha256(name, key)) for key in sorted(alike, key=lambda key: key != name)]
        if not found:
            raise ModelError(f"{self.checkpoint.files[0].parent} holds no weight {name}; name the base model")
        return next((place for place in found if place.sha256 == digest), found[0])

    def _sha256(self, name: str, key: str) -> str:
        file = self.checkpoint.stored[key].file
        with reading(self.name, file), safe_open(file, framework="pt") as inside:
            return sha256_of(self.oriented(name, inside.get_tensor(key)).to(self.storage_dtype))


def export(found: Checkpoint, patch: Patch, target: Path, progress: Progress = NO_PROGRESS) -> Ends:
    """Write a folder, in the checkpoint's dtype, that ``AutoModelForCausalLM.from_pretrained`` loads.

    Weights keep the names and the files that they have in the base model's folder.

    Args:
        found: the base model.
        patch: made for it.
        target: a folder to write into.

    Returns:
        What ends a reply of the model.

    Raises:
        ModelError: as a load of the base model, but that nothing is computed; or the model is quantised; or the patch
            was made for other weights, does not fit, or gives a weight that is not finite.
    """
    if found.quantised:
        raise whole_only(found.name)
    system = patch.header.get("system")
    tokenizer = guarded(found.tokenizer, str(system)) if system else found.tokenizer
    model = EditableModel(found.empty, tokenizer, found.name, found.kept)
    files = Files(found, model.anatomy, patch.base)
    suited(found.empty, found.tokenizer, found.name)
    files.refuse_gaps()
    check_fit(files, patch)
    touched = {files.places[name].key: name for name in patch.factors}
    size = 0
    with progress.step("Writing weights", total=len(found.files)) as bar:
        for file in found.files:
            size += _written(files, patch, touched, file, target / file.name)
            bar.advance()
    if (found.folder / folder.INDEX).exists() and found.files[0].name != folder.SINGLE:
        about = folder.read_object(found.folder / folder.INDEX)
        about["metadata"] = {**_object(about["metadata"]), "total_size": size}
        (target / folder.INDEX).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    _describe(model, found.folder, target)
    return model.ends


def whole_only(name: str) -> ModelError:
    """What is said of a quantised model that is to be saved with an edit in it."""
    return ModelError(
        f"{name} is quantised, and in 4 bits its edited weights could not be saved as they were measured; write the "
        "patch as a LoRA adapter: `unlearn export --adapter`"
    )


def _written(files: Files, patch: Patch, touched: Mapping[str, str], source: Path, target: Path) -> int:
    """Write one file of weights anew; bytes of its tensors."""

    def new(key: str, old: Tensor) -> Tensor:
        refuse_not_finite(old, key, files.name)
        if key in touched:
            name = touched[key]
            weight = files.oriented(name, old.to(files.dtype))
            return files.oriented(name, summed(weight, patch.factors[name], name, files.storage_dtype))
        return old.to(files.storage_dtype) if old.is_floating_point() else old

    with reading(files.name, source), safe_open(source, framework="pt") as inside:
        keys = list(inside.keys())
        tensors = {key: new(key, inside.get_tensor(key)).contiguous() for key in keys}
    save_file(tensors, target, metadata={"format": "pt"})
    return sum(tensor.nbytes for tensor in tensors.values())


def _ends(key: str, ending: str) -> bool:
    return key == ending or key.endswith(f".{ending}")


def _object(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _describe(model: EditableModel, source: Path, target: Path) -> None:
    """Write configuration, generation config and tokenizer of a model without memory behind its weights."""
    from transformers import GenerationConfig

    config = copy.deepcopy(model.model.config)
    config.architectures = [type(model.model).__name__]
    config.dtype = model.storage_dtype
    config.save_pretrained(target)
    if (source / folder.GENERATION).exists():
        with reading(model.name, source / folder.GENERATION):
            model.model.generation_config = GenerationConfig.from_pretrained(source)
    with model.stopping():
        model.model.generation_config.save_pretrained(target)
    model.tokenizer.save_pretrained(target)
