"""A model as its configuration describes it, without memory behind its weights: an edit of it can be planned.

Everything that hangs on the tokenizer and on sizes is there. Nothing can be computed with it.
"""

from __future__ import annotations

import torch

from unlearn.errors import ModelError
from unlearn.model.editable import EditableModel
from unlearn.model.loading import Checkpoint
from unlearn.model.trial import suited
from unlearn.patch import Deltas


class Outline(EditableModel):
    """What stands for a model whose weights are not here, or are more than the memory of its device."""

    def __init__(self, found: Checkpoint) -> None:
        """Take the model of a checkpoint; raises ModelError for a family or a tokenizer that cannot be edited."""
        suited(found.empty, found.tokenizer, found.name)
        super().__init__(found.empty.to(found.dtype), found.tokenizer, found.name, found.kept)
        self._place = torch.device(found.device)

    @property
    def device(self) -> torch.device:
        """Where it would be computed."""
        return self._place

    @property
    def offloaded(self) -> bool:
        """No weights are on disk or in the host's memory: there are none anywhere."""
        return False

    def accepts(self, patch: Deltas) -> None:
        """Raise ModelError: whether a patch fits is told by weights."""
        raise ModelError(
            f"{self.name}: its weights are not in memory, and whether an earlier edit fits is told by them; leave "
            "--onto out, or plan on a machine that holds the model"
        )
