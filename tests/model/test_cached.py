"""Rows read together, with what they begin with read once, go on as each does when it is read alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import families, pico
from unlearn.model.cached import SHARED, TOGETHER, alike, begun, front_of

PAD = 0
FRONT = [(7 * i) % 80 + 3 for i in range(SHARED + 2)]
ROWS = [[*FRONT, 20, 21, 22], [*FRONT, 31], [*FRONT, 40, 41]]
WIDE = ("mistral", "qwen2", "phi3", "smollm3", "gemma2", "gemma3", "gemma3-text", "mixtral", "gpt-oss")
"""Cases with a window that is shorter than the rows."""


@pytest.mark.parametrize("case", families.CASES)
def test_rows_go_on_as_they_do_alone(case: str) -> None:
    network = families.kept(case).model
    shared = front_of(network, ROWS, 2)
    assert shared == (0 if case in WIDE else len(FRONT))
    with torch.inference_mode():
        state, first = begun(network, ROWS, PAD, 2)
        state.choose(torch.tensor([2, 0, 0]))
        ids = torch.tensor([[50, 51], [52, 53], [54, PAD]])
        mask = torch.tensor([[1, 1], [1, 1], [1, 0]])
        other = state.copied().read(ids.flip(0), mask.flip(0), keep=0)
        then = state.read(ids, mask, keep=0)
        for row, logits in zip(ROWS, first, strict=True):
            alone = network(torch.tensor([row])).logits[0, -1]
            torch.testing.assert_close(logits, alone, rtol=1e-4, atol=1e-5)
        for row, ids_, seen, logits in zip((2, 0, 0), ids, mask, then, strict=True):
            added = ids_[seen.bool()].tolist()
            alone = network(torch.tensor([[*ROWS[row], *added]])).logits[0, -len(added) :]
            torch.testing.assert_close(logits[: len(added)], alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(other[0, 0], then[0, 0], atol=1e-3)  # the control: another token, other logits


@given(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=SHARED + 3), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_every_row_is_in_one_group(rows: list[list[int]]) -> None:
    groups = list(alike(rows))
    assert sorted(i for group in groups for i in group) == list(range(len(rows)))
    for group in groups[:-1]:
        assert len(group) >= TOGETHER and len({tuple(rows[i][:SHARED]) for i in group}) == 1


def test_what_begins_alike_is_read_together() -> None:
    rows = [[*FRONT, 90 + i] for i in range(TOGETHER)] + [[5, 6], [*reversed(FRONT), 1]]
    chats, alone = alike([rows[-1], *rows[:-1]])
    assert len(chats) == TOGETHER and sorted(alone) == [0, TOGETHER + 1]
    network = pico.pico("llama").model
    assert front_of(network, [rows[i - 1] for i in chats]) == len(FRONT)
    assert front_of(network, [FRONT, FRONT]) == len(FRONT) - 1  # one token is left to be read
    assert front_of(network, [[5, 6], FRONT]) == front_of(network, [FRONT]) == 0
