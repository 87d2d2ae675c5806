"""Reading from a block on, behind a shared beginning, says what a full pass over each row says, in every family."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests import families
from unlearn.model.cached import shared_front, shortest_window
from unlearn.model.editable import EditableModel
from unlearn.model.forward import read
from unlearn.model.head import logits_of
from unlearn.model.narrow import eager_attention
from unlearn.model.upper import Upper

FRONT = (3, 4, 5, 6, 7, 8)
ROWS = [FRONT + row for row in ((9, 10, 11), (12, 13, 14, 15, 16), (17, 18), (19, 20, 21, 22, 23, 24, 25))]
LAST = [1, 3, 1, 4]


def plain(model: EditableModel, row: tuple[int, ...], last: int) -> Tensor:
    logits: Tensor = model.model(input_ids=torch.tensor([row]), use_cache=False).logits
    return logits[0, -last - 1 : -1].float()


@pytest.mark.parametrize("family", families.CASES)
@pytest.mark.parametrize("first", [0, 1, 2])
def test_what_is_said_is_what_full_passes_say(family: str, first: int) -> None:
    model = families.kept(family)
    wanted = torch.cat([plain(model, row, last) for row, last in zip(ROWS, LAST, strict=True)])
    for front in ((), FRONT):
        upper = Upper(model, ROWS, first, front)
        found = logits_of(model, upper.states(range(4), LAST))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert all("forward" not in vars(model.anatomy.block(model.model, layer)) for layer in range(3))


@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", families.CASES)
def test_gradients_of_what_is_trained_above_are_those_of_full_passes(
    family: str, products: torch.dtype
) -> None:
    model = families.kept(family)
    down = model.anatomy.down(model.model, 1)
    shift = torch.zeros(model.anatomy.d_model, requires_grad=True)

    def add(_module: object, _args: object, out: Tensor, from_column: int = 0) -> Tensor:
        ahead = torch.zeros_like(out)
        ahead[:, from_column:] = shift
        return out + ahead

    def slope(logits: Tensor) -> Tensor:
        return torch.autograd.grad(logits.log_softmax(-1)[:, 5].sum(), shift)[0]

    upper = Upper(model, ROWS, 1, FRONT)
    handle = down.register_forward_hook(add)
    with eager_attention(model, products, 13):
        found = slope(logits_of(model, upper.states(range(4), LAST)))
    handle.remove()
    # Nothing is added at the front's tokens, which is what lets rows share it.
    handle = down.register_forward_hook(lambda *given: add(*given, from_column=len(FRONT)))
    wanted = slope(torch.cat([plain(model, row, last) for row, last in zip(ROWS, LAST, strict=True)]))
    handle.remove()
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    assert found.norm() > 0


@pytest.mark.parametrize("family", families.CASES)
def test_keys_and_stream_are_those_of_full_passes(family: str) -> None:
    model = families.kept(family)
    positions = [[len(row) - 1, len(FRONT)] if n % 2 else [len(row) - 2] for n, row in enumerate(ROWS)]
    wanted = read(model, ROWS, positions, [1, 2], [2])
    for front in ((), FRONT):
        behind = [[at - len(front) for at in some] for some in positions]
        found = Upper(model, ROWS, 1, front).read(behind, [1, 2], [2])
        for layer in (1, 2):
            torch.testing.assert_close(found.keys[layer], wanted.keys[layer], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.stream[2], wanted.stream[2], rtol=1e-4, atol=1e-4)


def test_rows_share_their_beginning_and_keep_a_token_each() -> None:
    assert shared_front(ROWS) == FRONT
    assert shared_front([(3, 4), (3, 4, 5)]) == (3,)
    assert shared_front([(3, 4), (5, 6)]) == shared_front([]) == ()


def test_packs_hold_every_row_once_and_as_many_tokens_as_a_pass_takes() -> None:
    model = families.kept("llama")
    rows = [tuple(range(3, 4 + n % 37)) for n in range(60)]
    upper = Upper(model, rows, 0)
    packs = list(upper.packs(range(60), gradients=True, budget=200))
    assert sorted(i for pack in packs for i in pack) == list(range(60))
    for pack, following in zip(packs, packs[1:], strict=False):
        assert sum(len(rows[i]) for i in pack) <= 200 < sum(len(rows[i]) for i in (*pack, following[0]))
    assert len(list(upper.packs(range(60), gradients=True))) == 1


def test_rows_that_a_window_cuts_lie_in_lines_of_their_own() -> None:
    model = families.kept("mistral")
    window = shortest_window(model.model)
    assert window < max(map(len, ROWS))
    assert Upper(model, ROWS, 0)._lines(ROWS).count == len(ROWS)
    short = [row[: 1 + n % window] for n, row in enumerate(ROWS)]
    assert Upper(model, short, 0)._lines(short).count < len(short)


@pytest.mark.parametrize("attention, apart", [("eager", False), ("sdpa", False), ("flex_attention", True)])
def test_every_way_of_computing_attention_says_the_same(attention: str, apart: bool) -> None:
    model = families.kept("llama")
    wanted = torch.cat([plain(model, row, last) for row, last in zip(ROWS, LAST, strict=True)])
    usual = model.model.config._attn_implementation
    model.model.set_attn_implementation(attention)
    try:
        with torch.no_grad():
            upper = Upper(model, ROWS, 1, FRONT)
            found = logits_of(model, upper.states(range(4), LAST))
    finally:
        model.model.set_attn_implementation(usual)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    # Rows share lines where that is exact: with masks of this kind flex attention ends the process.
    assert (upper._lines([row[len(FRONT) :] for row in ROWS]).count == len(ROWS)) is apart
