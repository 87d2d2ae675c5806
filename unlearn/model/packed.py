"""Checkpoints in 4 bits as bitsandbytes stores them: looked through as files, before a library acts on one.

A matrix is several tensors there: codes under its own name, and under longer ones the scales of its blocks, two tables,
and a JSON object about its shape. Native code goes by that object, and reads as many scales as it says that there are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import TypeGuard

from safetensors import safe_open

from unlearn.errors import ModelError
from unlearn.model.boundary import AGAIN, reading
from unlearn.model.described import Config, is_whole
from unlearn.model.folder import FOUR_BITS, Stored

ABOUT = ".quant_state.bitsandbytes__"
"""Between a matrix's name and that of its format, in the name of the tensor that holds the JSON object."""
BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Entries that share a scale."""
NESTED = 256
"""Scales of 8 bits that share one of their own."""
LONGEST = 4096
"""Bytes of the JSON object; it has less than 200."""
DTYPES = ("float32", "bfloat16", "float16")
_PARTS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")


@dataclass(frozen=True)
class _Packed:
    """One matrix."""

    key: str
    kind: str
    """``nf4`` or ``fp4``."""
    codes: Stored
    parts: Mapping[str, Stored]
    about: Config

    def whole(self) -> Stored:
        """The matrix that it stands for, (d_out, d_in).

        Raises:
            ModelError: its parts do not fit one another.
        """
        shape, block = self.about.get("shape"), self.about.get("blocksize")
        if self.about.get("quant_type") != self.kind or self.about.get("dtype") not in DTYPES:
            raise self._damaged("of another format than its name says")
        if not _is_shape(shape) or not is_whole(block) or block not in BLOCKS:
            raise self._damaged("without a shape, or blocks of a length that is used")
        numbers = prod(shape)
        blocks = ceil(numbers / block)
        wanted = {"absmax": ("F32", blocks), "quant_map": ("F32", 16)}
        if "nested_absmax" in self.parts:
            nested = {"nested_absmax": ("F32", ceil(blocks / NESTED)), "nested_quant_map": ("F32", 256)}
            wanted |= {"absmax": ("U8", blocks), **nested}
            if self.about.get("nested_blocksize") != NESTED or self.about.get("nested_dtype") != "float32":
                raise self._damaged(f"with scales in blocks of another length than {NESTED}")
            if not isinstance(self.about.get("nested_offset"), float):
                raise self._damaged("without the mean of its scales")
        if self.codes.dtype != "U8" or self.codes.numbers != ceil(numbers / 2):
            raise self._damaged(f"with {self.codes.numbers:,} bytes of codes for {numbers:,} numbers")
        found = {name: (part.dtype, part.numbers) for name, part in self.parts.items()}
        if found != wanted:
            wrong = next(name for name in _PARTS if found.get(name) != wanted.get(name))
            raise self._damaged(f"with {found.get(wrong, 'nothing')} for {wrong}, not {wanted.get(wrong)}")
        return replace(self.codes, dtype=self.kind.upper(), shape=tuple(shape))

    def _damaged(self, how: str) -> ModelError:
        return ModelError(f"{self.codes.file}: {self.key} is stored in 4 bits {how}; {AGAIN}")


def unpacked(stored: Mapping[str, Stored], name: str) -> dict[str, Stored]:
    """The tensors of a checkpoint, with matrices in 4 bits as what they stand for, of a dtype of ``FOUR_BITS``.

    Args:
        stored: as the headers have them.
        name: what the user calls the model.

    Raises:
        ModelError: the parts of one do not fit one another.
    """
    matrices = [_matrix(key, stored, name) for key in sorted(stored) if ABOUT in key]
    whole = {matrix.key: matrix.whole() for matrix in matrices}
    inside = {f"{matrix.key}.{part}" for matrix in matrices for part in matrix.parts}
    return {
        key: whole.get(key, tensor)
        for key, tensor in stored.items()
        if key not in inside and ABOUT not in key
    }


def _matrix(key: str, stored: Mapping[str, Stored], name: str) -> _Packed:
    matrix, _, kind = key.partition(ABOUT)
    about = stored[key]
    if (
        kind.upper() not in FOUR_BITS
        or matrix not in stored
        or about.dtype != "U8"
        or about.numbers > LONGEST
    ):
        raise ModelError(f"{about.file}: {key} belongs to no matrix in 4 bits; {AGAIN}")
    with reading(name, about.file), safe_open(about.file, framework="numpy") as inside:
        said = json.loads(inside.get_tensor(key).tobytes())
    if not isinstance(said, dict):
        raise ModelError(f"{about.file}: {key} should hold one JSON object; {AGAIN}")
    parts = {part: stored[f"{matrix}.{part}"] for part in _PARTS if f"{matrix}.{part}" in stored}
    return _Packed(matrix, kind, stored[matrix], parts, said)


def _is_shape(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and len(value) == 2 and all(is_whole(one) and one > 0 for one in value)
