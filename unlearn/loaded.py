"""Loading the models of a run: the one that is edited, and a candidate as what it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unlearn import threads
from unlearn.errors import UnlearnError
from unlearn.files import exists, sha256_of_file
from unlearn.order import Means, Placement
from unlearn.policy import Policy
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.runs import manifest
from unlearn.runs.folder import PATCH

if TYPE_CHECKING:
    from unlearn.model.editable import EditableModel
    from unlearn.model.loading import Checkpoint
    from unlearn.patch import Patch


def load_model(
    name: str,
    placement: Placement = Placement(),  # noqa: B008 - frozen
    patch: Patch | None = None,
    progress: Progress = NO_PROGRESS,
    tokenizer: str = "auto",
) -> EditableModel:
    """Load a model that can be edited.

    Args:
        name: ``embedded``, a local folder, a GGUF file or a hub id.
        placement: device and dtype, and whether code that comes with the model is run.
        patch: is to go on the model, which is then loaded in the dtype that the patch was made in.
        progress: where to show it.
        tokenizer: ``auto`` for the model's own, or a folder or hub id that has another.

    Raises:
        ModelError: it cannot be found, read, or edited; or the tokenizer is of another model.
        PolicyError: a device or dtype of no such name.

    Examples:
        >>> import unlearn
        >>> model = unlearn.load_model("embedded", unlearn.Placement(device="cpu"))
        >>> model.name, model.anatomy.layers
        ('embedded', 6)
    """
    _quietly()
    from unlearn.model.editable import EditableModel

    with progress.step(f"Loading {name}"):
        made_in = None if patch is None else patch.storage_dtype
        return EditableModel.load(
            name,
            placement.device,
            placement.dtype,
            placement.trust_remote_code,
            made_in,
            tokenizer,
            placement.device_map,
        )


def checkpoint_of(
    name: str,
    placement: Placement,
    patch: Patch | None = None,
    tokenizer: str = "auto",
    weights: bool = True,
) -> Checkpoint:
    """Look through a model's files without reading its weights; arguments and errors are those of `load_model`.

    Args:
        weights: look through those of the weights as well; otherwise there need be none, and none are fetched.
    """
    _quietly()
    from unlearn.model.loading import checkpoint

    made_in = None if patch is None else patch.storage_dtype
    where = (placement.device, placement.dtype, placement.trust_remote_code)
    return checkpoint(name, *where, made_in, tokenizer, weights)


def model_or_outline(
    name: str, placement: Placement, patch: Patch | None, progress: Progress, tokenizer: str
) -> EditableModel:
    """Load a model; where its folder holds no weights, or they are more than all memory, take what outlines it.

    Arguments and errors are those of `load_model`; a `device_map` finds room for weights elsewhere.
    """
    from unlearn.model.folder import is_bare
    from unlearn.model.outline import Outline

    found = checkpoint_of(name, placement, patch, tokenizer, weights=False)
    here = exists(name)  # weights of a hub id can be fetched
    if here and is_bare(found.folder):
        return Outline(found)
    if not (found.fits or placement.device_map):
        # Weights that are here are looked through: sizes that are not theirs would be planned for, however absurd.
        return Outline(checkpoint_of(name, placement, patch, tokenizer) if here else found)
    return load_model(name, placement, patch, progress, tokenizer)


def _quietly() -> None:
    """Settle torch's threads and transformers' chatter, before anything of a model is read."""
    threads.settle()  # the last moment for a program that has not imported torch by itself
    from transformers.utils import logging as chatter

    from unlearn.model import fourbit

    # The environment does the same, unless transformers was imported before.
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    fourbit.quiet()  # peft imports it where it is installed


class Judged(NamedTuple):
    """A candidate, and the unedited model that it is compared with."""

    base: EditableModel
    candidate: Patch | EditableModel
    said: Mapping[str, object]
    """What the candidate is, for a manifest."""


def judged_of(candidate: str, policy: Policy, means: Means) -> Judged:
    """Load the policy's model, and what is to be compared with it.

    Args:
        candidate: a run directory, a patch, a model's folder or hub id, or an adapter of the policy's model.
    """
    from unlearn.patch import Patch

    # In full: whoever reads the manifest may stand elsewhere.
    candidate = str(Path(candidate).absolute()) if exists(candidate) else candidate
    file = _patch_in(Path(candidate))
    patch = None if file is None else Patch.load(file)
    base = load_model(policy.model, means.placement, patch, means.progress, policy.tokenizer)
    if patch is not None and file is not None:
        return Judged(base, patch, {"patch": candidate, "sha256": sha256_of_file(file)})
    # At once, so that a candidate that cannot be loaded is noticed before the base model is measured.
    return Judged(base, *candidate_of(candidate, policy, base, means))


def _patch_in(candidate: Path) -> Path | None:
    """The patch of what is to be audited: a file, or that of a run directory; None where it is a model or an adapter.

    Raises:
        UnlearnError: a patch lies beside a model or an adapter, so that nobody knows which of them is meant.
    """
    from unlearn.model.folder import ADAPTER, CONFIG
    from unlearn.model.gguf import SUFFIX

    if not candidate.is_dir():
        return candidate if candidate.is_file() and candidate.suffix != SUFFIX else None
    file = candidate / PATCH
    if not file.exists():
        return None
    if manifest.is_run(candidate) and not any((candidate / name).exists() for name in (CONFIG, ADAPTER)):
        return file
    raise UnlearnError(
        f"{candidate} holds a {PATCH} beside something else than a run: name that file to judge the patch, or take it "
        "out to judge what else lies there"
    )


def candidate_of(
    candidate: str, policy: Policy, base: EditableModel, means: Means
) -> tuple[EditableModel, dict[str, object]]:
    """Load a candidate that is a whole model, or an adapter of the policy's model; and say what it is."""
    from unlearn.model.folder import lacks_tokenizer
    from unlearn.model.merged import ADAPTER, WEIGHTS, is_adapter, with_adapter

    folder = Path(candidate)
    if not is_adapter(folder):
        apart = policy.tokenizer if lacks_tokenizer(folder) else "auto"
        edited = load_model(candidate, means.placement.beside(base), None, means.progress, apart)
        return edited, base_of(edited)
    # A copy of its own: the unedited model is needed as it is.
    base = load_model(policy.model, means.placement, None, means.progress, policy.tokenizer)
    edited = with_adapter(base, folder)
    files = {name: sha256_of_file(folder / name) for name in (ADAPTER, WEIGHTS)}
    return edited, {**base_of(edited), "adapter_of": policy.model, "adapter": files}


