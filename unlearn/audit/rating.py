"""How likely a model holds given texts: teacher-forced log-probabilities, without a token said."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unlearn.errors import AuditError
from unlearn.model.editable import EditableModel
from unlearn.model.forward import batches, position_ids, token_budget
from unlearn.model.rows import left_pad
from unlearn.progress import NO_PROGRESS, Progress

MEMORY = 512 << 20
"""Bytes of float32 logits at a time."""
Row = tuple[tuple[int, ...], int]
"""Token ids, and how many of the last ones are the answer's."""


@torch.inference_mode()
def log_likelihoods(
    model: EditableModel, rows: Sequence[Row], progress: Progress = NO_PROGRESS, label: str = ""
) -> list[float]:
    """Mean log-probability, in nats per token, of the last tokens of each row given all before them.

    Args:
        model: in any state.
        rows: ids, and how many of the last ones are rated.
        progress: where to show it.
        label: what to call it.

    Raises:
        AuditError: a row has nothing to rate, or the model returns something that is not a number.
    """
    if any(not 0 < size < len(ids) for ids, size in rows):
        raise AuditError("the tokenizer leaves no token for an answer, so its likelihood cannot be read")
    found = [0.0] * len(rows)
    vocabulary = int(model.model.config.get_text_config().vocab_size)
    # The last token predicts nothing, so rows that differ in it alone (the letters of a choice) share a pass.
    sharing: dict[tuple[int, ...], list[int]] = {}
    for i, (ids, _) in enumerate(rows):
        sharing.setdefault(tuple(ids[:-1]), []).append(i)
    contexts = list(sharing)
    with progress.step(label, total=len(rows)) as bar:
        for group in batches(contexts, token_budget(model)):
            keep = max(rows[i][1] for c in group for i in sharing[contexts[c]])
            most = max(1, MEMORY // (keep * vocabulary * 4))
            for at in range(0, len(group), most):
                part = [contexts[c] for c in group[at : at + most]]
                padded, mask = left_pad(part, model.pad_id, model.device)
                logits = model.model(
                    input_ids=padded,
                    attention_mask=mask,
                    position_ids=position_ids(mask),
                    use_cache=False,
                    logits_to_keep=keep,
                ).logits
                said = torch.log_softmax(logits.float(), dim=-1)  # (rows, keep or T, V)
                for row, context in enumerate(part):
                    for i in sharing[context]:
                        full, size = rows[i]
                        answer = torch.tensor(full[-size:], device=said.device).unsqueeze(-1)
                        found[i] = float(said[row, said.shape[1] - size :].gather(-1, answer).mean())
                    bar.advance(len(sharing[context]))
    if not all(score == score for score in found):
        raise AuditError("the model gives probabilities that are no numbers, so answers cannot be compared")
    return found
