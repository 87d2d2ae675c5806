"""The edit as a document: low-rank factors per weight, where they came from, and which weights they fit.

An update ``delta = left @ right`` of n columns is stored as its factors (safetensors, JSON header).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unlearn.algebra.low_rank import LowRank
from unlearn.errors import PatchError
from unlearn.files import exists, opened

FORMAT = "unlearn-patch-1"
STATE = "state."
"""What the names of state tensors begin with in the file; no weight's name does."""


@dataclass(frozen=True)
class Patch:
    """An edit of some weights of one model."""

    factors: Mapping[str, LowRank]
    """By weight name; every matrix is (d_out, d_in), whatever the model stores."""
    base: Mapping[str, str]
    """SHA-256 of each touched weight before the edit. The patch refuses any other model."""
    header: Mapping[str, Any] = field(default_factory=dict)
    """Provenance: model, method, settings, seed, versions, diagnostics. JSON values only."""
    state: Mapping[str, Tensor] = field(default_factory=dict)
    """What a later edit on top of this one needs: ``keys.<layer>`` (d_in, n), keys that it must keep."""

    @property
    def storage_dtype(self) -> str | None:
        """Dtype of the weights that it was computed on, such as ``torch.bfloat16``; None where it does not say."""
        found = self.header.get("storage_dtype")
        return found if isinstance(found, str) else None

    def save(self, path: Path) -> None:
        """Write one safetensors file; the directory must exist."""
        tensors = {}
        for name, factor in self.factors.items():
            tensors[f"{name}.left"] = factor.left.detach().float().cpu().contiguous()
            tensors[f"{name}.right"] = factor.right.detach().float().cpu().contiguous()
        for name, tensor in self.state.items():
            tensors[f"{STATE}{name}"] = tensor.detach().float().cpu().contiguous()
        about = {
            "format": FORMAT,
            "base": json.dumps(dict(self.base)),
            "header": json.dumps(dict(self.header)),
        }
        save_file(tensors, path, metadata=about)

    @classmethod
    def load(cls, path: Path) -> Patch:
        """Read a patch.

        Raises:
            PatchError: the file is missing, is no patch, or is damaged.
        """
        if not exists(path):
            raise PatchError(f"there is no patch at {path}")
        with opened(path, "the patch", PatchError):
            pass  # safetensors would wait for whatever a pipe brings
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                if about.get("format") != FORMAT:
                    raise PatchError(f"{path} is not a patch written by this program")
                stored = set(file.keys())
                kept = sorted(key for key in stored if key.startswith(STATE))
                names = sorted({key.rpartition(".")[0] for key in stored.difference(kept)})
                factors = {
                    n: _factor(n, file.get_tensor(f"{n}.left"), file.get_tensor(f"{n}.right")) for n in names
                }
                state = {key.removeprefix(STATE): file.get_tensor(key) for key in kept}
                base, header = (json.loads(about[name]) for name in ("base", "header"))
                if not isinstance(base, dict) or not isinstance(header, dict):
                    raise ValueError("its header is none")
                return cls(factors, base, header, state)
        except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as problem:
            raise PatchError(f"{path} cannot be read as a patch: {problem}") from None


def _factor(name: str, left: Tensor, right: Tensor) -> LowRank:
    both = (left, right)
    if any(t.ndim != 2 or not t.is_floating_point() for t in both) or left.shape[1] != right.shape[0]:
        raise ValueError(f"the factors of {name} do not fit each other")
    return LowRank(left, right)


def sha256_of(tensor: Tensor) -> str:
    """SHA-256 of a tensor's shape and bytes."""
    flat = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(str((tuple(flat.shape), str(flat.dtype))).encode())
    digest.update(flat.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