def about_model(model: EditableModel) -> dict[str, object]:
    """What a manifest says of a model and of the machine that it ran on."""
    import torch

    from unlearn.model.narrow import dtype_of_products

    cuda = model.device.type == "cuda"
    device = torch.cuda.get_device_name(model.device) if cuda else str(model.device)
    others = sorted(set(map(str, getattr(model.model, "hf_device_map", {}).values())))
    device += f" ({', '.join(others)})" if len(others) > 1 else ""
    dtypes = (str(dtype).removeprefix("torch.") for dtype in (model.dtype, dtype_of_products(model)))
    hardware = manifest.hardware(device, *dtypes)
    return {"base": base_of(model), "hardware": hardware}


def base_of(model: EditableModel) -> dict[str, object]:
    """Describe a model for a manifest: JSON values."""
    from unlearn.model.gguf import origin_of
    from unlearn.model.offload import numbers

    config = model.model.config
    origin = origin_of(config.to_dict())
    return {
        "name": model.name,
        "family": str(getattr(config, "model_type", "")),
        "parameters": numbers(model.model),
        "tokenizer": model.tokenizer_of,
        "identity": model.identity(),
        "weights": model.fingerprint(),
        **({} if origin is None else {"origin": asdict(origin)}),
        **({} if model.quantised is None else {"quantised": model.quantised}),
    }
