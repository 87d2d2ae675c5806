"""How likely a model holds given texts: mean log-probabilities per token."""

from __future__ import annotations

from collections.abc import Sequence

from unlearn.errors import AuditError
from unlearn.model.editable import EditableModel
from unlearn.model.scoring import Row, scored
from unlearn.progress import NO_PROGRESS, Progress


def log_likelihoods(
    model: EditableModel, rows: Sequence[Row], progress: Progress = NO_PROGRESS, label: str = ""
) -> list[float]:
    """Mean log-probability, in nats per token, of the last tokens of each row given all before them.

    Args:
        rows: ids, and how many of the last ones are rated.

    Raises:
        AuditError: a row has nothing to rate.
        ModelError: the model's logits are not finite.
    """
    if any(not 0 < size < len(ids) for ids, size in rows):
        raise AuditError("the tokenizer leaves no token for an answer, so its likelihood cannot be read")
    return [sum(one.log_probs) / len(one.log_probs) for one in scored(model, rows, progress, label)]
