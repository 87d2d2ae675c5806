"""Rows are padded on the left, and continued in the order given up to their end token."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import pico
from unlearn.model.rows import Decoding, continued, left_pad

CPU = torch.device("cpu")
ROWS = [[5, 6, 7, 8], [9], [10, 11]]


@given(st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=7), min_size=1, max_size=5))
def test_padding_stands_on_the_left_and_is_masked(rows: list[list[int]]) -> None:
    ids, mask = left_pad(rows, 0, CPU)
    assert ids.shape == mask.shape == (len(rows), max(map(len, rows)))
    for row, shown, seen in zip(rows, ids, mask, strict=True):
        assert shown[seen.bool()].tolist() == row
        assert seen.tolist() == [0] * (ids.shape[1] - len(row)) + [1] * len(row)
    assert ids[mask == 0].sum() == 0


def test_rows_keep_their_order_whatever_the_batch() -> None:
    model = pico.pico("llama").model
    never = frozenset[int]()
    alone = [continued(model, [row], 0, never, Decoding(4))[0] for row in ROWS]
    assert alone == [
        [
            tuple(
                model.generate(torch.tensor([row]), max_new_tokens=4, do_sample=False)[0, len(row) :].tolist()
            )
        ]
        for row in ROWS
    ]
    for size in (None, 1, 2):
        assert continued(model, ROWS, 0, never, Decoding(4, batch_size=size)) == alone


def test_a_continuation_ends_with_its_end_token() -> None:
    model = pico.pico("llama").model
    [[whole]] = continued(model, ROWS[:1], 0, frozenset(), Decoding(6))
    stop = whole[2]
    [[cut]] = continued(model, ROWS[:1], 0, frozenset({stop}), Decoding(6))
    assert cut == whole[: whole.index(stop) + 1]


def test_a_configuration_of_the_model_does_not_change_sampling() -> None:
    model = pico.pico("llama").model
    how = Decoding(5, samples=3, temperature=1.0, seed=2)
    expected = continued(model, ROWS, 0, frozenset(), how)
    assert len({len(row) for row in expected}) == 1 and len(expected[0]) == 3
    kept = model.generation_config.top_k, model.generation_config.top_p
    model.generation_config.top_k, model.generation_config.top_p = 1, 0.1
    try:
        assert continued(model, ROWS, 0, frozenset(), how) == expected
    finally:
        model.generation_config.top_k, model.generation_config.top_p = kept
