"""Rows are padded on the left, and continued in the order given up to their end token."""

from __future__ import annotations

import copy

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import pico
from unlearn.model.ends import Ends
from unlearn.model.generation import Decoding, continued
from unlearn.model.rows import left_pad

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
    never = Ends()
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
    [[whole]] = continued(model, ROWS[:1], 0, Ends(), Decoding(6))
    stop = whole[2]
    [[cut]] = continued(model, ROWS[:1], 0, Ends(frozenset({stop})), Decoding(6))
    assert cut == whole[: whole.index(stop) + 1]


BENDING = {
    "repetition_penalty": 1.3,
    "no_repeat_ngram_size": 1,
    "min_new_tokens": 5,
    "suppress_tokens": list(range(30, 200)),
    "top_k": 1,
    "top_p": 0.1,
    "temperature": 0.2,
}


def test_what_a_model_is_configured_with_bends_no_reply() -> None:
    model = pico.pico("qwen2").model
    kept = model.generation_config
    ways = (Decoding(5), Decoding(5, samples=3, temperature=1.0, seed=2))
    expected = [continued(model, ROWS, 0, Ends(), how) for how in ways]
    bent = copy.deepcopy(kept)
    for name, value in BENDING.items():
        setattr(bent, name, value)
    model.generation_config = bent
    try:
        plain = torch.tensor([ROWS[0]])
        own = model.generate(plain, max_new_tokens=5, do_sample=False)[0, len(ROWS[0]) :].tolist()
        assert tuple(own) != expected[0][0][0]  # the control: it does bend what transformers says
        assert [continued(model, ROWS, 0, Ends(), how) for how in ways] == expected
        assert model.generation_config is bent
    finally:
        model.generation_config = kept
