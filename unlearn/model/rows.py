"""Rows of token ids of different lengths in one tensor, and what a model makes of them taken as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from unlearn.errors import ModelError
from unlearn.model.ends import Ends
from unlearn.model.library import Network


@contextmanager
def plainly(model: Network, ends: Ends) -> Iterator[None]:
    """Generate from the model's own probabilities, and not as its ``generation_config`` would bend them.

    That may hold a repetition penalty, suppressed tokens or a least length, which ``generate`` adds to whatever it is
    given: greedy replies would not be the likeliest, and no measure of the model that is edited.

    Args:
        model: a transformers model.
        ends: at whose tokens it stops.
    """
    from transformers import GenerationConfig

    kept = model.generation_config
    names = ("bos_token_id", "pad_token_id", "decoder_start_token_id")
    model.generation_config = GenerationConfig(
        eos_token_id=ends.configured(), **{name: getattr(kept, name, None) for name in names}
    )
    try:
        yield
    finally:
        model.generation_config = kept


def finite(logits: Tensor) -> Tensor:
    """Hand logits (rows, V) on; -inf at some tokens is a right value.

    Raises:
        ModelError: a row has no largest one that is a finite number, so that no token can be chosen.
    """
    # The largest of numbers of which one is NaN is NaN.
    if not torch.isfinite(logits.amax(-1)).all():
        raise ModelError("the model gives next-token logits that are not finite, so it can say nothing")
    return logits


def left_pad(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Left-padded ids and mask, both (rows, longest), so that the last tokens stand in one column."""
    width = max(len(row) for row in rows)
    return _laid(rows, [slice(width - len(row), width) for row in rows], pad, device)


def right_pad(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Right-padded ids and mask, both (rows, longest): in a causal model no token sees what stands behind it."""
    return _laid(rows, [slice(len(row)) for row in rows], pad, device)


def _laid(
    rows: Sequence[Sequence[int]], places: Sequence[slice], pad: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    ids = torch.full((len(rows), max(map(len, rows))), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, (row, place) in enumerate(zip(rows, places, strict=True)):
        ids[i, place] = torch.as_tensor(list(row))
        mask[i, place] = 1
    return ids.to(device), mask.to(device)


def position_ids(mask: Tensor) -> Tensor:
    """Positions that ignore the padding, (rows, T)."""
    return (mask.cumsum(-1) - 1).clamp_min(0)
