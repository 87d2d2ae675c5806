"""A model's folder: found or fetched, and looked through before a library reads what lies in it.

Only weights in safetensors are ever read, and of these first the headers. A pickle is a program, and whoever unpickles
it runs it.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePath

from safetensors import safe_open

from unlearn.errors import ModelError
from unlearn.files import MIB, exists, opened, read_json, read_text
from unlearn.model.boundary import AGAIN, reading

CONFIG = "config.json"
GENERATION = "generation_config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer_config.json"
ADAPTER = "adapter_config.json"
TEMPLATE = ".jinja"
MOST = 64 * MIB
"""Bytes of a JSON file about a model; the index of the largest has 10 MiB."""

_TEXTS = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
_ELSEWHERE = ("*/*.json", "*/*.txt", "*/*.model", "*/*.tiktoken")
_READ = (".json", ".txt", ".model", ".tiktoken", ".safetensors")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_BOM = b"\xef\xbb\xbf"
_POINTER = b"version https://git-lfs"


def found(name: str, code: bool) -> Path:
    """Return the folder of a model; of a hub id everything but the weights is fetched into the hub's own cache.

    Args:
        name: a folder or a hub id.
        code: fetch Python code, too.

    Raises:
        ModelError: it is a file, or there is something in the folder that cannot be read like a file.
        Exception: whatever the hub's client says of an id that cannot be had.
    """
    here = Path(name)
    if not exists(name) and (here.is_absolute() or name.startswith((".", "~")) or len(here.parts) > 2):
        raise ModelError(f"there is no folder {name}")
    if not exists(name):
        from huggingface_hub import snapshot_download

        wanted = [*_TEXTS, "*.py"] if code else list(_TEXTS)
        here = Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=list(_ELSEWHERE)))
    if not here.is_dir():
        raise ModelError(f"{here} is no folder; name the folder of a model, with {CONFIG} and {SINGLE}")
    look_through(here)
    return here


def look_through(folder: Path) -> None:
    """Refuse a folder in which something that a library would open is no file: a pipe never ends.

    Raises:
        ModelError: naming the first; also for an adapter beside a model, which transformers would load unasked.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix == TEMPLATE:
            read_text(path, most=MOST, error=ModelError)
        elif path.suffix in _READ:
            with opened(path, error=ModelError):
                pass
    if (folder / ADAPTER).exists() and (folder / CONFIG).exists():
        raise ModelError(
            f"{folder / ADAPTER}: an adapter beside a whole model, which would be put on it unasked; move it into a "
            f"folder of its own, or remove it if {SINGLE} has it merged"
        )


def read_object(path: Path) -> dict[str, object]:
    """Return what a JSON file about a model holds.

    Raises:
        ModelError: it is missing, is no JSON object, or begins with what transformers does not read.
    """
    about = read_json(path, most=MOST, error=ModelError)
    if not isinstance(about, dict):
        raise ModelError(f"{path}: it should hold one JSON object; {AGAIN}")
    with opened(path, error=ModelError) as file:
        if file.read(len(_BOM)) == _BOM:
            raise ModelError(
                f"{path} begins with a byte order mark, which transformers does not read; save it without"
            )
    return about


def vocabularies(folder: Path) -> list[Path]:
    """Return the files of a folder from which a tokenizer is made, the one that is preferred first."""
    named = [folder / one for one in ("tokenizer.json", "vocab.json", "vocab.txt")]
    return [path for path in (*named, *folder.glob("*.model"), *folder.glob("*.tiktoken")) if path.exists()]


def lacks_tokenizer(folder: Path) -> bool:
    """Whether a local folder of a model has none of its own."""
    return folder.is_dir() and not vocabularies(folder)


def weight_files(folder: Path, name: str) -> list[Path]:
    """Return the files of a model's weights, in the order in which they are read; those of a hub id are fetched.

    Raises:
        ModelError: there are none in safetensors, or the index names others or other folders' files.
        Exception: whatever the hub's client says of files that cannot be had.
    """
    sharded = (folder / INDEX).exists() and not (folder / SINGLE).exists()
    names = _indexed(folder / INDEX) if sharded else [SINGLE]
    if not exists(name):
        from huggingface_hub import snapshot_download

        snapshot_download(name, revision=folder.name, allow_patterns=[glob.escape(one) for one in names])
    files = [folder / one for one in names]
    for file in files:
        if not file.exists():
            raise ModelError(_missing(file, sharded))
        with opened(file, error=ModelError) as inside:
            if inside.read(len(_POINTER)) == _POINTER:
                raise ModelError(
                    f"{file} is a pointer of Git LFS and not the file itself; run `git lfs pull`"
                )
    return files


