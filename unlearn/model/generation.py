"""Rows of token ids, continued by a model: greedily, or from its own probabilities.

A prompt is read once, however many replies are sampled behind it, and rows that have ended leave their batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.model.cached import alike, begun
from unlearn.model.ends import Ends
from unlearn.model.library import Network
from unlearn.model.memory import in_parts
from unlearn.model.rows import finite
from unlearn.progress import NO_PROGRESS, Progress

MOST = 256
"""Rows at a time, however short."""
HELD, LEAST = 3 << 29, 8192
"""Bytes that may be kept on a CPU while a batch is continued, and tokens of which they are kept in any case."""
STAYING = 0.75
"""Share of a batch's rows that go on below which those that ended are taken out: it costs a copy of what is cached."""

BLOCK = 256
"""Tokens of the vocabulary whose probabilities are added up first, when one is drawn."""


@dataclass(frozen=True)
class Decoding:
    """How rows are continued."""

    max_new_tokens: int
    samples: int = 1
    """Continuations per row; more than one needs a temperature."""
    temperature: float = 0.0
    """0 is greedy."""
    seed: int = 0
    batch_size: int | None = None
    """Rows at a time; None: as many as the device bears."""

    def numbers(self, rows: int) -> Tensor:
        """Numbers in [0, 1) that choose tokens, (rows, samples, tokens), by a generator of their own; none if greedy.

        A reply's numbers do not depend on what is read beside it. One number a token suffices: one for each word of the
        vocabulary, as ``torch.multinomial`` draws them, can cost more than the model's pass.
        """
        drawn = self.max_new_tokens if self.temperature > 0 else 0
        generator = torch.Generator().manual_seed(self.seed)
        return torch.rand(rows, self.samples, drawn, generator=generator, dtype=torch.float64)


@torch.inference_mode()
def continued(
    model: Network,
    rows: Sequence[Sequence[int]],
    pad: int,
    ends: Ends,
    how: Decoding,
    progress: Progress = NO_PROGRESS,
    label: str = "Generating",
    together: Sequence[Sequence[int]] | None = None,
) -> list[list[tuple[int, ...]]]:
    """Per row, in the order given, its continuations as ids: the end token included, padding cut off.

    The model's ``generation_config`` bends nothing: a repetition penalty or suppressed tokens would make greedy replies
    other than the likeliest, and no measure of the model that is edited.

    Args:
        model: a transformers model; the global generators are left as they were.
        rows: ids, without padding.
        pad: an id to pad with.
        ends: what ends a continuation.
        how: greedy or sampled, and how far.
        progress: where to show it.
        label: what to call it.
        together: indices of the rows that are continued, batch by batch; of the others nothing is found. By default all
            of them, as ``batches`` has them.

    Raises:
        ModelError: the model's logits are not finite.
    """
    found: list[list[tuple[int, ...]]] = [[] for _ in rows]
    numbers = how.numbers(len(rows))
    groups = batches(model, rows, how) if together is None else together

    def each(chosen: Sequence[int]) -> list[list[list[int]]]:
        return _together(model, [rows[i] for i in chosen], numbers[list(chosen)], pad, ends, how)

    with progress.step(label, total=sum(map(len, groups))) as bar:
        for group in groups:
            for i, said in zip(group, in_parts(group, each), strict=True):
                found[i] = [ends.until(ids) for ids in said]
            bar.advance(len(group))
    return found


