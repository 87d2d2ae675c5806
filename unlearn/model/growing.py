"""What attention keeps of tokens, with room for more: transformers' own cache copies all of it for every token.

For 45 rows of SmolLM2 that copy was three fifths of the time of their replies (docs/notes/lab.md).
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

ROOM = 64
"""Columns for which room is made at a time."""


class Growing(DynamicLayer):
    """Keys and values of one layer, (rows, heads, columns, width), at the front of tensors that are longer."""

    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._keys = self._values = torch.empty(0)

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: object, **_more: object
    ) -> tuple[Tensor, Tensor]:
        """Add columns and return all of them; in the dtype of attention's products, which would convert them anew."""
        keys, values = _multiplied(key_states), _multiplied(value_states)
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        self._keys, self.keys = _longer(self._keys, self.keys, keys)
        self._values, self.values = _longer(self._values, self.values, values)
        return self.keys, self.values


def cache_for(config: PretrainedConfig) -> DynamicCache:
    """An empty cache for a model; layers of other kinds, such as sliding windows, are transformers' own."""
    cache = DynamicCache(config=config)
    cache.layers = [Growing() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _longer(held: Tensor, seen: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """What there is room in, and of it what was seen and what is new."""
    begin = seen.shape[-2] if seen.numel() else 0
    end = begin + new.shape[-2]
    # Rows that were chosen, or a copy, lie elsewhere.
    if held.numel() == 0 or held.data_ptr() != seen.data_ptr() or held.shape[-2] < end:
        held = new.new_empty(*new.shape[:2], end + ROOM, new.shape[-1])
        if begin:
            held[..., :begin, :] = seen
    held[..., begin:end, :] = new
    return held, held[..., :end, :]


def _multiplied(states: Tensor) -> Tensor:
    kind = states.device.type
    return states.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else states
