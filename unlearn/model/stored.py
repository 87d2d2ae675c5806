"""What the headers of safetensors files say of the tensors in them; no tensor is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from safetensors import safe_open

from unlearn.errors import ModelError
from unlearn.model.boundary import AGAIN, reading

WHOLE = frozenset({"F64", "F32", "F16", "BF16"})
"""Names, in a header, of the dtypes in which models are edited."""


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
        if name.endswith("weight") and tensor.dtype not in WHOLE:
            raise ModelError(
                f"{tensor.file}: {name} is stored as {tensor.dtype}, in which no model is edited (quantised?); take "
                "the checkpoint in float32, bfloat16 or float16"
            )
