"""The cache with room holds what transformers' own holds, however columns come and rows go."""

from __future__ import annotations

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicSlidingWindowLayer

from tests import families
from unlearn.model.growing import ROOM, Growing, cache_for

STEP = st.one_of(
    st.integers(1, ROOM + 3), st.lists(st.integers(0, 2), min_size=1, max_size=3), st.just("copy")
)


def _new(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, 2, columns, 4, generator=torch.Generator().manual_seed(seed))


@given(st.lists(STEP, max_size=8))
@settings(max_examples=60, deadline=None)
def test_it_holds_what_a_copying_cache_holds(steps: list[int | list[int] | str]) -> None:
    plain, growing = DynamicCache(), DynamicCache()
    growing.layers.append(Growing())
    rows = 3
    left: list[tuple[DynamicCache, Tensor]] = []
    for seed, step in enumerate((1, *steps)):
        if isinstance(step, int):
            keys, values = _new(rows, step, seed), _new(rows, step, -seed)
            wanted, got = plain.update(keys, values, 0), growing.update(keys, values, 0)
            assert torch.equal(wanted[0], got[0]) and torch.equal(wanted[1], got[1])
        elif isinstance(step, list):
            chosen = torch.tensor([i % rows for i in step])
            rows = len(step)
            plain.batch_select_indices(chosen)
            growing.batch_select_indices(chosen)
        else:
            left.append((growing, growing.layers[0].keys.clone()))
            growing = copy.deepcopy(growing)
        assert growing.get_seq_length() == plain.get_seq_length()
    for cache, keys in left:
        assert torch.equal(cache.layers[0].keys, keys)  # what a copy goes on with is not written here


def test_columns_are_not_copied_while_there_is_room() -> None:
    layer, plain = Growing(), DynamicCache().layer_class_to_replicate()
    places: list[set[int]] = [set(), set()]
    for seed in range(ROOM):
        for cache, seen in zip((layer, plain), places, strict=True):
            keys, _ = cache.update(_new(1, 1, seed), _new(1, 1, seed))
            seen.add(keys.data_ptr())
    assert len(places[0]) == 1 < len(places[1])


def test_it_keeps_the_dtype_of_the_products() -> None:
    layer = Growing()
    with torch.autocast("cpu", torch.bfloat16):
        keys, values = layer.update(_new(1, 3, 0), _new(1, 3, 1))
    assert keys.dtype == values.dtype == torch.bfloat16
    assert Growing().update(_new(1, 3, 0), _new(1, 3, 1))[0].dtype == torch.float32


def test_windows_stay_as_they_are() -> None:
    kinds = {type(layer) for layer in cache_for(families.kept("gemma3").model.config).layers}
    assert kinds == {Growing, DynamicSlidingWindowLayer}
