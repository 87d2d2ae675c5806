"""Rows of token ids of different lengths: in one tensor, and continued by a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.errors import ModelError
from unlearn.model.ends import Ends
from unlearn.model.library import Network
from unlearn.progress import NO_PROGRESS, Progress

MOST = 256
"""Rows at a time, however short."""


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

    def options(self) -> dict[str, bool | float]:
        """What transformers' ``generate`` is given."""
        if self.temperature > 0:
            return {"do_sample": True, "temperature": self.temperature, "top_k": 0, "top_p": 1.0}
        return {"do_sample": False}


@contextmanager
def plainly(model: Network, ends: Ends) -> Iterator[None]:
    """Generate from the model's own probabilities, and not as its ``generation_config`` would bend them.

    That may hold a repetition penalty, suppressed tokens or a least length, which ``generate`` adds to whatever it is
    given: greedy replies would not be the likeliest, and no measure of the model that is edited.

    Args:
        model: a transformers model.
        ends: at whose tokens it stops.
    """
    from transformers import GenerationConfig

    kept = model.generation_config
    names = ("bos_token_id", "pad_token_id", "decoder_start_token_id")
    model.generation_config = GenerationConfig(
        eos_token_id=ends.configured(), **{name: getattr(kept, name, None) for name in names}
    )
    try:
        yield
    finally:
        model.generation_config = kept


def finite(_ids: Tensor | None, logits: Tensor) -> Tensor:
    """Hand logits (rows, V) on, as a logits processor of transformers does; -inf at some tokens is a right value.

    Raises:
        ModelError: a row has no largest one that is a finite number, so that no token can be chosen.
    """
    # The largest of numbers of which one is NaN is NaN.
    if not torch.isfinite(logits.amax(-1)).all():
        raise ModelError("the model gives next-token logits that are not finite, so it can say nothing")
    return logits


def left_pad(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Left-padded ids and mask, both (rows, longest), so that the last tokens stand in one column."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.as_tensor(list(row))
        mask[i, width - len(row) :] = 1
    return ids.to(device), mask.to(device)


@torch.inference_mode()
def continued(
    model: Network,
    rows: Sequence[Sequence[int]],
    pad: int,
    ends: Ends,
    how: Decoding,
    progress: Progress = NO_PROGRESS,
    label: str = "Generating",
) -> list[list[tuple[int, ...]]]:
    """Per row, in the order given, its continuations as ids: the end token included, padding cut off.

    Args:
        model: a transformers model; the global generators are left as they were.
        rows: ids, without padding.
        pad: an id to pad with.
        ends: what ends a continuation.
        how: greedy or sampled, and how far.
        progress: where to show it.
        label: what to call it.

    Raises:
        ModelError: the model's logits are not finite.
    """
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found: list[list[tuple[int, ...]]] = [[] for _ in rows]
    on_gpu = model.device.type == "cuda"
    budget = 32768 if on_gpu else 8192
    at = 0
    with (
        progress.step(label, total=len(rows)) as bar,
        torch.random.fork_rng(devices=[model.device] if on_gpu else []),
        plainly(model, ends),
    ):
        torch.manual_seed(how.seed)
        while at < len(order):
            longest = len(rows[order[min(at + MOST, len(order)) - 1]]) + how.max_new_tokens
            size = how.batch_size or max(1, min(MOST, budget // longest) // how.samples)
            chunk = order[at : at + size]
            ids, mask = left_pad([rows[i] for i in chunk], pad, model.device)
            out = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=how.max_new_tokens,
                num_return_sequences=how.samples,
                pad_token_id=pad,
                logits_processor=[finite],
                stopping_criteria=ends.stopping(),
                **how.options(),
            )[:, ids.shape[1] :].tolist()
            for row, i in enumerate(chunk):
                found[i] = [ends.until(ids) for ids in out[row * how.samples : (row + 1) * how.samples]]
            at += len(chunk)
            bar.advance(len(chunk))
    return found
