"""Linear layers in 4 bits, as bitsandbytes computes with them, and updates that are put beside them.

A quantised matrix cannot take an update: the sum would have to be rounded to 16 values per block, and what is smaller
than the steps between them would be gone. So what a patch adds is computed beside the layer, ``left (right x)`` in
float32, added to its output in the dtype of that: what `peft` computes for a LoRA adapter of scaling 1. Whoever reads
such a layer's matrix gets a copy of what it is multiplied by, the update included.

The format: codes of 4 bits, two to a byte, for blocks of neighbouring entries that share a scale, which may be stored
in 8 bits itself (Dettmers et al., "QLoRA", 2023).
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from unlearn.algebra.low_rank import LowRank
from unlearn.errors import ModelError
from unlearn.patch import sha256_of

if TYPE_CHECKING:
    from types import ModuleType

    from bitsandbytes.nn import Linear4bit

LIBRARY = "bitsandbytes"
_ADDED = "_unlearn_added"
"""Attribute of a layer beside which an update is computed."""


class Added(NamedTuple):
    """What is computed beside a layer, on its device."""

    left: Tensor
    """(d_out, n), float32."""
    right: Tensor
    """(n, d_in), float32."""

    def dense(self) -> Tensor:
        """The update itself, (d_out, d_in)."""
        return self.left @ self.right


def library() -> ModuleType:
    """Import bitsandbytes, which is installed for whoever wants it.

    Raises:
        ModelError: it is not installed, or cannot be imported.
    """
    quiet()
    try:
        with _nothing_fetched():
            import bitsandbytes
    except (ImportError, OSError, RuntimeError) as problem:
        raise ModelError(
            f"weights in 4 bits need {LIBRARY} ({problem}); pip install 'unlearn[quantised]'"
        ) from problem
    found: ModuleType = bitsandbytes
    return found


def quiet() -> None:
    """Keep bitsandbytes from warning, when it is imported, of kernels that it did not find."""
    logging.getLogger(LIBRARY).setLevel(logging.ERROR)


@contextmanager
def _nothing_fetched() -> Iterator[None]:
    """Within it, the package ``kernels`` is not found: with it, bitsandbytes would fetch machine code of a hub."""
    held = sys.modules.get("kernels")
    sys.modules["kernels"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["kernels"]
        if held is not None:
            sys.modules["kernels"] = held


def is_packed(module: nn.Module) -> TypeGuard[Linear4bit]:
    """Whether a layer's matrix is stored in 4 bits."""
    known = sys.modules.get(LIBRARY)
    return known is not None and isinstance(module, known.nn.Linear4bit)


def packed(network: nn.Module) -> list[tuple[str, Linear4bit]]:
    """The layers of a model whose matrices are stored in 4 bits, with their paths."""
    return [(path, module) for path, module in network.named_modules() if is_packed(module)]


def settle(network: nn.Module, dtype: torch.dtype, name: str) -> None:
    """Let a model that was just loaded compute alike with gradients and without, and keep its weights as they are.

    On some processors bitsandbytes packs a matrix anew, in its place, for passes without gradients, and multiplies
    these in bfloat16. transformers leaves what is not quantised in the dtype of its file.

    Args:
        dtype: to compute in.
        name: what the user calls the model.

    Raises:
        ModelError: a layer that should be in 4 bits is not, or has another shape, or the output embedding is.
    """
    for parameter in network.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    layers = packed(network)
    for path, module in layers:
        module.support_avx512bf16_for_cpu = False
        module.compute_dtype, module.compute_type_is_set = dtype, True
        state = vars(module.weight).get("quant_state")
        if state is None or tuple(state.shape) != shape(module):
            raise ModelError(
                f"{name}: by the configuration {path}.weight should be {shape(module)} in 4 bits, and it is not; save "
                "the model anew"
            )
    if not layers:
        raise ModelError(f"{name}: its configuration says that it is quantised, and none of its weights is")
    head: nn.Module = network.get_output_embeddings()  # type: ignore[operator]
    if is_packed(head):
        raise ModelError(
            f"{name}: its output embedding is quantised, which is read as a matrix all the time; quantise it anew with "
            "lm_head among llm_int8_skip_modules"
        )


def described(network: nn.Module) -> str | None:
    """How many matrices of a model are of which format, such as ``nf4 210``; None where none is quantised."""
    counts = Counter(module.weight.quant_state.quant_type for _, module in packed(network))
    return ", ".join(f"{kind} {count}" for kind, count in counts.most_common()) or None


def matrix(module: Linear4bit) -> Tensor:
    """What inputs are multiplied by, (d_out, d_in), a copy in the dtype that the layer computes in."""
    state = copy.copy(module.weight.quant_state)
    state.dtype = module.compute_dtype
    found: Tensor = sys.modules[LIBRARY].functional.dequantize_4bit(module.weight.detach(), state)
    return found


def shape(module: Linear4bit) -> tuple[int, int]:
    """(d_out, d_in)."""
    return module.out_features, module.in_features


def parts(module: Linear4bit) -> list[Tensor]:
    """The live tensors that hold a matrix: codes, scales of its blocks, and tables."""
    state = module.weight.quant_state
    nested = [state.offset, state.state2.absmax, state.state2.code] if state.nested else []
    return [module.weight, state.absmax, state.code, *nested]


def sha256(module: Linear4bit) -> str:
    """SHA-256 of what is stored of a matrix: codes, scales, and what says how they are read."""
    held: Mapping[str, object] = module.weight.quant_state.as_dict(packed=False)
    plain = {key: value for key, value in held.items() if not isinstance(value, Tensor)}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    tensors = {key: value for key, value in held.items() if isinstance(value, Tensor)}
    for key, value in sorted({**tensors, "codes": module.weight.detach()}.items()):
        digest.update(f"{key} {sha256_of(value)}".encode())
    return digest.hexdigest()


def added(module: nn.Module) -> Added | None:
    """What is computed beside a layer at the moment."""
    found: Added | None = vars(module).get(_ADDED)
    return found


@contextmanager
def beside(module: nn.Module, delta: LowRank, name: str) -> Iterator[None]:
    """Within it, an update is computed beside a layer; arguments and errors are those of ``put_beside``."""
    handle = put_beside(module, delta, name)
    try:
        yield
    finally:
        handle.remove()
        del vars(module)[_ADDED]


def put_beside(module: nn.Module, delta: LowRank, name: str) -> RemovableHandle:
    """Have ``left (right x)`` added to a layer's output from now on; its weight stays as it is.

    Args:
        module: a linear layer, quantised or not.
        delta: (d_out, d_in).
        name: of its weight.

    Raises:
        ModelError: the update is not finite, or there is one already.
    """
    if added(module) is not None:
        raise ModelError(f"an update of {name} is computed beside it already; combine the two")
    weight: Tensor = module.weight.detach()  # type: ignore[operator, assignment]
    update = Added(*(factor.float().to(weight.device) for factor in (delta.left, delta.right)))
    if not all(torch.isfinite(factor).all() for factor in update):
        raise ModelError(f"the patch makes {name} non-finite; nothing was written")

    def add(_module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        # Under autocast the products have its dtype, whatever goes in.
        given = args[0] if torch.is_autocast_enabled(out.device.type) else args[0].float()
        return out + ((given @ update.right.T) @ update.left.T).to(out.dtype)

    vars(module)[_ADDED] = update
    return module.register_forward_hook(add)
