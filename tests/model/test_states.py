"""States at the last token: those of whole passes, for a part of the tokens where prompts begin alike."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from tests import families, pico
from unlearn.errors import ModelError
from unlearn.model.cached import TOGETHER
from unlearn.model.editable import EditableModel
from unlearn.model.forward import read
from unlearn.model.states import last_states

FRONT = [(7 * i) % 80 + 3 for i in range(20)]
ALIKE = [[*FRONT, *range(5, 6 + i % 4)] for i in range(TOGETHER)]
OTHERS = [[9, 8, 7], [11], [*reversed(FRONT)]]
ROWS = [
    row for pair in zip(ALIKE, [*OTHERS, *[[5 + i] for i in range(TOGETHER)]], strict=False) for row in pair
]


def tokens_read(model: EditableModel, rows: Sequence[Sequence[int]]) -> int:
    """How many tokens go through the model while the states of rows are read."""
    count = 0

    def seen(_module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        nonlocal count
        count += given[0].numel()

    handle = model.model.get_input_embeddings().register_forward_pre_hook(seen)
    last_states(model, rows, [1])
    handle.remove()
    return count


@pytest.mark.parametrize("case", families.CASES)
def test_states_are_those_of_whole_passes(case: str) -> None:
    model = families.kept(case)
    layers = [0, model.anatomy.layers - 1]
    found = last_states(model, ROWS, layers)
    whole = read(model, ROWS, [[len(row) - 1] for row in ROWS], stream_layers=layers).stream
    assert list(found) == layers
    for layer in layers:
        torch.testing.assert_close(found[layer], whole[layer], rtol=1e-4, atol=1e-4)
    # The control: another row's states are others.
    assert not torch.allclose(found[layers[1]][:, 0], found[layers[1]][:, 2], atol=1e-3)


def test_what_prompts_begin_with_is_read_once() -> None:
    model = pico.pico("llama")
    longest = max(map(len, ALIKE))
    assert tokens_read(model, ALIKE) == len(FRONT) + TOGETHER * (longest - len(FRONT))
    assert tokens_read(model, OTHERS) == len(OTHERS) * len(FRONT)  # the control: nothing in common


def test_prompts_that_begin_otherwise_are_read_bit_for_bit_as_before() -> None:
    model = pico.pico("llama")
    rows = [[5 + i, 7, *range(3 + i % 5)] for i in range(40)]
    whole = read(model, rows, [[len(row) - 1] for row in rows], stream_layers=[2]).stream
    assert torch.equal(last_states(model, rows, [2])[2], whole[2])


def test_a_row_that_is_too_long_is_an_error() -> None:
    model = pico.pico("llama")
    with pytest.raises(ModelError):
        last_states(model, [[5] * (model.context + 1)], [1])
