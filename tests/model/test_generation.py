"""Rows are continued as each would be alone, greedily or by their probabilities, whatever is read beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tests import families, pico
from unlearn.model import generation
from unlearn.model.cached import begun
from unlearn.model.ends import Ends
from unlearn.model.generation import (
    HELD,
    LEAST,
    MOST,
    Decoding,
    batch_tokens,
    continued,
    held_tokens,
    kept_bytes,
)

FRONT = [(7 * i) % 80 + 3 for i in range(15)]
ROWS = [[*FRONT, 90 + i] for i in range(17)] + [[5, 6, 7, 8], [9], [10, 11]]
"""Some share a system prompt, and some stand alone."""


def plain(network: Any, row: list[int], tokens: int) -> tuple[int, ...]:
    """A greedy reply by whole passes over one row."""
    ids = list(row)
    with torch.inference_mode():
        for _ in range(tokens):
            ids.append(int(network(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return tuple(ids[len(row) :])


@pytest.mark.parametrize("case", families.CASES)
def test_replies_are_those_of_whole_passes(case: str) -> None:
    network, some = families.kept(case).model, [*ROWS[:16], *ROWS[-2:]]
    found = [reply for (reply,) in continued(network, some, 0, Ends(), Decoding(5))]
    checked = (0, 16, 17)
    assert [found[i] for i in checked] == [plain(network, some[i], 5) for i in checked]


def test_rows_that_have_ended_leave_and_change_nothing_for_the_others() -> None:
    network = pico.pico("llama").model
    free = [reply for (reply,) in continued(network, ROWS, 0, Ends(), Decoding(8))]
    ends = Ends(frozenset(token for reply in free[::2] for token in reply[1:2]))
    widths = []
    hook = network.register_forward_hook(lambda *given: widths.append(given[-1].logits.shape[0]))
    cut = [reply for (reply,) in continued(network, ROWS, 0, ends, Decoding(8))]
    hook.remove()
    assert cut == [ends.until(reply) for reply in free] and cut != free
    assert min(widths) < len(ROWS) / 2


class Stops(Ends):
    """A reply ends where it is one of these."""

    def __init__(self, replies: set[tuple[int, ...]]) -> None:
        super().__init__()
        object.__setattr__(self, "replies", replies)

    def ended(self, ids: Sequence[int]) -> bool:
        return tuple(ids) in self.replies

    def until(self, ids: Sequence[int]) -> tuple[int, ...]:
        return next((tuple(ids[:n]) for n in range(len(ids)) if self.ended(ids[:n])), tuple(ids))


def test_rows_that_have_ended_and_stay_do_not_go_on() -> None:
    network, some = pico.pico("llama").model, ROWS[:5]
    free = [reply for (reply,) in continued(network, some, 0, Ends(), Decoding(12))]
    # One row ends early, which is too few to leave its batch, and later all others.
    stops = {tuple(reply[: 6 if i else 2]) for i, reply in enumerate(free)}
    passes = []
    hook = network.register_forward_hook(lambda *_: passes.append(1))
    cut = [reply for (reply,) in continued(network, some, 0, Stops(stops), Decoding(12))]
    hook.remove()
    assert [len(reply) for reply in cut] == [2, 6, 6, 6, 6]
    # What is common to the prompts is read first, and the rest of them in a second pass.
    assert len(passes) <= 6 + 1


def test_a_sampled_reply_is_its_own_whatever_the_batch() -> None:
    network = pico.pico("llama").model
    how = Decoding(6, samples=4, temperature=1.0, seed=3)
    whole = continued(network, ROWS, 0, Ends(), how)
    for size in (1, 3):
        assert continued(network, ROWS, 0, Ends(), Decoding(6, 4, 1.0, 3, batch_size=size)) == whole
    assert len({reply for replies in whole for reply in replies}) > len(ROWS)  # the control: they differ


def test_tokens_are_drawn_by_their_probability() -> None:
    network = pico.pico("llama").model
    with torch.inference_mode():
        logits = network(torch.tensor([ROWS[0]])).logits[0, -1]
    for temperature in (1.0, 0.5):
        drawn = continued(network, ROWS[:1], 0, Ends(), Decoding(1, 20_000, temperature, 1))[0]
        counts = torch.bincount(torch.tensor(drawn)[:, 0], minlength=len(logits)).double()
        expected = (logits.double() / temperature).softmax(-1) * 20_000
        # Pearson's statistic over tokens that are expected often enough: its mean is their number.
        often = expected > 5
        chi = float(((counts - expected).square() / expected)[often].sum())
        assert often.sum() > 20 and chi < float(often.sum()) + 5 * (2 * float(often.sum())) ** 0.5
        other = (logits.double() / (1.5 * temperature)).softmax(-1) * 20_000  # the control
        wrong = float(((counts - other).square() / other)[often].sum())
        assert wrong > float(often.sum()) + 5 * (2 * float(often.sum())) ** 0.5


def test_a_prompt_is_read_once_for_all_its_samples() -> None:
    network = pico.pico("llama").model
    read = []
    hook = network.get_input_embeddings().register_forward_hook(
        lambda _m, given, _out: read.append(given[0].numel())
    )
    continued(network, ROWS, 0, Ends(), Decoding(3, samples=8, temperature=1.0))
    hook.remove()
    alone = sum(map(len, ROWS[17:]))
    # The common front once, what follows it in each row once, padded rows without a front, and two steps.
    assert sum(read) <= len(FRONT) + 17 + alone + 3 * 4 + 2 * 8 * len(ROWS)


def test_a_batch_that_is_too_large_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    network = pico.pico("llama").model
    ways = (Decoding(4), Decoding(4, samples=2, temperature=1.0, seed=1))
    expected = [continued(network, ROWS, 0, Ends(), how) for how in ways]
    asked, sizes = generation.begun, []

    def small(model: Any, rows: list[list[int]], *rest: Any) -> Any:
        sizes.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return asked(model, rows, *rest)

    monkeypatch.setattr(generation, "begun", small)
    assert [continued(network, ROWS, 0, Ends(), how) for how in ways] == expected
    assert max(sizes) > 2 > 1 in sizes

    def never(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(generation, "begun", never)
    with pytest.raises(torch.OutOfMemoryError):
        continued(network, ROWS, 0, Ends(), ways[0])


@pytest.mark.parametrize("case", ["gpt2", "llama", "gemma3"])
def test_what_attention_keeps_of_a_token_is_counted(case: str) -> None:
    network = families.kept(case).model
    state, _ = begun(network, [[3, 4, 5], [6, 7, 8]], 0)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in state.cache.layers)
    assert kept_bytes(network) == held / 6


def test_a_batch_holds_as_many_tokens_as_memory_bears(monkeypatch: pytest.MonkeyPatch) -> None:
    network = pico.pico("llama").model
    assert held_tokens(network) == HELD // kept_bytes(network) > LEAST
    assert batch_tokens(network, 1 << 30) == held_tokens(network)
    assert batch_tokens(network, 100) == 100 * MOST < held_tokens(network)  # no batch has more rows
    monkeypatch.setattr(generation, "HELD", 10)
    assert held_tokens(network) == batch_tokens(network, 100) == LEAST


@pytest.mark.parametrize("vocabulary", [5, 256, 3000])
@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_a_token_is_drawn_as_from_the_sums_over_the_whole_vocabulary(
    vocabulary: int, temperature: float
) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    logits = 3 * torch.randn(64, vocabulary, generator=generator)
    logits[:, vocabulary // 2 :: 2] = -1e4  # of probability zero
    numbers = torch.rand(64, 1, generator=generator, dtype=torch.float64)
    numbers[:2] = torch.tensor([[0.0], [1 - 2**-40]], dtype=torch.float64)
    found = generation._chosen(logits, temperature, numbers)
    ends = (logits.double() / temperature).softmax(-1).cumsum(-1)
    ends = ends / ends[:, -1:]
    # In float32 a share is off by 1e-6 of itself: so near to where it ends the next token may be drawn.
    begins = torch.nn.functional.pad(ends, (1, -1)).take_along_dim(found[:, None], 1)
    ended = ends.take_along_dim(found[:, None], 1)
    assert bool(((begins - 1e-6 <= numbers) & (numbers <= ended + 1e-6)).all())
    assert bool((logits.take_along_dim(found[:, None], 1) > -1e4).all())
    assert len(set(found.tolist())) > 2
    if temperature == 1.0:  # the control: other numbers draw others
        other = generation._chosen(logits, temperature, numbers.flip(0))
        assert (other != found).any()
