"""The model as lm-eval asks it: its own ids and its own way to stop, and this program's batches.

Imported only where a task is run, since lm-eval takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from lm_eval.models.huggingface import HFLM

from unlearn.model.editable import EditableModel
from unlearn.model.encoding import opening
from unlearn.model.scoring import Row, scored

Request: TypeAlias = tuple[tuple[str, str], list[int], list[int]]
"""Texts, which nobody looks at, and ids of the context and of the continuation; both have one at least."""


class Evaluated(HFLM):  # type: ignore[misc]
    """A model in memory whose continuations are rated by ``unlearn.model.scoring``."""

    def __init__(self, model: EditableModel, batch_size: int, longest: int, starts: bool | None) -> None:
        """Wrap a model as it stands.

        Args:
            model: is asked, and left as it is.
            batch_size: rows at a time, where lm-eval generates.
            longest: most tokens of a row.
            starts: whether the start token is put in front of texts; None as the tokenizer does.
        """
        super().__init__(
            pretrained=model.model,
            tokenizer=opening(model.tokenizer),
            batch_size=batch_size,
            max_length=longest,
            add_bos_token=starts,
        )
        self._rated = model

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """Summed log-probability of each continuation, and whether it is the greedy one."""
        rows = [self._row(context, ending) for _, context, ending in requests]
        made = scored(self._rated, rows)
        for (texts, *_), one in zip(requests, made, strict=True):
            self.cache_hook.add_partial("loglikelihood", texts, (sum(one.log_probs), one.greedy))
        return [(sum(one.log_probs), one.greedy) for one in made]

    def _row(self, context: Sequence[int], ending: Sequence[int]) -> Row:
        """The last tokens of both that the model takes, as many as are read to predict the last one, and that one."""
        ids = tuple([*context, *ending][-(self.max_length + 1) :])
        return ids, min(len(ending), len(ids) - 1)