def is_bare(folder: Path) -> bool:
    """Whether a folder holds no weights in any form, nor a list of their files."""
    names = [path.name for path in folder.iterdir()]
    whole = any(name == INDEX or name.endswith(".safetensors") for name in names)
    return not whole and not _pickles(names)


def _indexed(index: Path) -> list[str]:
    about = read_object(index)
    held = about.get("weight_map")
    if not isinstance(about.get("metadata"), dict):
        raise ModelError(f"{index}: it has no metadata, which transformers needs; {AGAIN}")
    if not isinstance(held, dict) or not held or not all(isinstance(one, str) for one in held.values()):
        raise ModelError(f"{index}: weight_map should give the file of every weight; {AGAIN}")
    names = sorted(set(held.values()))
    for one in names:
        if not one.endswith(".safetensors"):
            raise ModelError(
                f"{index} names {one!r}, which is not in safetensors; a pickle can run code when it is read, so it "
                "never is: convert the weights to safetensors"
            )
        if PurePath(one).name != one or "\\" in one:
            raise ModelError(f"{index} names {one!r}, which lies outside of the model's folder; {AGAIN}")
    return names


def _missing(file: Path, sharded: bool) -> str:
    if sharded:
        return f"{file} is missing, and {INDEX} names it; {AGAIN}"
    pickles = _pickles(sorted(path.name for path in file.parent.iterdir()))
    why = (
        f" (only {pickles[0]}, a pickle, which can run code when it is read and never is)" if pickles else ""
    )
    return f"{file.parent} has no weights in safetensors{why}; save them as {SINGLE}"


def _pickles(names: Sequence[str]) -> list[str]:
    return [name for name in names if PurePath(name).suffix in _PICKLES or name.endswith(".bin.index.json")]


WHOLE = frozenset({"F64", "F32", "F16", "BF16"})
"""Names, in a header, of the dtypes in which models are edited."""
FOUR_BITS = frozenset({"NF4", "FP4"})
"""Formats of matrices that are several tensors in a file (``unlearn.model.packed``); no header has such a dtype."""


@dataclass(frozen=True)
class Stored:
    """A tensor in a file."""

    file: Path
    dtype: str
    """As the header has it: ``F32``, ``BF16``, ``I8`` ..."""
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


def stored_in(
    files: Sequence[Path], name: str, outcome: str = "cannot load the model"
) -> Mapping[str, Stored]:
    """Return the tensors of safetensors files, by name.

    Raises:
        ModelError: a header is damaged or does not fit its file, or a tensor is in two files.
    """
    found: dict[str, Stored] = {}
    for file in files:
        with reading(name, file, outcome=outcome), safe_open(file, framework="numpy") as inside:
            for key in inside.keys():  # noqa: SIM118 - it is no mapping
                if key in found:
                    raise ModelError(f"{file}: {key} is also in {found[key].file.name}; {AGAIN}")
                part = inside.get_slice(key)
                found[key] = Stored(file, part.get_dtype(), tuple(part.get_shape()))
    if not found:
        raise ModelError(f"{files[0]}: it holds no tensors; {AGAIN}")
    return found


def refuse_packed(stored: Mapping[str, Stored]) -> None:
    """Refuse weights that are not floating-point numbers as they stand.

    Raises:
        ModelError: naming the first.
    """
    for name, tensor in stored.items():
        # Old checkpoints keep attention masks, which are no weights, as bytes.
        if name.endswith("weight") and tensor.dtype not in WHOLE | FOUR_BITS:
            raise ModelError(
                f"{tensor.file}: {name} is stored as {tensor.dtype}, in which no model is edited (quantised?); take "
                "the checkpoint in float32, bfloat16 or float16"
            )
