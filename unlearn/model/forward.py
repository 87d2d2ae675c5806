"""Partial forward passes: read keys and stream at given tokens, or resume from a layer with a changed stream.

Rows are left-padded, so the last tokens of all rows stand in the last columns. Positions are given per row, counted
in the row itself (before padding).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from unlearn.model.budget import token_budget
from unlearn.model.cached import alike, prepared
from unlearn.model.editable import EditableModel
from unlearn.model.rows import left_pad, position_ids

BlockOutput: TypeAlias = Tensor | tuple[Tensor, ...]
"""What a block puts out: the stream since transformers 5, a tuple that begins with it in a few families."""


class Reading(NamedTuple):
    """What was read; columns follow the rows, and inside a row its positions."""

    keys: Mapping[int, Tensor]
    """Per layer, the inputs of the down-projection: (d_ff, n), float32."""
    stream: Mapping[int, Tensor]
    """Per layer, the block's outputs: (d_model, n), float32."""


@contextmanager
def hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """For as long as it is entered, hooks stay where they were put."""
    kept = list(handles)
    try:
        yield
    finally:
        for handle in kept:
            handle.remove()


def passed(model: EditableModel, ids: Tensor, mask: Tensor, keep: int = 0) -> Tensor:
    """Logits of a whole pass at the last ``keep`` columns (0: at all), (rows, keep, V).

    Args:
        ids: (rows, T), left-padded.
        mask: (rows, T).
    """
    logits: Tensor = model.model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=position_ids(mask),
        use_cache=False,
        logits_to_keep=keep,
    ).logits
    return logits


class Stopped(Exception):
    """Raised by a hook to end a pass when nothing deeper is needed."""


def batches(rows: Sequence[Sequence[int]], budget: int) -> Iterator[list[int]]:
    """Indices of rows, grouped by similar length, each group within ``budget`` padded tokens."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    group: list[int] = []
    for i in order:
        if group and (len(group) + 1) * len(rows[i]) > budget:
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def _alike(rows: Sequence[Sequence[int]], budget: int) -> Iterator[list[int]]:
    """As ``batches``, with rows that begin alike together."""
    for some in map(sorted, alike(rows)):
        yield from ([some[at] for at in batch] for batch in batches([rows[i] for i in some], budget))


@torch.inference_mode()
def read(
    model: EditableModel,
    rows: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    key_layers: Sequence[int] = (),
    stream_layers: Sequence[int] = (),
) -> Reading:
    """Keys and stream at chosen tokens; the pass ends at the deepest layer that is asked for.

    What rows begin with in front of all chosen tokens, such as a chat template's system prompt, is read once.

    Raises:
        ModelError: a row is longer than the model takes: whatever came out, nobody would have trained it.
    """
    model.longest(rows)
    keys: dict[int, list[Tensor]] = {layer: [] for layer in key_layers}
    stream: dict[int, list[Tensor]] = {layer: [] for layer in stream_layers}
    deepest = max([*key_layers, *stream_layers])
    starts = torch.tensor([0, *map(len, positions)]).cumsum(0).tolist()
    columns: list[int] = []
    for group in _alike(rows, token_budget(model)):
        front = min((p for i in group for p in positions[i]), default=0)
        state, ids, mask = prepared(model.model, [rows[i] for i in group], model.pad_id, most=front)
        width = ids.shape[1]
        sites = [(row, width - len(rows[i]) + p) for row, i in enumerate(group) for p in positions[i]]
        row, column = torch.tensor(sites, device=model.device).reshape(-1, 2).T
        columns += [at for i in group for at in range(starts[i], starts[i + 1])]

        def keep(store: list[Tensor], hidden: Tensor, row: Tensor = row, column: Tensor = column) -> None:
            store.append(hidden[row, column].float())  # (sites, width)

        with tapped(model, keys, stream, deepest, keep):
            with suppress(Stopped):
                state.read(ids, mask)
    return in_order(columns, keys, stream)


def in_order(
    columns: Sequence[int], keys: Mapping[int, Sequence[Tensor]], stream: Mapping[int, Sequence[Tensor]]
) -> Reading:
    """What was read group by group, its columns in the order in which they were asked for.

    Args:
        columns: where each column belongs.
        keys: per layer, parts of (columns, d_ff) each.
        stream: per layer, parts of (columns, d_model) each.
    """
    order = torch.tensor(columns).argsort()
    return Reading(
        {layer: torch.cat(list(got))[order.to(got[0].device)].T for layer, got in keys.items()},
        {layer: torch.cat(list(got))[order.to(got[0].device)].T for layer, got in stream.items()},
    )


def tapped(
    model: EditableModel,
    keys: Mapping[int, list[Tensor]],
    stream: Mapping[int, list[Tensor]],
    deepest: int,
    keep: Callable[[list[Tensor], Tensor], None],
) -> AbstractContextManager[None]:
    """Within it, a pass hands keys and stream over, and ends at the deepest layer that is asked for (``Stopped``).

    Args:
        keep: takes the place and what was read, (rows, T, width), where the model's rows are.
    """
    anatomy = model.anatomy

    def on_key(layer: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            keep(keys[layer], args[0].to(model.device))
            if layer == deepest and deepest not in stream:
                raise Stopped

        return hook

    def on_block(layer: int) -> Callable[[nn.Module, tuple[Tensor, ...], BlockOutput], None]:
        def hook(_module: nn.Module, _args: tuple[Tensor, ...], out: BlockOutput) -> None:
            keep(stream[layer], block_output(out).to(model.device))
            if layer == deepest:
                raise Stopped

        return hook

    handles = [anatomy.down(model.model, at).register_forward_pre_hook(on_key(at)) for at in keys]
    handles += [anatomy.block(model.model, at).register_forward_hook(on_block(at)) for at in stream]
    return hooked(handles)


def block_output(out: BlockOutput) -> Tensor:
    """The stream in a block's output."""
    return out if isinstance(out, Tensor) else out[0]


