"""Passes that are suspended behind a layer, and resumed above it any number of times with a changed stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unlearn.model.editable import EditableModel
from unlearn.model.forward import block_output, position_ids, stopped_at

if TYPE_CHECKING:
    from transformers import DynamicCache


@dataclass(frozen=True)
class Suspended:
    """Rows that were run up to the output of a layer, ready to be resumed any number of times."""

    model: EditableModel
    layer: int
    ids: Tensor
    """(rows, T), left-padded."""
    mask: Tensor
    """(rows, T)."""
    stream: Tensor
    """Output of block ``layer`` at the last columns, (rows, T - begin, d_model), in the model's dtype."""
    tupled: bool = False
    """Whether this family's blocks put the stream into a tuple."""
    past: tuple[tuple[Tensor, Tensor], ...] = ()
    """Per block above the layer, attention's keys and values at the columns before, each (rows, heads, begin, d)."""

    @classmethod
    @torch.no_grad()
    def at(cls, model: EditableModel, rows: Sequence[Sequence[int]], layer: int) -> Suspended:
        """Run rows (all in one batch) up to the output of block ``layer``."""
        ids, mask, out = stopped_at(model, rows, layer)
        stream = block_output(out).detach().to(model.device)
        return cls(model, layer, ids, mask, stream, not isinstance(out, Tensor))

    @property
    def begin(self) -> int:
        """The first column that is computed anew by every ``logits``."""
        return self.ids.shape[1] - self.stream.shape[1]

    @torch.no_grad()
    def behind(self, begin: int) -> Suspended:
        """The same, for a stream that only changes from column ``begin`` on: what is before is computed once, here."""
        from transformers import DynamicCache

        cache = DynamicCache(config=self.model.model.config)
        if begin <= 0 or self.begin:
            return self
        with _resumed(self.model, self.layer, self.stream[:, :begin], self.tupled):
            self.model.model(
                input_ids=self.ids[:, :begin],
                attention_mask=self.mask[:, :begin],
                position_ids=position_ids(self.mask)[:, :begin],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        above = [(layer.keys, layer.values) for layer in cache.layers[self.layer + 1 :]]
        if any(keys.shape[-2] != begin for keys, _ in above):
            return self  # a sliding window is shorter and has let go of the first
        return replace(self, stream=self.stream[:, begin:], past=tuple(above))

    def select(self, rows: Tensor) -> Suspended:
        """Some of the rows, by index, with columns that only held padding dropped."""
        mask, begin = self.mask[rows], self.begin
        first = int(mask.any(0).float().argmax())
        past = tuple(
            (keys[rows.to(keys.device), :, first:], values[rows.to(values.device), :, first:])
            for keys, values in self.past
        )
        return replace(
            self,
            ids=self.ids[rows, first:],
            mask=mask[:, first:],
            stream=self.stream[rows, max(first - begin, 0) :],
            past=past if first < begin else (),
        )

    def logits(self, stream: Tensor, keep: int) -> Tensor:
        """Resume above the layer with another stream; logits of the last ``keep`` columns, (rows, keep, V).

        Gradients flow to ``stream``, of the same shape as ``self.stream``. Only layers above ``layer`` are computed.
        """
        begin = self.begin
        with _resumed(self.model, self.layer, stream, self.tupled):
            found: Tensor = self.model.model(
                input_ids=self.ids[:, begin:],
                attention_mask=self.mask,
                position_ids=position_ids(self.mask)[:, begin:],
                past_key_values=self._cache(begin) if begin else None,
                use_cache=bool(begin),
                logits_to_keep=keep,
            ).logits
        return found

    def _cache(self, begin: int) -> DynamicCache:
        """A cache of its own for one pass, which adds to it."""
        from transformers import DynamicCache

        cache = DynamicCache(config=self.model.model.config)
        # Blocks up to the layer hand their input on and read no cache; masks are as long as the first one's.
        nothing = self.stream.new_zeros(1, 1, begin, 1)
        below = [(nothing, nothing)] * (self.layer + 1)
        for layer, (keys, values) in enumerate([*below, *self.past]):
            cache.update(keys, values, layer)
        return cache


@contextmanager
def _resumed(model: EditableModel, layer: int, stream: Tensor, tupled: bool) -> Iterator[None]:
    """Blocks below ``layer`` hand their input on, block ``layer`` hands out ``stream``.

    The model's own pass runs around them, so that masks, positions and the scaling of logits are the family's own.
    """
    blocks = [model.anatomy.block(model.model, index) for index in range(layer + 1)]

    def hand(hidden: Tensor) -> Tensor | tuple[Tensor, None]:
        return (hidden, None) if tupled else hidden

    with ExitStack() as stack:
        for block in blocks[:-1]:
            stack.enter_context(instead(block, lambda hidden, *_args, **_kwargs: hand(hidden)))
        stack.enter_context(instead(blocks[-1], lambda *_args, **_kwargs: hand(stream)))
        yield


@contextmanager
def instead(module: nn.Module, forward: Callable[..., object]) -> Iterator[None]:
    """Let a module do something else for a while.

    What it did may be an attribute of its own: accelerate wraps the passes of a model on several devices so.
    """
    own = vars(module)
    former = own.get("forward")
    own["forward"] = forward
    try:
        yield
    finally:
        if former is None:
            del own["forward"]
        else:
            own["forward"] = former
