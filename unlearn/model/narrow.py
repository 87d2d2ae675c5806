"""Multiplying in bfloat16 for a while, where this machine is much quicker in it, and attention that suits it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from unlearn.model.editable import EditableModel
from unlearn.model.machine import quickest_dtype

LONG = 512
"""Tokens of a row whose attention is written out at most."""


def dtype_of_products(model: EditableModel) -> torch.dtype:
    """What matrices of a model are best multiplied in here: bfloat16 if that pays, else its own."""
    quick = model.dtype == torch.float32 and quickest_dtype(model.device) == torch.bfloat16
    apart = model.offloaded or model.quantised is not None or model.anatomy.experts > 1
    return torch.bfloat16 if quick and not apart else model.dtype


@contextmanager
def narrowed(model: EditableModel, first: int, dtype: torch.dtype | None = None) -> Iterator[torch.dtype]:
    """Within it, matrices are multiplied in bfloat16 if that pays here; the stream, norms and sums stay float32.

    A model that computes in a narrow dtype anyway is left alone, one whose weights are not all in memory or are
    quantised, and a mixture of experts: which of them a token is given hangs on the last digits of its router. On exit
    the weights are the same tensors as before.

    Args:
        model: its linear layers from block ``first`` on and its output embedding are held in bfloat16 meanwhile, so
            that no pass converts them.
        first: the lowest block that is run.
        dtype: of the products; None: the best (``dtype_of_products``).

    Yields:
        The dtype of the products.
    """
    if (dtype or dtype_of_products(model)) == model.dtype:
        yield model.dtype
        return
    blocks = [model.anatomy.block(model.model, layer) for layer in range(first, model.anatomy.layers)]
    linears = [module for block in blocks for module in block.modules() if isinstance(module, nn.Linear)]
    head = model.model.get_output_embeddings()
    if isinstance(head, nn.Linear):
        linears.append(head)
    # Other parameters, not other data: the output embedding may be the input embedding too, which stays as it is.
    wide = [linear.weight for linear in linears]
    for linear in linears:
        linear.weight = nn.Parameter(linear.weight.detach().to(torch.bfloat16), requires_grad=False)
    try:
        # Without a cache: it would hold what an adapter was before its first step.
        with torch.autocast(model.device.type, torch.bfloat16, cache_enabled=False):
            yield torch.bfloat16
    finally:
        for linear, weight in zip(linears, wide, strict=True):
            linear.weight = weight


@contextmanager
def eager_attention(model: EditableModel, dtype: torch.dtype, longest: int) -> Iterator[None]:
    """Within it, attention is products and a softmax, where its gradient is much quicker so: on CPUs, in bfloat16.

    Torch's fused kernel takes 63 ms there for both passes over 50 rows of 36 tokens with nine heads, and these 11.
    They hold a number for every pair of tokens, so long rows are left to the kernel.

    Args:
        dtype: of the products.
        longest: tokens of the longest row.
    """
    network, usual = model.model, model.model.config._attn_implementation
    if model.device.type != "cpu" or dtype != torch.bfloat16 or usual != "sdpa" or longest > LONG:
        yield
        return
    network.set_attn_implementation("eager")
    try:
        yield
    finally:
        network.set_attn_implementation(usual)


@contextmanager
def quick_passes(
    model: EditableModel, first: int, longest: int, dtype: torch.dtype | None = None
) -> Iterator[None]:
    """Within it, training passes are as quick as this machine has them: ``narrowed`` and ``eager_attention``.

    Adapters of ``peft`` are entered within it, so that they stay float32.

    Args:
        first: the lowest block that is run.
        longest: tokens of the longest row.
        dtype: of the products; None: the best (``dtype_of_products``).
    """
    with narrowed(model, first, dtype) as found, eager_attention(model, found, longest):
        yield
