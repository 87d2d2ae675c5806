"""The edit as a document: low-rank factors per weight, where they came from, and which weights they fit.

An update ``delta = left @ right`` of n columns is stored as its factors (safetensors, JSON header).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unlearn.algebra.low_rank import LowRank
from unlearn.errors import PatchError
from unlearn.files import Json, JsonObject, exists, opened

FORMAT = "unlearn-patch-2"
ABOUT = "patch"
"""The file's one metadata entry: safetensors writes several in another order every time, and one edit would have
many hashes."""
STATE = "state."
"""What the names of state tensors begin with in the file; no weight's name does."""
SIDES = ("left", "right")
_SHA256 = re.compile("[0-9a-f]{64}")


class Deltas(Protocol):
    """What ``patched`` needs of a patch."""

    @property
    def factors(self) -> Mapping[str, LowRank]:
        """Updates by weight name."""

    @property
    def base(self) -> Mapping[str, str] | None:
        """SHA-256 of the weights that they were made for; None for an update that is being made on this very model."""

    @property
    def header(self) -> Mapping[str, object]:
        """Provenance; a text under ``system`` is put before every prompt (``unlearn.model.guard``)."""


@dataclass(frozen=True)
class Patch:
    """An edit of some weights of one model.

    Examples:
        With the ``patch`` of the example of ``edit``:

        >>> patch.save("patch.safetensors")
        >>> again = unlearn.Patch.load("patch.safetensors")
        >>> again.base == patch.base, again.header == patch.header
        (True, True)
    """

    factors: Mapping[str, LowRank]
    """By weight name; every matrix is (d_out, d_in), whatever the model stores."""
    base: Mapping[str, str]
    """SHA-256 of each touched weight before the edit; of any weights where none is touched. The patch refuses any
    other model."""
    header: Mapping[str, Json] = field(default_factory=dict)
    """Provenance: model, method, settings, seed, versions, diagnostics. JSON values only."""
    state: Mapping[str, Tensor] = field(default_factory=dict)
    """What a later edit on top of this one needs: ``keys.<layer>`` (d_in, n), keys that it must keep."""

    @property
    def storage_dtype(self) -> str | None:
        """Dtype of the weights that it was computed on, such as ``torch.bfloat16``; None where it does not say."""
        found = self.header.get("storage_dtype")
        return found if isinstance(found, str) else None

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all, the same bytes for the same patch; its folder must exist."""
        tensors = {f"{STATE}{name}": tensor for name, tensor in self.state.items()}
        for name, factor in self.factors.items():
            tensors |= {f"{name}.left": factor.left, f"{name}.right": factor.right}
        plain = {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
        about = {"format": FORMAT, "base": dict(self.base), "header": dict(self.header)}
        path = Path(path)
        partial = path.with_name(f".partial-{path.name}")
        try:
            save_file(plain, partial, metadata={ABOUT: json.dumps(about, sort_keys=True)})
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> Patch:
        """Read a patch.

        Raises:
            PatchError: the file is missing, is no patch, is damaged, or does not say which weights it fits.
        """
        path = Path(path)
        if not exists(path):
            raise PatchError(f"there is no patch at {path}")
        with opened(path, "the patch", PatchError):
            pass  # safetensors would wait for whatever a pipe brings
        try:
            with safe_open(path, framework="pt") as file:
                base, header = _about(file.metadata() or {}, path)
                tensors = {key: file.get_tensor(key) for key in sorted(file.keys())}
            state = {key.removeprefix(STATE): t for key, t in tensors.items() if key.startswith(STATE)}
            factors = _factors({key: t for key, t in tensors.items() if not key.startswith(STATE)})
            _sound(factors, state)
            if problem := unhashed(factors, base):
                raise ValueError(problem)
            return cls(factors, base, header, state)
        except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as problem:
            raise PatchError(f"{path} cannot be read as a patch: {problem}") from None


def unhashed(factors: Mapping[str, LowRank], base: Mapping[str, str]) -> str | None:
    """Why hashes do not tie an update to one model: there must be one for each weight that it changes, and no other.

    A patch that changes nothing (a guard, or no edit at all) may name any weights, and names at least one.

    Returns:
        One sentence, or None where they do.
    """
    bare, foreign = sorted(factors.keys() - base.keys()), sorted(base.keys() - factors.keys())
    if bare:
        return (
            f"it has no hash of {len(bare)} of the {len(factors)} weights that it changes (first: {bare[0]})"
        )
    if not base:
        return "it has no hash of any weight, so it would fit every model"
    if factors and foreign:
        return f"it has hashes of {len(foreign)} weights that it does not change (first: {foreign[0]})"
    wrong = sorted(name for name, digest in base.items() if not _is_sha256(digest))
    return f"the hash of {wrong[0]} is no SHA-256" if wrong else None


def _is_sha256(digest: object) -> bool:
    return isinstance(digest, str) and bool(_SHA256.fullmatch(digest))


def _about(metadata: Mapping[str, str], path: Path) -> tuple[dict[str, str], JsonObject]:
    """The hashes and the header."""
    about = json.loads(metadata.get(ABOUT, "null"))
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise PatchError(f"{path} is not a patch written by this program")
    base, header = about.get("base"), about.get("header")
    if not isinstance(base, dict) or not isinstance(header, dict):
        raise ValueError("its header is none")
    return base, header


def _factors(tensors: Mapping[str, Tensor]) -> dict[str, LowRank]:
    names = sorted({key.rpartition(".")[0] for key in tensors})
    alone = tensors.keys() ^ {f"{name}.{side}" for name in names for side in SIDES}
    if alone:
        raise ValueError(f"it has {min(alone)} without its other factor, or too much")
    return {name: _factor(name, tensors[f"{name}.left"], tensors[f"{name}.right"]) for name in names}


def _factor(name: str, left: Tensor, right: Tensor) -> LowRank:
    both = (left, right)
    if any(t.ndim != 2 for t in both) or left.shape[1] != right.shape[0] or not left.numel() * right.numel():
        raise ValueError(f"the factors of {name} do not fit each other")
    return LowRank(left, right)


def _sound(factors: Mapping[str, LowRank], state: Mapping[str, Tensor]) -> None:
    for name, factor in factors.items():
        _numbers(name, factor.left, factor.right)
    for name, tensor in state.items():
        _numbers(f"{STATE}{name}", tensor)


def _numbers(name: str, *tensors: Tensor) -> None:
    """Refuse what this program does not write: anything but finite float32."""
    if any(tensor.dtype != torch.float32 for tensor in tensors):
        raise ValueError(f"{name} is not in float32")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise ValueError(f"{name} holds numbers that are not finite")


def sha256_of(tensor: Tensor) -> str:
    """SHA-256 of a tensor's shape and bytes."""
    flat = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(str((tuple(flat.shape), str(flat.dtype))).encode())
    digest.update(flat.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
