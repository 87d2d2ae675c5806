"""Reading at tokens, and resuming above a layer: the same numbers as a whole pass."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests import pico
from unlearn.errors import ModelError
from unlearn.model.budget import LEAST, MOST, affordable, token_budget
from unlearn.model.cached import TOGETHER
from unlearn.model.forward import batches, hooked, position_ids, predicted, read, replies
from unlearn.model.rows import left_pad
from unlearn.model.suspended import Suspended

ROWS = [list(range(5, 5 + n)) for n in (3, 9, 6, 12)]


@pytest.mark.parametrize("family", pico.FAMILIES)
def test_reading_equals_hooks_on_single_rows(family: str) -> None:
    model = pico.pico(family)
    at = [[0, 2], [8], [1, 5, 3], [11]]
    got = read(model, ROWS, at, [0, 2], [1, 3])
    keys, stream = {0: [], 2: []}, {1: [], 3: []}
    for row, positions in zip(ROWS, at, strict=True):
        caught: dict[str, torch.Tensor] = {}
        handles = []
        for layer in (0, 2):
            down = model.anatomy.down(model.model, layer)
            handles.append(
                down.register_forward_pre_hook(
                    lambda _m, a, n=layer, caught=caught: caught.__setitem__(f"k{n}", a[0])
                )
            )
        for layer in (1, 3):
            block = model.anatomy.block(model.model, layer)
            handles.append(
                block.register_forward_hook(
                    lambda _m, _a, o, n=layer, caught=caught: caught.__setitem__(f"s{n}", o)
                )
            )
        model.model(torch.tensor([row]))
        for handle in handles:
            handle.remove()
        for layer in (0, 2):
            keys[layer].append(caught[f"k{layer}"][0, positions])
        for layer in (1, 3):
            stream[layer].append(caught[f"s{layer}"][0, positions])
    for layer in (0, 2):
        torch.testing.assert_close(got.keys[layer], torch.cat(keys[layer]).T, rtol=1e-4, atol=1e-5)
    for layer in (1, 3):
        torch.testing.assert_close(got.stream[layer], torch.cat(stream[layer]).T, rtol=1e-4, atol=1e-5)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.model.modules())


@pytest.mark.parametrize("family", pico.FAMILIES)
@pytest.mark.parametrize("layer", [0, 2, 3])
def test_resuming_gives_the_logits_of_a_whole_pass(family: str, layer: int) -> None:
    model = pico.pico(family)
    ids, mask = left_pad(ROWS, model.pad_id, model.device)
    whole = model.model(ids, attention_mask=mask, position_ids=position_ids(mask)).logits[:, -2:]
    at = Suspended.at(model, ROWS, layer)
    torch.testing.assert_close(at.logits(at.stream, 2), whole, rtol=1e-4, atol=1e-5)
    moved = at.logits(at.stream + 1.0 * torch.randn_like(at.stream), 2)  # the control
    assert not torch.allclose(moved, whole, atol=1e-3)
    again = model.model(ids, attention_mask=mask, position_ids=position_ids(mask)).logits[:, -2:]
    assert torch.equal(again, whole)  # the blocks are themselves again


@pytest.mark.parametrize("family", pico.FAMILIES)
@pytest.mark.parametrize("layer", [0, 2, 3])
def test_what_is_before_a_change_is_computed_once(family: str, layer: int) -> None:
    """From any column on: the same logits and gradients as with the whole stream, for all rows and for some."""
    model = pico.pico(family)
    at = Suspended.at(model, ROWS, layer)
    width = at.ids.shape[1]
    assert at.behind(0) is at
    for begin, rows in ((4, [0, 1, 2, 3]), (9, [0, 1, 2, 3]), (9, [0, 2]), (4, [0, 2])):
        short, whole = at.behind(begin), at
        assert short.begin == begin and len(short.past) == model.anatomy.layers - 1 - layer
        if len(rows) < len(ROWS):
            short, whole = short.select(torch.tensor(rows)), at.select(torch.tensor(rows))
        assert torch.equal(short.ids, whole.ids) and short.begin == max(
            0, begin - (width - short.ids.shape[1])
        )
        moved = whole.stream.clone()
        moved[:, short.begin :] += torch.randn_like(short.stream)
        one, other = moved.clone().requires_grad_(), moved[:, short.begin :].clone().requires_grad_()
        want, got = whole.logits(one, 2), short.logits(other, 2)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
        want.logsumexp(-1).sum().backward()
        got.logsumexp(-1).sum().backward()
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(other.grad, one.grad[:, short.begin :], rtol=1e-3, atol=1e-4)
        again = short.logits(other, 2)  # no pass leaves anything in the cache of the next
        torch.testing.assert_close(again, got)
    if layer < 3:  # the control: keys and values of another text are another past
        alien = replace(
            at.behind(9), past=tuple((keys + 1, values + 1) for keys, values in at.behind(9).past)
        )
        assert not torch.allclose(alien.logits(alien.stream, 2), at.logits(at.stream, 2), atol=1e-3)


def test_selected_rows_drop_padding_and_keep_their_logits() -> None:
    model = pico.pico("llama")
    at = Suspended.at(model, ROWS, 1)
    some = at.select(torch.tensor([0, 2]))
    assert some.ids.shape == (2, 6)
    torch.testing.assert_close(
        some.logits(some.stream, 1), at.logits(at.stream, 1)[[0, 2]], rtol=1e-4, atol=1e-5
    )


def test_gradients_reach_the_stream_only() -> None:
    model = pico.pico("gpt2")
    at = Suspended.at(model, ROWS, 1)
    stream = at.stream.clone().requires_grad_()
    at.logits(stream, 1).logsumexp(-1).sum().backward()
    assert stream.grad is not None and stream.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.model.parameters())


def test_batches_cover_every_row_within_the_budget() -> None:
    groups = list(batches(ROWS, 20))
    assert sorted(i for group in groups for i in group) == [0, 1, 2, 3]
    assert all(len(group) == 1 or len(group) * max(len(ROWS[i]) for i in group) <= 20 for group in groups)


def test_a_gpu_is_given_what_half_of_its_free_memory_holds() -> None:
    model = pico.pico("llama")
    budgets = [affordable(free, model, gradients=False) for free in (0, 1 << 25, 1 << 27, 1 << 50)]
    assert budgets[0] == LEAST < budgets[1] < budgets[2] < budgets[3] == MOST
    with_gradients = [affordable(free, model, gradients=True) for free in (0, 1 << 27, 1 << 50)]
    assert with_gradients[0] == LEAST <= with_gradients[1] < budgets[2] and with_gradients[2] == MOST // 2
    whole = model.model.get_output_embeddings().weight.shape[0] * 4 * budgets[2]
    assert whole < 1 << 26  # float32 logits of every token: a part of the half
    assert all(budget & (budget - 1) == 0 for budget in (*budgets, *with_gradients))
    assert token_budget(model) == 2 * token_budget(model, gradients=True)  # the CPU's are fixed


@pytest.mark.parametrize("family", pico.FAMILIES)
def test_replies_of_many_rows_are_predicted_as_in_single_rows(family: str) -> None:
    model = pico.pico(family)
    rows = [(row, 1 + n) for n, row in enumerate(ROWS)]
    said = []
    with torch.no_grad():
        for ids, reply in rows:
            logits = model.model(torch.tensor([ids])).logits[0].float()
            said.append(logits[-reply - 1 : -1])
        got = replies(model, rows)
    nll = [
        -one.log_softmax(-1).gather(-1, torch.tensor(ids[-reply:])[:, None]).sum()
        for one, (ids, reply) in zip(said, rows, strict=True)
    ]
    sizes = torch.tensor([reply for _, reply in rows])
    torch.testing.assert_close(got.sums(), torch.stack(nll), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got.nll(), torch.stack(nll) / sizes, rtol=1e-4, atol=1e-5)
    for number, logits in [*enumerate(got.each()), *predicted(model, rows)]:
        torch.testing.assert_close(logits, said[number], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", pico.FAMILIES)
@pytest.mark.parametrize("early", [False, True])
def test_what_rows_begin_with_is_read_once_unless_it_is_looked_at(family: str, early: bool) -> None:
    model = pico.pico(family)
    front = list(range(5, 19))
    rows = [front + [30 + n, 40 - n, *range(20, 20 + n % 3)] for n in range(20)]
    at = [[3, len(row) - 1] if early else [len(row) - 2, len(row) - 1] for row in rows]
    read_tokens = 0

    def count(_module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        nonlocal read_tokens
        read_tokens += args[0].shape[:2].numel()

    with hooked([model.anatomy.down(model.model, 0).register_forward_pre_hook(count)]):
        got = read(model, rows, at, [0, 2], [3])
    longest = max(map(len, rows))
    wanted = len(rows) * longest if early else len(front) + len(rows) * (longest - len(front))
    assert read_tokens == wanted
    alone = [read(model, [row], [places], [0, 2], [3]) for row, places in zip(rows, at, strict=True)]
    for layer in (0, 2):
        each = torch.cat([one.keys[layer] for one in alone], 1)
        torch.testing.assert_close(got.keys[layer], each, rtol=1e-4, atol=1e-5)
    each = torch.cat([one.stream[3] for one in alone], 1)
    torch.testing.assert_close(got.stream[3], each, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", pico.FAMILIES)
@pytest.mark.parametrize("reply", [1, 3])
def test_what_rows_begin_with_is_read_once_in_front_of_their_replies(family: str, reply: int) -> None:
    model = pico.pico(family)
    front = list(range(5, 19))
    rows = [((*front, *range(20, 21 + n % 3), 40, 41, 42), reply) for n in range(20)]
    read_tokens = 0

    def count(_module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        nonlocal read_tokens
        read_tokens += args[0].shape[:2].numel()

    with hooked([model.anatomy.down(model.model, 0).register_forward_pre_hook(count)]):
        got = dict(predicted(model, rows))
    shared = min(len(front) + 1, min(len(ids) for ids, _ in rows) - reply - 1)  # 20 stands in all rows
    longest = max(len(ids) for ids, _ in rows)
    assert read_tokens == shared + len(rows) * (longest - shared)
    for number, (ids, _) in enumerate(rows):
        alone = model.model(torch.tensor([ids])).logits[0, -reply - 1 : -1].float()
        torch.testing.assert_close(got[number], alone, rtol=1e-4, atol=1e-4)


def test_a_row_that_is_too_long_is_an_error() -> None:
    model = pico.pico("llama")
    with pytest.raises(ModelError, match="tokens"):
        read(model, [[5] * (model.context + 1)], [[0]], [1])


@pytest.mark.parametrize("family", pico.FAMILIES)
def test_rows_that_begin_alike_and_others_keep_their_places(family: str) -> None:
    model = pico.pico(family)
    alike = [[*range(5, 25), *range(30, 31 + n % 4)] for n in range(TOGETHER)]
    others = [[9, 8, 7], [11], [*range(24, 4, -1)], *([60 + n] for n in range(TOGETHER - 3))]
    rows = [row for pair in zip(alike, others, strict=True) for row in pair]
    found = read(model, rows, [[len(row) - 1] for row in rows], stream_layers=[0, 3]).stream
    for layer in (0, 3):
        alone = [read(model, [row], [[len(row) - 1]], stream_layers=[layer]).stream[layer] for row in rows]
        torch.testing.assert_close(found[layer], torch.cat(alone, 1), rtol=1e-4, atol=1e-4)
    # The control: another row's states are others.
    assert not torch.allclose(found[3][:, 0], found[3][:, 2], atol=1e-3)
