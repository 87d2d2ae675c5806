"""How many tokens a pass takes at a time."""

from __future__ import annotations

import torch

from unlearn.model.editable import EditableModel

MOST = 32768
"""Tokens per pass at most: more are no faster."""
LEAST = 256
"""Tokens per pass at least, however little memory there is."""


def token_budget(model: EditableModel, gradients: bool = False) -> int:
    """How many tokens a pass takes at a time: on a GPU as many as half of the free memory surely holds.

    Args:
        gradients: whether the pass keeps every layer's activations for a gradient.
    """
    free = free_memory(model.device)
    if free is None:
        return 2048 if gradients else 4096
    return affordable(free, model, gradients)


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be taken on a GPU; None on any other device, where nobody counts."""
    if device.type != "cuda":
        return None
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + unused)


def affordable(free: int, model: EditableModel, gradients: bool) -> int:
    """A power of two: tokens whose activations and logits take half of ``free`` bytes, every token being a reply's."""
    each = logits_each(model) + block_each(model) * (model.anatomy.layers if gradients else 1)
    tokens = max(LEAST, min(free // 2 // each, MOST // 2 if gradients else MOST))
    return 1 << (tokens.bit_length() - 1)


def block_each(model: EditableModel) -> int:
    """Bytes that a token takes inside one block: norms, attention and MLP."""
    return (12 * model.anatomy.d_model + 6 * model.anatomy.d_ff) * model.dtype.itemsize


def logits_each(model: EditableModel) -> int:
    """Bytes of a token's logits, their log-softmax, its exponential and a gradient, float32."""
    return 4 * 4 * int(model.model.get_output_embeddings().weight.shape[0])