def held_tokens(network: Network) -> int:
    """Tokens of whose keys and values attention keeps hold while a batch is continued, at most.

    Of a small model more fit into the same memory; and where little is computed per row, a batch of few rows costs
    nearly what one of many does.
    """
    if network.device.type == "cuda":
        return 32768
    return max(LEAST, HELD // kept_bytes(network))


def batch_tokens(network: Network, longest: int) -> int:
    """As ``held_tokens``, of rows that are no longer than that with their replies, of which there are only so many."""
    return min(held_tokens(network), max(LEAST, MOST * longest))


def kept_bytes(network: Network) -> int:
    """Bytes that attention keeps of a token, in all blocks."""
    config = network.config.get_text_config()
    heads = int(config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    shared = int(getattr(config, "num_key_value_heads", None) or heads)
    size: int = network.dtype.itemsize
    return 2 * int(config.num_hidden_layers) * shared * width * size


def batches(model: Network, rows: Sequence[Sequence[int]], how: Decoding) -> list[list[int]]:
    """Indices of rows that are continued together: of similar length, and alike at their beginnings where they are."""
    return list(_batches(rows, how, held_tokens(model)))


def _batches(rows: Sequence[Sequence[int]], how: Decoding, budget: int) -> Iterator[list[int]]:
    for group in alike(rows):
        order = sorted(group, key=lambda i: len(rows[i]))
        while order:
            longest = len(rows[order[min(MOST, len(order)) - 1]]) + how.max_new_tokens
            size = how.batch_size or max(1, min(MOST, budget // longest) // how.samples)
            yield order[:size]
            order = order[size:]


def _together(
    model: Network, rows: Sequence[Sequence[int]], numbers: Tensor, pad: int, ends: Ends, how: Decoding
) -> list[list[list[int]]]:
    """Continuations of rows in one batch; something may be left behind an end."""
    state, logits = begun(model, rows, pad, how.max_new_tokens)
    every = torch.arange(len(rows), device=model.device).repeat_interleave(how.samples)
    if how.samples > 1:
        state.choose(every)
        logits = logits[every]
    numbers = numbers.flatten(0, 1).to(model.device)
    said: list[list[int]] = [[] for _ in every]
    over = [False] * len(said)
    """Of rows that have ended, some stay in the batch for a while, and go on."""
    going = list(range(len(said)))
    """Which continuation each row of the batch is."""
    for step in range(how.max_new_tokens):
        tokens = _chosen(logits, how.temperature, numbers[going, step : step + 1])
        for at, token in zip(going, tokens.tolist(), strict=True):
            said[at].append(token)
            over[at] = over[at] or ends.ended(said[at])
        left = [row for row, at in enumerate(going) if not over[at]]
        if not left or step + 1 == how.max_new_tokens:
            break
        if len(left) <= STAYING * len(going):
            kept = torch.tensor(left, device=model.device)
            state.choose(kept)
            tokens, going = tokens[kept], [going[row] for row in left]
        logits = state.read(tokens[:, None], torch.ones_like(tokens[:, None]))[:, -1]
    return [said[i : i + how.samples] for i in range(0, len(said), how.samples)]


def _chosen(logits: Tensor, temperature: float, numbers: Tensor) -> Tensor:
    """The next token of each row, (rows,): the likeliest, or the one in whose share of [0, 1) its number lies.

    Args:
        logits: (rows, V).
        temperature: 0 for the likeliest.
        numbers: (rows, 1), unless it is 0.
    """
    logits = finite(logits.float())
    if temperature == 0:
        return logits.argmax(-1)
    shares = (logits / temperature).softmax(-1)
    # Adding up a whole vocabulary in float64 costs more than the softmax: so a block is found, then the token inside.
    blocks = torch.nn.functional.pad(shares, (0, -shares.shape[-1] % BLOCK)).unflatten(-1, (-1, BLOCK))
    sums = blocks.sum(-1).double()
    block, left = _found(sums, numbers)
    inside = blocks.take_along_dim(block[..., None], 1)[:, 0].double()
    token, _ = _found(inside, left)
    return (block * BLOCK + token)[:, 0].clamp_max(shares.shape[-1] - 1)


def _found(shares: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """In which share of [0, 1) each row's number lies, and where inside that share, both (rows, 1)."""
    ends = shares.cumsum(-1)
    at = numbers * ends[:, -1:]
    place = torch.searchsorted(ends, at, right=True).clamp_max(shares.shape[-1] - 1)
    mine = shares.gather(-1, place)
    before = ends.gather(-1, place) - mine
    return place, (at - before) / mine
