"""The published procedure of AlphaEdit, as its formulas and its authors' figures describe it, to be timed against ours.

One fact at a time; every step a pass through all layers with logits at every position; keys and streams read anew for
every layer by passes through the whole model; a dense, non-symmetric d_ff x d_ff system per layer. Written from the
formulas alone (MEMIT's objective, AlphaEdit's equation 14), and used for its time only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.timing import busy_of
from unlearn.edit.forms import Row
from unlearn.model.editable import EditableModel
from unlearn.model.forward import batches, block_output, position_ids, with_stream
from unlearn.model.rows import left_pad

LR, CLAMP, DECAY, RIDGE = 0.1, 0.75, 0.5, 10.0
"""Published for Llama-3-8B: step, clamp, weight decay and L2."""
AT_ONCE = 8192
"""Tokens per pass while keys are read."""


def values_of(
    model: EditableModel, rows: Sequence[Row], about: Sequence[int], layer: int, steps: int
) -> Tensor:
    """Optimise one fact's value as published, (d_model,).

    Args:
        rows: the fact's prompts with their targets, each with one site.
        about: ids of the prompt on which the distribution must stay.
        steps: of Adam; none is saved.
    """
    ids, mask = left_pad([row.ids for row in rows] + [tuple(about)], model.pad_id, model.device)
    width = ids.shape[1]
    site = [width - len(row.ids) + row.sites[0][1] for row in rows] + [width - 1]
    at = torch.arange(len(ids), device=ids.device), torch.tensor(site, device=ids.device)
    targets = torch.full_like(ids, -100)
    for i, row in enumerate(rows):
        targets[i, -row.reply :] = ids[i, -row.reply :]
    vector = torch.zeros(model.anatomy.d_model, device=ids.device, requires_grad=True)
    length: list[float] = []

    def on_block(_module: object, _args: object, out: object) -> object:
        stream = block_output(out)
        if not length:
            length.append(float(stream[0, site[0]].norm()))
        moved = stream.index_put(at, vector.to(stream.dtype).expand(len(ids), -1), accumulate=True)
        return with_stream(out, moved)

    optimiser, before = torch.optim.Adam([vector], lr=LR), None
    handle = model.anatomy.block(model.model, layer).register_forward_hook(on_block)
    try:
        for _ in range(steps):
            optimiser.zero_grad()
            logits = model.model(
                input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False
            ).logits
            log_probs = logits.float().log_softmax(-1)
            now = log_probs[-1, -1]
            before = now.detach() if before is None else before
            wanted = targets[:, 1:]
            nll = -log_probs[:, :-1].gather(-1, wanted.clamp_min(0)[..., None])[..., 0]
            loss = (nll * (wanted >= 0)).sum() / (wanted >= 0).sum()
            loss = loss + 0.0625 * (before.exp() * (before - now)).sum()
            (loss + DECAY * vector.norm() / length[0] ** 2).backward()
            optimiser.step()
            with torch.no_grad():
                vector *= (CLAMP * length[0] / vector.norm().clamp_min(1e-12)).clamp_max(1)
    finally:
        handle.remove()
    return vector.detach()


@torch.no_grad()
def keys_of(model: EditableModel, rows: Sequence[Row], layer: int) -> Tensor:
    """Keys at the rows' sites by passes through the whole model with all its logits, (d_ff, rows)."""
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    for group in batches([row.ids for row in rows], AT_ONCE):
        ids, mask = left_pad([rows[i].ids for i in group], model.pad_id, model.device)
        caught: list[Tensor] = []
        handle = model.anatomy.down(model.model, layer).register_forward_pre_hook(
            lambda _module, args, caught=caught: caught.append(args[0])
        )
        try:
            model.model(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False)
        finally:
            handle.remove()
        for row, i in enumerate(group):
            found[i] = caught[0][row, ids.shape[1] - len(rows[i].ids) + rows[i].sites[0][1]]
    return torch.stack(found, 1).float()


def solved(keys: Tensor, residuals: Tensor, projector: Tensor, cache: Tensor) -> Tensor:
    """AlphaEdit's dense system of one layer, (d_ff, d_out); ``cache`` becomes what the next batch keeps."""
    system = projector @ (keys @ keys.T + cache)
    system.diagonal().add_(RIDGE)
    found = torch.linalg.solve(system, projector @ (keys @ residuals.T))
    cache += keys @ keys.T
    return found


def seconds(
    model: EditableModel,
    rows: Sequence[Sequence[Row]],
    about: Sequence[Sequence[int]],
    layers: Sequence[int],
    steps: int,
    sample: int,
) -> dict[str, float]:
    """Busy seconds of the published procedure for a batch of facts; statistics and the projector are not counted.

    Values are measured on the first ``sample`` facts, the other parts at one layer, and multiplied up.

    Args:
        rows: per fact, its prompts with their targets.
        about: per fact, ids of "{subject} is a".
        sample: how many facts' values are computed.
    """
    device, last = model.device, layers[-1]
    values_of(model, rows[0], about[0], last, 1)  # warms up what is compiled or allocated on first use

    def values() -> None:
        for mine, theirs in zip(rows[:sample], about[:sample], strict=True):
            values_of(model, mine, theirs, last, steps)

    every = [row for mine in rows for row in mine]
    firsts = [mine[0] for mine in rows]
    keys: list[Tensor] = []
    reading = busy_of(lambda: keys.append(keys_of(model, every, layers[0])), device)
    reading += busy_of(lambda: keys.append(keys_of(model, firsts, layers[0])), device)
    width = model.anatomy.d_ff
    basis = torch.linalg.qr(torch.randn(width, width // 4, device=device))[0]
    projector, cache = (
        torch.eye(width, device=device) - basis @ basis.T,
        torch.zeros(width, width, device=device),
    )
    gains = torch.randn(model.anatomy.d_model, len(rows), device=device)
    found = {
        "values": busy_of(values, device) * len(rows) / min(sample, len(rows)),
        "keys": reading * len(layers),
        "solve": busy_of(lambda: solved(keys[1], gains, projector, cache), device) * len(layers),
    }
    return {**found, "total": sum(found.values())}
