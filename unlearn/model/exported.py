"""A patched model as an ordinary folder, written from the base model's files: one of them is in memory at a time.

What the files call a weight need not be its name in the model (a checkpoint of the bare decoder, or of an older
library). It ends alike, and of several that do, the patch's hash tells which is meant. What is one tensor of all
experts in the model is one per expert in most files.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from unlearn.algebra.low_rank import LowRank
from unlearn.errors import ModelError
from unlearn.model import folder
from unlearn.model.anatomy import Anatomy
from unlearn.model.boundary import reading
from unlearn.model.described import refuse_blocks_left_out, refuse_missing
from unlearn.model.editable import EditableModel
from unlearn.model.ends import Ends
from unlearn.model.experts import by_expert
from unlearn.model.fit import check_fit, summed
from unlearn.model.guard import guarded
from unlearn.model.loading import Checkpoint
from unlearn.model.projection import Projection
from unlearn.model.trial import refuse_not_finite, suited
from unlearn.patch import Patch, sha256_of
from unlearn.progress import NO_PROGRESS, Progress


class Place(NamedTuple):
    """Where a weight lies."""

    keys: tuple[str, ...]
    """Its name in the files, or that of every expert's."""
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
        return self._projection(name).shape

    def matrix(self, name: str, keys: Sequence[str]) -> Tensor:
        """A weight as (d_out, d_in), from the tensors of the files that hold it."""
        parts = [self._read(key) for key in keys]
        return self._projection(name).turned(parts[0] if len(keys) == 1 else torch.stack(parts))

    def edited(self, name: str, delta: LowRank) -> Tensor:
        """A weight with its update, as the model stores it, in ``storage_dtype``."""
        weight = self.matrix(name, self.places[name].keys).to(self.dtype)
        return self._projection(name).stored(summed(weight, delta, name, self.storage_dtype))

    @cached_property
    def _ends_in(self) -> Mapping[str, Sequence[str]]:
        """Names in the files by everything that they end in."""
        found: dict[str, list[str]] = {}
        for key in self.checkpoint.stored:
            parts = key.split(".")
            for at in range(len(parts)):
                found.setdefault(".".join(parts[at:]), []).append(key)
        return found

    def _projection(self, name: str) -> Projection:
        return self.anatomy.projection(self.checkpoint.empty, name)

    def _read(self, key: str) -> Tensor:
        file = self.checkpoint.stored[key].file
        with reading(self.name, file), safe_open(file, framework="pt") as inside:
            found: Tensor = inside.get_tensor(key)
        return found

    def _alike(self, name: str) -> Sequence[str]:
        """The files' names that end as a weight's does; where there is none, those of its experts."""
        whole = self._ends_in.get(self._ending(name), ())
        return whole or [key for part in self._parts(name) for key in part]

    def _parts(self, name: str) -> Sequence[Sequence[str]]:
        """Per expert the files' names of its tensors in a weight; nothing where one has none."""
        if self.anatomy.experts == 1:
            return ()
        alone = {name: self.checkpoint.empty.get_parameter(name)}
        each = [self._ends_in.get(self._ending(one), ()) for one in by_expert(self.checkpoint.empty, alone)]
        return each if all(each) else ()

    def refuse_gaps(self) -> frozenset[str]:
        """Refuse files that lack a weight of the model, or hold blocks that its configuration does not have.

        A load says so by itself, and an export loads nothing. What a library has renamed is known by its shape.

        Returns:
            Names in the files of what the model does not read.
        """
        empty, stored = self.checkpoint.empty, self.checkpoint.stored
        names: dict[Tensor, list[str]] = {}
        for name, parameter in empty.named_parameters(remove_duplicate=False):
            names.setdefault(parameter, []).append(name)  # of tied ones the files hold one
        read = {
            parameter: {key for name in called for key in self._alike(name)}
            for parameter, called in names.items()
        }
        unread = stored.keys() - set().union(*read.values())
        shapes = {tuple(stored[key].shape) for key in unread}
        missing = [names[one][0] for one, keys in read.items() if not keys and tuple(one.shape) not in shapes]
        refuse_missing(missing, self.name)
        refuse_blocks_left_out(self.checkpoint.folder / folder.CONFIG, empty.config, unread)
        lacking = {tuple(one.shape) for one, keys in read.items() if not keys}
        return frozenset(key for key in unread if tuple(stored[key].shape) not in lacking)

    def _ending(self, name: str) -> str:
        """What the files' name of a weight ends in, whatever its blocks are called there."""
        block = self.anatomy.family.blocks
        if name.startswith(f"{block}."):
            return f"{block.rpartition('.')[2]}{name.removeprefix(block)}"
        return ".".join(name.split(".")[-2:])

    def _place(self, name: str, digest: str) -> Place:
        there = self._projection(name)
        shape = tuple(there.module.get_parameter(there.parameter).shape)
        ending = self._ends_in.get(self._ending(name), ())
        whole = [key for key in ending if self.checkpoint.stored[key].shape == shape]
        alike = [(key,) for key in sorted(whole, key=lambda key: key != name)]
        alike += [] if alike else list(zip(*self._parts(name), strict=True))
        found = [Place(keys, sha256_of(self.matrix(name, keys).to(self.storage_dtype))) for keys in alike]
        if not found:
            raise ModelError(f"{self.checkpoint.files[0].parent} holds no weight {name}; name the base model")
        return next((place for place in found if place.sha256 == digest), found[0])


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
    unread = files.refuse_gaps()
    check_fit(files, patch)
    touched = {
        key: (name, at if len(keys) > 1 else None)
        for name in patch.factors
        for keys in [files.places[name].keys]
        for at, key in enumerate(keys)
    }
    size = 0
    with progress.step("Writing weights", total=len(found.files)) as bar:
        for file in found.files:
            size += _written(files, patch, touched, unread, file, target / file.name)
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


def _written(
    files: Files,
    patch: Patch,
    touched: Mapping[str, tuple[str, int | None]],
    unread: frozenset[str],
    source: Path,
    target: Path,
) -> int:
    """Write one file of weights anew; bytes of its tensors.

    Args:
        touched: by name in the files, which weight is edited there, and which expert's part of it.
        unread: names of tensors that the model does not read.
    """

    @lru_cache(maxsize=1)  # the parts of one weight mostly follow each other
    def edited(name: str) -> Tensor:
        return files.edited(name, patch.factors[name])

    def new(key: str, old: Tensor) -> Tensor:
        if key not in unread:  # such as the mask of an older GPT-NeoX, which is minus infinity
            refuse_not_finite(old, key, files.name)
        if key in touched:
            name, expert = touched[key]
            return edited(name) if expert is None else edited(name)[expert]
        return old.to(files.storage_dtype) if old.is_floating_point() else old

    with reading(files.name, source), safe_open(source, framework="pt") as inside:
        keys = list(inside.keys())
        tensors = {key: new(key, inside.get_tensor(key)).contiguous() for key in keys}
    save_file(tensors, target, metadata={"format": "pt"})
    return sum(tensor.nbytes for tensor in tensors.values())


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
        # `save_pretrained` refuses what a load takes with a warning, such as a temperature without sampling.
        model.model.generation_config.to_json_file(target / folder.GENERATION)
    model.tokenizer.save_pretrained(target)
