"""How far the edited model has moved on text that has nothing to do with the facts: KL, perplexity, weights.

Base and edited model are compared group by group, so that the base model's log-probabilities over the whole
vocabulary never take more than a fixed amount of memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unlearn.errors import AuditError
from unlearn.files import read_lines, read_text, text_in
from unlearn.model.editable import EditableModel
from unlearn.model.encoding import started, text_ids
from unlearn.model.guard import leading_ids
from unlearn.model.offload import parameters, shapes
from unlearn.model.rows import right_pad
from unlearn.patch import Patch

LONGEST = 512
"""Tokens of one text; longer ones are cut into pieces."""
MEMORY = 2 << 30
"""Bytes of base log-probabilities kept at a time."""
Row = tuple[int, ...]
_WHAT = "the held-out text"


@dataclass(frozen=True)
class TextDrift:
    """One text under both models: sums over its predicted tokens, in nats."""

    tokens: int
    kl: float
    """Sum of KL(before || after)."""
    nll_before: float
    nll_after: float


def read_texts(where: str) -> list[str]:
    """Texts of a .jsonl file ("text" of every line) or a text file (paragraphs between blank lines).

    Raises:
        AuditError: it cannot be read or holds no text.
    """
    path = Path(where)
    if path.suffix == ".jsonl":
        lines = enumerate(read_lines(path, _WHAT, error=AuditError), 1)
        texts = [text_in(line, f"{_WHAT} {path}:{n}", AuditError) for n, line in lines if line.strip()]
    else:
        texts = [part.strip() for part in read_text(path, _WHAT, error=AuditError).split("\n\n")]
    found = [text for text in texts if text.strip()]
    if not found:
        raise AuditError(f"{_WHAT} {path} is empty")
    return found


def rows_of(model: EditableModel, texts: Iterator[str] | Sequence[str], tokens: int) -> list[Row]:
    """Token ids of texts until `tokens` of them can be predicted.

    No row is longer than `LONGEST` tokens, or than the model's context where that is shorter.
    """
    rows: list[Row] = []
    left = tokens
    longest = min(LONGEST, model.context)
    for text in texts:
        ids = text_ids(model.tokenizer, text)
        for start in range(0, len(ids), longest):
            piece = tuple(ids[start : start + min(longest, left + 1)])
            if len(piece) >= 2:
                rows.append(piece)
                left -= len(piece) - 1
            if left <= 0:
                return rows
    return rows


def groups(rows: Sequence[Row], vocabulary: int, memory: int = MEMORY) -> Iterator[list[Row]]:
    """Consecutive rows whose float32 log-probabilities fit in `memory` bytes; never an empty group."""
    group: list[Row] = []
    size = 0
    for row in rows:
        cost = (len(row) - 1) * vocabulary * 4
        if group and size + cost > memory:
            yield group
            group, size = [], 0
        group.append(row)
        size += cost
    if group:
        yield group


@torch.inference_mode()
def log_probs(model: EditableModel, rows: Sequence[Row], memory: int = MEMORY // 8) -> Iterator[Tensor]:
    """Per row, the log-probabilities of every next token: (T - 1, V), float32, on the model's device.

    A guarded model reads its guard before each row, as much of it as the context has room for; what it predicts inside
    the guard is left out.
    """
    leads = [leading_ids(model.tokenizer, row)[: max(model.context - len(row), 0)] for row in rows]
    begins = [started(model.tokenizer, row) for row in rows]
    full = [(*row[:b], *lead, *row[b:]) for row, lead, b in zip(rows, leads, begins, strict=True)]
    at = 0
    while at < len(rows):
        # Rows of one batch are padded to the longest, so its length counts for all.
        stop, longest = at, 0
        while stop < len(rows):
            longest = max(longest, len(full[stop]))
            if stop > at and (stop + 1 - at) * longest * model.vocabulary * 4 > memory:
                break
            stop += 1
        batch = full[at:stop]
        ids, mask = right_pad(batch, model.pad_id, model.device)
        logits = model.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        for i, row in enumerate(batch):
            yield torch.log_softmax(logits[i, len(leads[at + i]) : len(row) - 1].float(), dim=-1)
        at = stop


@torch.inference_mode()
def text_drift(before: Tensor, after: Tensor, row: Row) -> TextDrift:
    """KL and negative log-likelihoods of one text.

    Args:
        before: (T - 1, V) log-probabilities of the unedited model.
        after: (T - 1, V) of the edited one.
        row: the T token ids.
    """
    p, q = before.to(after.device), after
    # 0 * (log 0 - log 0) is 0 by convention, and NaN in floats, where a model rules a token out entirely.
    terms = torch.where(p == -math.inf, torch.zeros((), device=q.device), p.exp() * (p - q))
    kl = float(terms.sum(-1).clamp_min(0).double().sum())
    target = torch.tensor(row[1:], device=q.device).unsqueeze(-1)
    nll = [-float(x.gather(-1, target).double().sum()) for x in (p, q)]
    return TextDrift(len(row) - 1, kl, nll[0], nll[1])


def between(model: EditableModel, patch: Patch, rows: Sequence[Row]) -> list[TextDrift]:
    """Every text under the unedited and the patched model, as many at a time as memory allows."""
    found = []
    for group in groups(rows, model.vocabulary):
        base = list(log_probs(model, group))
        with model.patched(patch):
            after = log_probs(model, group)
            found += [text_drift(old, new, row) for old, new, row in zip(base, after, group, strict=True)]
    return found


def norm_of_patch(model: EditableModel, patch: Patch) -> dict[str, float]:
    """Per edited weight, the Frobenius norm of the update relative to the weight's."""
    return {
        name: relative_to(factor.norm(), model.weight(name).double())
        for name, factor in patch.factors.items()
    }


def norm_of_difference(before: EditableModel, after: EditableModel) -> dict[str, float]:
    """Per parameter that differs between two models, the norm of the difference relative to the original.

    Gains and biases count like matrices: a model can be changed by them alone.

    Raises:
        AuditError: the models do not have the same parameters.
    """
    if shapes(before.model) != shapes(after.model):
        raise AuditError(
            "the two models do not have the same weight matrices, so no update can be taken between them"
        )
    found = {}
    after_it = parameters(after.model)
    for name, read in parameters(before.model).items():
        base = read().cpu().float()
        ratio = relative_to(float(torch.linalg.norm(after_it[name]().cpu().float() - base)), base)
        if ratio != 0:  # NaN is a difference as well
            found[name] = ratio
    return found


def relative_to(length: float, base: Tensor) -> float:
    """A length over a parameter's (Frobenius) norm; infinite where one of zeros has changed."""
    norm = float(torch.linalg.norm(base))
    return length / norm if norm else (math.inf if length else 0.0)
