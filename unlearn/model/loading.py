"""From what the user calls a model to the transformers model, its tokenizer and the dtype of its checkpoint.

A folder is looked through as plain files first (``folder``, ``described``, ``stored``): what asks for code, a pickle or
absurd sizes is refused before a library acts on it. What the libraries raise after that names the file
(``boundary``), and a model that was loaded has to compute something once (``trial``).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from unlearn import embedded
from unlearn.errors import ModelError, PolicyError
from unlearn.files import exists
from unlearn.model import described, folder, fourbit, gguf, packed, placing, trial
from unlearn.model.anatomy import family_of
from unlearn.model.boundary import AGAIN, reading
from unlearn.model.folder import Stored, refuse_packed, stored_in
from unlearn.model.library import Configuration, Network, Tokenizer
from unlearn.model.memory import of_host, of_weights
from unlearn.model.templates import checked
from unlearn.policy import EMBEDDED
from unlearn.sums import Seat

RUNS = "it asks for code of its own, which is run for a model only, and only with --trust-remote-code"
CONTROL = "embedded-control"
"""The name of the other model that ships with this package: trained in the same way, without the hazard's facts."""


@dataclass(frozen=True)
class Checkpoint:
    """A model's files, looked through: all that stands there was read but the weights themselves."""

    name: str
    """What the user calls it."""
    folder: Path
    files: Sequence[Path]
    """Those of the weights."""
    stored: Mapping[str, Stored]
    """Their tensors, by the names that they have there."""
    empty: Network
    """The model without memory behind its weights."""
    tokenizer: Tokenizer
    device: str
    """To compute on."""
    dtype: torch.dtype
    """To compute in."""
    kept: torch.dtype
    """In which weights are edited and saved: the checkpoint's, or the narrower one that it is loaded in."""
    code: bool
    """Whether code that comes with it may run."""
    quantised: bool
    """Whether matrices are stored in 4 bits."""

    @property
    def fits(self) -> bool:
        """Whether all of the device's memory holds it; what is only too large for now ends in torch."""
        if self.device == "cpu":
            room = of_host()
        else:
            room = torch.cuda.get_device_properties(self.device).total_memory
        needed = of_weights(self.empty, self.dtype)
        if self.quantised:  # but for the embeddings, of which the files tell
            needed = max(needed // (2 * self.dtype.itemsize), sum(file.stat().st_size for file in self.files))
        return needed <= room


def checkpoint(
    name: str,
    device: str,
    dtype: str,
    trust_remote_code: bool,
    made_in: str | None,
    tokenizer: str = "auto",
    weights: bool = True,
) -> Checkpoint:
    """Look through the files of a model; arguments and errors are those of ``EditableModel.load``.

    Args:
        weights: look through those of the weights as well; otherwise there need be none, and none are fetched.
    """
    if dtype != "auto" and dtype_of(dtype) is None:
        raise PolicyError(f"--dtype {dtype}: use auto, float32, bfloat16 or float16")
    device = _device(device)
    apart = None if tokenizer == "auto" else tokenizer_at(tokenizer, trust_remote_code)
    where = place_of(name, apart)
    remedy = AGAIN if exists(where) else "is it a local folder, or a hub id that this machine can reach?"
    with reading(name, where, remedy):
        here = folder.found(where, trust_remote_code)
    config, said = _configuration(here, name, trust_remote_code)
    quantised = described.in_four_bits(said)
    if quantised:
        fourbit.library()
    files: Sequence[Path] = ()
    stored: Mapping[str, Stored] = {}
    if weights:
        with reading(name, where, remedy):
            files = folder.weight_files(here, where)
        stored = packed.unpacked(stored_in(files, name), name) if quantised else stored_in(files, name)
        described.refuse_misfit(here / folder.CONFIG, said, stored)
        refuse_packed(stored)
    wanted, kept = _dtypes(config, dtype, device, made_in)
    empty = _empty(name, here / folder.CONFIG, config, trust_remote_code)
    if weights:
        described.refuse_unlike(here / folder.CONFIG, empty, stored)
        if quantised:  # of which transformers draws what is missing, and cannot
            described.refuse_missing(described.missing(empty, family_of(config).blocks, stored), name)
    if apart is not None:
        trial.refuse_misfit(apart, trial.rows_of(empty), name)
    own = tokenizer_in(here, name, trust_remote_code) if apart is None else apart
    return Checkpoint(
        name, here, files, stored, empty, own, device, wanted, kept, trust_remote_code, quantised
    )


def loaded(
    name: str,
    device: str,
    dtype: str,
    trust_remote_code: bool,
    made_in: str | None,
    tokenizer: str = "auto",
    device_map: str | None = None,
) -> tuple[Network, Tokenizer, torch.dtype]:
    """Load a model from safetensors; arguments and errors are those of ``EditableModel.load``.

    Returns:
        The model on its device, its tokenizer, and the dtype of the checkpoint, or the narrower one that it was loaded
        in.
    """
    if device_map is not None and device != "auto":
        raise PolicyError(f"--device {device} and --device-map {device_map}: give one of the two")
    device = _device(device)
    try:
        found = checkpoint(name, device, dtype, trust_remote_code, made_in, tokenizer)
        places: placing.DeviceMap = {"": device}
        if device_map is None and not found.fits:
            raise _too_large(name, device)
        if device_map is not None and found.quantised:
            raise PolicyError(
                f"--device-map {device_map}: {name} is quantised, and lies on one device; leave it out"
            )
        if device_map is not None:
            places = placing.device_map(device_map, found.empty, found.dtype)
            placing.refuse_apart(places, found.empty, found.stored, name)
        where = found.files[0] if len(found.files) == 1 else found.folder / folder.INDEX
        with reading(name, where):
            model = _network(found, places)
        trial.tried(model, found.tokenizer, name)
    except (MemoryError, torch.OutOfMemoryError) as problem:
        raise _too_large(name, device) from problem
    trial.refusing_foreign(model, found.tokenizer, name)
    return model, found.tokenizer, found.kept


def _dtypes(
    config: Configuration, dtype: str, device: str, made_in: str | None
) -> tuple[torch.dtype, torch.dtype]:
    """The dtype to compute in, and the one in which weights are edited and saved."""
    declared = dtype_of(config.dtype) or torch.float32
    narrow = dtype_of(made_in)
    if narrow is not None and torch.promote_types(narrow, declared) == narrow:
        narrow = None
    wanted = dtype_of(dtype) or narrow or (torch.float32 if device == "cpu" else declared)
    # Where the dtype in use does not hold every number of the checkpoint, it is what is edited and saved.
    exact = torch.promote_types(wanted, declared) == wanted
    return wanted, declared if exact else wanted


def _network(found: Checkpoint, places: placing.DeviceMap) -> Network:
    from transformers import AutoModelForCausalLM

    here, name = found.folder, found.name
    model, loading = AutoModelForCausalLM.from_pretrained(
        here,
        dtype=found.dtype,
        use_safetensors=True,
        output_loading_info=True,
        trust_remote_code=found.code,
        device_map=dict(places) if len(places) > 1 or found.quantised else None,
    )
    if found.quantised:
        fourbit.settle(model, found.dtype, name)
    elif len(places) == 1:
        model = model.to(*places.values())
    described.refuse_missing(sorted(loading["missing_keys"]), name)
    described.refuse_blocks_left_out(here / folder.CONFIG, model.config, loading["unexpected_keys"])
    return model


def place_of(name: str, tokenizer: Tokenizer | None = None) -> str:
    """Return where a model lies: the folder of one that ships with this package or was a GGUF file, or its own name.

    Args:
        tokenizer: is taken in the place of a GGUF file's own.
    """
    if name in (EMBEDDED, CONTROL):
        return str(embedded.path(name == CONTROL))
    file = gguf.find(name)
    return name if file is None else str(gguf.folder_of(file, tokenizer))


def tokenizer_at(place: str, code: bool) -> Tokenizer:
    """Return a tokenizer that is given apart from its model.

    Args:
        place: a local folder, which may be that of another model, or a hub id.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    remedy = AGAIN if exists(place) else "is it a local folder, or a hub id that this machine can reach?"
    with reading(place, place, remedy, "cannot load the tokenizer of"):
        here = folder.found(place, code)
    tokenizer = tokenizer_in(here, place, code)
    tokenizer.name_or_path = place
    return tokenizer


def tokenizer_in(here: Path, name: str, code: bool) -> Tokenizer:
    """Return the tokenizer of a folder; its chat template was looked at.

    Args:
        here: the folder, looked through.

    Raises:
        ModelError: there is none, it cannot be read, or its chat template cannot be used.
    """
    from transformers import AutoTokenizer

    files = folder.vocabularies(here)
    if not files:
        raise ModelError(
            f"{here} has no tokenizer: save the model's own beside its weights, with tokenizer.json, or give it with "
            "--tokenizer"
        )
    settings = here / folder.TOKENIZER
    own = settings.exists() and "auto_map" in folder.read_object(settings)
    with reading(name, files[0], RUNS if own and not code else AGAIN):
        tokenizer = AutoTokenizer.from_pretrained(here, trust_remote_code=code)
    checked(tokenizer)
    return tokenizer


def dtype_of(name: object) -> torch.dtype | None:
    """The dtype that a name, such as ``bfloat16`` or ``torch.bfloat16``, stands for; None for one of no model."""
    if isinstance(name, torch.dtype):
        return name
    found = getattr(torch, str(name).removeprefix("torch."), None) if name is not None else None
    return found if found in (torch.float32, torch.bfloat16, torch.float16) else None


def _configuration(here: Path, name: str, code: bool) -> tuple[Configuration, described.Config]:
    """The configuration of an editable model as transformers has it, and as it stands in the file."""
    from transformers import AutoConfig

    path = here / folder.CONFIG
    said = folder.read_object(path)
    described.refuse_requests(path, said)
    described.refuse_sizes(path, said)
    described.refuse_tokens(path, said)
    generation = here / folder.GENERATION
    if generation.exists():
        described.refuse_tokens(generation, folder.read_object(generation))
    with reading(name, path, RUNS if "auto_map" in said and not code else AGAIN):
        config = AutoConfig.from_pretrained(here, trust_remote_code=code)
        family_of(config)  # refused before its weights are fetched and read
    return config, said


def _empty(name: str, path: Path, config: Configuration, code: bool) -> Network:
    """A model without memory behind its weights, as its configuration (in the file ``path``) describes it."""
    from transformers import AutoModelForCausalLM

    with reading(name, path), torch.device("meta"):
        empty: Network = AutoModelForCausalLM.from_config(copy.deepcopy(config), trust_remote_code=code)
    return empty


def _device(name: str) -> str:
    if name in ("auto", "cuda") and torch.cuda.is_available() and (seat := Seat.taken()).size > 1:
        return f"cuda:{seat.local % torch.cuda.device_count()}"
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise PolicyError(f"--device {name}: use auto, cpu, cuda, or cuda and a number such as cuda:1")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"--device {name}: this machine has no CUDA device; use --device cpu")
    return name


def _too_large(name: str, device: str) -> ModelError:
    return ModelError(f"{name} does not fit on {device}; use a larger device or --dtype bfloat16")