def with_stream(out: BlockOutput, stream: Tensor) -> BlockOutput:
    """A block's output with another stream in it, in the shape that the family's blocks have (GPT-J: a tuple)."""
    return stream if isinstance(out, Tensor) else (stream, *out[1:])


def changed(module: nn.Module, change: Callable[[Tensor], Tensor]) -> AbstractContextManager[None]:
    """Let a module put out something else: a tensor, or the first of the tuple that it puts out."""

    def on_output(_module: nn.Module, _args: object, out: BlockOutput) -> BlockOutput:
        return with_stream(out, change(block_output(out)))

    return hooked([module.register_forward_hook(on_output)])


class Replies(NamedTuple):
    """Where replies are predicted that stand at the end of rows; those of a shorter one are the last."""

    logits: Tensor
    """(rows, longest reply, V), float32."""
    targets: Tensor
    """(rows, longest reply): ids."""
    mask: Tensor
    """(rows, longest reply): whether the token belongs to the reply, and not to the prompt before a shorter one."""

    def log_probs(self) -> Tensor:
        """(rows, longest reply, V)."""
        return self.logits.log_softmax(-1)

    def sums(self) -> Tensor:
        """Negative log-likelihood of each reply, (rows,)."""
        each = -self.log_probs().gather(-1, self.targets[..., None])[..., 0]
        return (each * self.mask).sum(1)

    def nll(self) -> Tensor:
        """The same per token."""
        return self.sums() / self.mask.sum(1)

    def each(self) -> list[Tensor]:
        """Per row the logits at its own reply, (reply, V)."""
        return [row[-size:] for row, size in zip(self.logits, self.mask.sum(1).tolist(), strict=True)]


def replies(model: EditableModel, rows: Sequence[tuple[Sequence[int], int]]) -> Replies:
    """Read rows in one batch, teacher-forced; gradients flow to whatever is being trained.

    Args:
        rows: ids, and how many of the last ones are the reply.
    """
    longest = max(reply for _, reply in rows)
    ids, mask = left_pad([row for row, _ in rows], model.pad_id, model.device)
    logits = passed(model, ids, mask, longest + 1)[:, :-1].float()
    lengths = torch.tensor([reply for _, reply in rows], device=ids.device)
    at = torch.arange(longest, device=ids.device)
    return Replies(logits, ids[:, -longest:], at[None] >= longest - lengths[:, None])


@torch.inference_mode()
def predicted(
    model: EditableModel, rows: Sequence[tuple[Sequence[int], int]]
) -> Iterator[tuple[int, Tensor]]:
    """Per row its index and the logits that predict its reply, (reply, V), float32; in an order that saves padding.

    What rows begin with in front of all replies is read once.
    """
    for group in _alike([ids for ids, _ in rows], token_budget(model)):
        some = [rows[i] for i in group]
        # The token in front of a reply predicts its first one.
        front = min(len(ids) - reply - 1 for ids, reply in some)
        state, left, mask = prepared(model.model, [ids for ids, _ in some], model.pad_id, most=front)
        logits = state.read(left, mask, max(reply for _, reply in some) + 1)[:, :-1].float()
        yield from ((i, mine[-reply:]) for i, mine, (_, reply) in zip(group, logits, some, strict=True))


def stopped_at(
    model: EditableModel, rows: Sequence[Sequence[int]], layer: int
) -> tuple[Tensor, Tensor, BlockOutput]:
    """Run rows (all in one batch) up to block ``layer``: ids and mask, (rows, T), and the block's output as it is.

    Gradients flow to whatever is being trained.
    """
    ids, mask = left_pad(rows, model.pad_id, model.device)
    caught: list[BlockOutput] = []

    def on_block(_module: nn.Module, _args: object, out: BlockOutput) -> None:
        caught.append(out)
        raise Stopped

    handle = model.anatomy.block(model.model, layer).register_forward_hook(on_block)
    with hooked([handle]), suppress(Stopped):
        passed(model, ids, mask)
    return ids, mask, caught[0]
