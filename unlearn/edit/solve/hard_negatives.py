"""Hard negatives: the keys of those corpus tokens that an update would move most, which must keep their values.

The metric protects the corpus on average. What an average does not see, single tokens that look like a look-up token
(an "I" that begins a question, when the refusal begins with "I"), is found by trying the update on the keys of a sample
of the corpus, and enters the equation as further columns with zero residual.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from unlearn.algebra.low_rank import LowRank
from unlearn.edit.corpus import Corpus, unnamed
from unlearn.model.editable import EditableModel
from unlearn.model.encoding import text_ids
from unlearn.model.forward import read
from unlearn.model.requests import Requests
from unlearn.progress import NO_PROGRESS, Progress

LONGEST = 160
"""Tokens of one document."""
AT_ONCE = 64
"""Documents per call, so that memory does not depend on how many are read."""
SHARE = 0.08
"""Of the sample, per turn: the tokens that move most."""
TURNS = 2
"""The tokens that move most once those are kept are looked for as well."""


def corpus_keys(
    model: EditableModel,
    requests: Requests,
    corpus: Corpus,
    layers: Sequence[int],
    tokens: int,
    progress: Progress = NO_PROGRESS,
) -> dict[int, Tensor]:
    """Keys at the tokens of documents that name no subject of the policy, per layer (d_in, N), N about ``tokens``.

    They stay in the host's memory, of which a wide model's take several GB, and go to the device a layer at a time.
    """
    kept: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    left = tokens
    stream = unnamed(requests, corpus)
    with progress.step("Hard negatives", total=tokens) as bar:
        while left > 0:
            rows = [
                text_ids(model.tokenizer, document)[: min(LONGEST, model.context)]
                for document in islice(stream, AT_ONCE)
            ]
            rows = [row for row in rows if row]
            if not rows:
                break
            found = read(model, rows, [range(len(row)) for row in rows], list(layers)).keys
            for layer, keys in found.items():
                kept[layer].append(keys[:, :left].cpu())
            seen = sum(map(len, rows))
            left -= seen
            bar.advance(seen)
    return {layer: torch.cat(parts, 1) for layer, parts in kept.items() if parts}


def most_moved(delta: LowRank, keys: Tensor, chosen: Tensor, share: float = SHARE) -> Tensor:
    """Add the keys that an update moves most to those chosen before.

    Args:
        delta: of (d_out, d_in).
        keys: (d_in, N).
        chosen: (N,), bool.
        share: of N, how many are added.
    """
    moved = (delta.left @ (delta.right @ keys.to(delta.right))).norm(dim=0)
    moved[chosen] = -1
    more = chosen.clone()
    more[moved.topk(max(1, round(share * keys.shape[1]))).indices] = True
    return more
