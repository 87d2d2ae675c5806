"""Only what can change is computed again: rows are kept as they enter the first block that is written.

What an edit of blocks ``first`` and above trains on it reads hundreds of times. What enters block ``first`` is the same
every time, and so are the keys and values of a beginning that rows share (a chat template's system prompt), in every
block, as long as nothing is added at its tokens (``edit.train.null_space`` sees to that). Both are computed once.

Rows lie one behind another in a few lines (`model.lines`), so that next to no padding is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import accumulate

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from unlearn.model.budget import token_budget
from unlearn.model.cached import shortest_window
from unlearn.model.editable import EditableModel
from unlearn.model.forward import (
    BlockOutput,
    Reading,
    Stopped,
    batches,
    block_output,
    hooked,
    in_order,
    tapped,
    with_stream,
)
from unlearn.model.library import Network
from unlearn.model.lines import Lines
from unlearn.model.suspended import instead

MASKED = ("eager", "sdpa")
"""Ways of computing attention that take a mask of every pair of tokens."""


class Upper:
    """Rows that begin alike, ready to be read from block ``first`` on, by a model whose lower blocks do not change."""

    def __init__(
        self, model: EditableModel, rows: Sequence[Sequence[int]], first: int, front: Sequence[int] = ()
    ) -> None:
        """Read all rows once, up to block ``first``.

        Args:
            model: as it is below block ``first``, and as it is at the tokens of the front.
            rows: ids; each begins with the front and goes on behind it.
            first: the lowest block that may change.
            front: what they share.
        """
        self._model, self._first = model, first
        self._rows = [tuple(row[len(front) :]) for row in rows]
        self._front = _front(model, front) if front else ()
        # Where a window cuts rows, or attention takes masks of another kind, each row has a line of its own: these need
        # no mask but the model's.
        longest = max(map(len, rows), default=0)
        attention = model.model.config._attn_implementation
        self._apart = longest > shortest_window(model.model) or attention not in MASKED
        self._form: BlockOutput | None = None
        self._entering = self._below() if first else []

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    def packs(self, chosen: Sequence[int], gradients: bool, budget: int | None = None) -> Iterator[list[int]]:
        """Some of the rows in groups of like length, each as many tokens as one pass takes.

        Args:
            budget: how many these are; None: as many as the device bears now.
        """
        budget = budget or token_budget(self._model, gradients)
        group: list[int] = []
        read = 0
        for i in sorted(chosen, key=lambda i: len(self._rows[i])):
            size = len(self._rows[i])
            more = size * (len(group) + 1) if self._apart else read + size
            if group and more > budget:
                yield group
                group, more = [], size
            group.append(i)
            read = more
        if group:
            yield group

    def states(self, chosen: Sequence[int], last: Sequence[int]) -> Tensor:
        """Run some rows from block ``first`` on; gradients flow to whatever is trained there.

        Args:
            chosen: indices of rows, one pass.
            last: per row of these, how many of its last tokens are looked at: each by what predicts it.

        Returns:
            What enters the output embedding there (``model.head``), (tokens, d_model): the tokens follow the rows, and
            inside a row its positions.
        """
        # What stands at the end of a row predicts nothing that is looked at.
        rows = [self._rows[i][:-1] for i in chosen]
        lines = self._lines(rows)
        ends = [begin + len(row) for begin, row in zip(lines.begins, rows, strict=True)]
        at = [end - count + k for end, count in zip(ends, last, strict=True) for k in range(count)]
        states: list[Tensor] = []

        def pick(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
            states.append(given[0].flatten(0, 1)[at])
            raise Stopped

        head = self._model.model.get_output_embeddings()
        with hooked([head.register_forward_pre_hook(pick)]), suppress(Stopped):
            self._resumed(chosen, rows, lines)
        return states[0]

    @torch.inference_mode()
    def read(
        self,
        positions: Sequence[Sequence[int]],
        key_layers: Sequence[int] = (),
        stream_layers: Sequence[int] = (),
    ) -> Reading:
        """Keys and stream at chosen tokens of all rows, as ``forward.read`` gives them.

        Args:
            positions: per row, counted behind the front.
            key_layers: layers whose keys are read, none below ``first``.
            stream_layers: layers whose outputs are.
        """
        keys: dict[int, list[Tensor]] = {layer: [] for layer in key_layers}
        stream: dict[int, list[Tensor]] = {layer: [] for layer in stream_layers}
        starts = [0, *accumulate(map(len, positions))]
        columns: list[int] = []
        for group in self.packs(range(len(self._rows)), gradients=False):
            rows = [self._rows[i] for i in group]
            lines = self._lines(rows)
            places = [lines.begins[number] + at for number, i in enumerate(group) for at in positions[i]]
            columns += [at for i in group for at in range(starts[i], starts[i + 1])]

            def keep(store: list[Tensor], hidden: Tensor, places: list[int] = places) -> None:
                store.append(hidden.flatten(0, 1)[places].float())

            with (
                tapped(self._model, keys, stream, max([*key_layers, *stream_layers]), keep),
                suppress(Stopped),
            ):
                self._resumed(group, rows, lines)
        return in_order(columns, keys, stream)

    def _lines(self, rows: Sequence[Sequence[int]]) -> Lines:
        lengths = list(map(len, rows))
        return Lines.apart(lengths) if self._apart else Lines.of(lengths)

    def _pass(self, rows: Sequence[Sequence[int]], lines: Lines) -> None:
        front = self._front[0][0].shape[-2] if self._front else 0
        device = self._model.device
        cache = DynamicCache()
        for layer, pair in enumerate(self._front):
            cache.update(*(half.expand(lines.count, -1, -1, -1) for half in pair), layer)
        sees = None if self._apart else lines.sees(front).to(device)
        if sees is not None and self._model.model.config._attn_implementation != "sdpa":
            dtype = self._model.dtype
            sees = torch.zeros(sees.shape, dtype=dtype, device=device).masked_fill(
                ~sees, torch.finfo(dtype).min
            )
        ids = lines.laid(torch.tensor([token for row in rows for token in row]), self._model.pad_id)
        self._model.model(
            input_ids=ids.to(device),
            attention_mask=sees,
            position_ids=lines.positions(front).to(device),
            past_key_values=cache,
            use_cache=True,
        )

    @torch.no_grad()
    def _below(self) -> list[Tensor]:
        """Per row what enters block ``first``, (tokens behind the front, d_model)."""
        found: list[Tensor] = [torch.empty(0)] * len(self._rows)
        block = self._model.anatomy.block(self._model.model, self._first - 1)
        for group in batches(self._rows, token_budget(self._model)):
            caught: list[BlockOutput] = []

            def on_block(
                _module: nn.Module, _args: object, out: BlockOutput, to: list[BlockOutput] = caught
            ) -> None:
                to.append(out)
                raise Stopped

            rows = [self._rows[i] for i in group]
            lines = self._lines(rows)
            with hooked([block.register_forward_hook(on_block)]), suppress(Stopped):
                self._pass(rows, lines)
            self._form = caught[0]
            stream = block_output(caught[0]).flatten(0, 1)
            for i, begin in zip(group, lines.begins, strict=True):
                found[i] = stream[begin : begin + len(self._rows[i])].clone()
        return found

    def _resumed(self, chosen: Sequence[int], rows: Sequence[Sequence[int]], lines: Lines) -> None:
        """Pass beginnings of some rows, over the blocks below ``first``: the last of them gives what was kept."""
        if not self._first:
            self._pass(rows, lines)
            return
        kept = [self._entering[i][: len(row)] for i, row in zip(chosen, rows, strict=True)]
        stream = lines.laid(torch.cat(kept))
        form = self._form
        assert form is not None

        def passed(hidden: Tensor, *_args: object, **_more: object) -> BlockOutput:
            return with_stream(form, hidden)

        def given(*_args: object, **_more: object) -> BlockOutput:
            return with_stream(form, stream)

        with ExitStack() as stack:
            for layer in range(self._first):
                block = self._model.anatomy.block(self._model.model, layer)
                stack.enter_context(instead(block, given if layer == self._first - 1 else passed))
            self._pass(rows, lines)


@torch.no_grad()
def _front(model: EditableModel, front: Sequence[int]) -> tuple[tuple[Tensor, Tensor], ...]:
    """Keys and values of every block at a beginning, (1, heads, tokens, width)."""
    network: Network = model.model
    cache = DynamicCache()
    network(input_ids=torch.tensor([list(front)], device=model.device), past_key_values=cache, use_cache=True)
    return tuple((layer.keys, layer.values) for layer in cache.layers)
