"""Causal tracing: at which token and layer does the model recall an answer?

Noise on the subject's embeddings makes the answer unlikely; then one hidden state at a time is put back to what it was
without noise. How much of the answer's probability returns is the *indirect effect* of that state. Done for the
stream, for the outputs of MLPs and of attention over a window of layers, and for the stream while the MLPs, or the
attention, of that token are severed: held at what they put out under noise, so that they cannot pass the state on.

Source: Meng, Bau, Andonian, Belinkov, "Locating and Editing Factual Associations in GPT", NeurIPS 2022, section 2.

Tokens before the subject are not traced: in a causal model noise does not reach them, so nothing can be restored there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.errors import ModelError
from unlearn.model.editable import EditableModel
from unlearn.model.forward import batches, changed, position_ids, token_budget
from unlearn.model.rows import left_pad
from unlearn.model.suspended import Suspended
from unlearn.model.traced import (
    ATTENTION,
    KINDS,
    MLP,
    NO_MLP,
    STATE,
    Trace,
    Traceable,
    default_window,
    span,
)
from unlearn.progress import NO_PROGRESS, Progress

MEMORY = 1 << 29
"""Bytes of recorded states kept at a time."""


@dataclass(frozen=True)
class _Run:
    """Everything a whole pass computed: per layer (rows, T, d_model); the probability of each row's target."""

    stream: list[Tensor]
    mlp: list[Tensor]
    attention: list[Tensor]
    probability: Tensor


def spread(model: EditableModel, prompts: Sequence[Traceable]) -> float:
    """Standard deviation of all elements of the subject tokens' embeddings, as the model computes them."""
    ids = [row.ids[i] for row in prompts for i in range(row.subject[0], row.subject[1] + 1)]
    with torch.inference_mode():
        embedded = model.model.get_input_embeddings()(torch.tensor([ids], device=model.device))
    return float(embedded.float().std())


@torch.inference_mode()
def trace(
    model: EditableModel,
    prompts: Sequence[Traceable],
    noise: float = 3.0,
    samples: int = 10,
    window: int | None = None,
    seed: int = 0,
    kinds: Sequence[str] = KINDS,
    progress: Progress = NO_PROGRESS,
) -> list[Trace]:
    """Trace prompts.

    Args:
        prompts: what to trace; the answer must be their next token.
        noise: standard deviation of the noise, relative to that of the subjects' embeddings (``spread``).
        samples: draws of the noise per prompt. Draws depend on the seed and the prompt's place alone.
        window: layers of MLP or attention outputs that are restored together; by default ``default_window``.

    Returns:
        One trace per prompt, on the CPU.

    Raises:
        ModelError: a prompt without a subject before its end, or probabilities that are not finite.
    """
    if not prompts:
        return []
    if any(not 0 <= row.subject[0] <= row.subject[1] < len(row.ids) for row in prompts):
        raise ModelError("a prompt cannot be traced: its subject lies outside its tokens")
    anatomy = model.anatomy
    size = 3 * anatomy.layers * anatomy.d_model * model.model.dtype.itemsize * (samples + 1)
    found: dict[int, Trace] = {}
    deviation = noise * spread(model, prompts)
    window = window or default_window(anatomy.layers)
    with progress.step("Tracing", total=len(prompts)) as bar:
        for group in batches([row.ids for row in prompts], max(1, MEMORY // size)):
            draws = [_draw(prompts[i], samples, deviation, anatomy.d_model, seed, i) for i in group]
            traced = _Group(model, [prompts[i] for i in group], draws, samples, window).traces(kinds)
            found.update(zip(group, traced, strict=True))
            bar.advance(len(group))
    return [found[i] for i in range(len(prompts))]


def _draw(row: Traceable, samples: int, deviation: float, width: int, seed: int, number: int) -> Tensor:
    """Noise for the subject's tokens, (samples, tokens, width)."""
    generator = torch.Generator().manual_seed((seed << 24) + number)
    tokens = row.subject[1] - row.subject[0] + 1
    return deviation * torch.randn((samples, tokens, width), generator=generator)


class _Group:
    """Prompts of similar length that are traced in one go. Rows under noise: prompt by prompt, its samples in turn."""

    def __init__(
        self,
        model: EditableModel,
        prompts: Sequence[Traceable],
        draws: Sequence[Tensor],
        samples: int,
        window: int,
    ) -> None:
        self.model, self.prompts, self.samples, self.window = model, prompts, samples, window
        self.ids, self.mask = left_pad([row.ids for row in prompts], model.pad_id, model.device)
        self.targets = torch.tensor([row.target for row in prompts], device=model.device)
        width = self.ids.shape[1]
        self.pads = [width - len(row.ids) for row in prompts]
        self.noise = torch.zeros(len(prompts) * samples, width, model.anatomy.d_model, device=model.device)
        for number, (row, draw) in enumerate(zip(prompts, draws, strict=True)):
            begin, end = self.pads[number] + row.subject[0], self.pads[number] + row.subject[1] + 1
            self.noise[number * samples : (number + 1) * samples, begin:end] = draw.to(model.device)
        self.noise = self.noise.to(model.dtype)
        self.tupled = Suspended.at(model, [prompts[0].ids], 0).tupled
        self.clean = self._record(torch.arange(len(prompts), device=model.device), None)
        self.owner = torch.arange(len(prompts), device=model.device).repeat_interleave(samples)
        self.corrupted = self._record(self.owner, self.noise)
        if not torch.isfinite(self.corrupted.probability).all():
            raise ModelError("the model's probabilities are not finite under noise; lower --noise")

    def traces(self, kinds: Sequence[str]) -> list[Trace]:
        layers = self.model.anatomy.layers
        sites = [
            (number * self.samples + sample, self.pads[number] + at)
            for number, row in enumerate(self.prompts)
            for at in range(row.first, len(row.ids))
            for sample in range(self.samples)
        ]
        rows, columns = torch.tensor(sites, device=self.model.device).T
        before = self.corrupted.probability[rows]
        effects = {
            kind: [self._restored(kind, layer, rows, columns) - before for layer in range(layers)]
            for kind in kinds
        }
        found = []
        begin = 0
        for number, row in enumerate(self.prompts):
            tokens = len(row.ids) - row.first
            end = begin + tokens * self.samples
            mine = slice(number * self.samples, (number + 1) * self.samples)
            found.append(
                Trace(
                    clean=float(self.clean.probability[number]),
                    corrupted=float(self.corrupted.probability[mine].mean()),
                    effects={
                        kind: torch.stack([part[begin:end].view(tokens, -1).mean(1).cpu() for part in parts])
                        for kind, parts in effects.items()
                    },
                    roles=tuple(row.role(at) for at in range(row.first, len(row.ids))),
                )
            )
            begin = end
        return found

    def _restored(self, kind: str, layer: int, rows: Tensor, columns: Tensor) -> Tensor:
        """Probability of the target when the token in each row's column is restored at a layer, (sites,)."""
        size = max(1, token_budget(self.model) // self.ids.shape[1])
        parts = [
            self._some(kind, layer, rows[at : at + size], columns[at : at + size])
            for at in range(0, len(rows), size)
        ]
        return torch.cat(parts)

    def _some(self, kind: str, layer: int, rows: Tensor, columns: Tensor) -> Tensor:
        model, anatomy = self.model, self.model.anatomy
        owner = self.owner[rows]
        each = torch.arange(len(rows), device=rows.device)

        def put(values: list[Tensor], at: int, source: Tensor) -> Callable[[Tensor], Tensor]:
            def change(out: Tensor) -> Tensor:
                out = out.clone()
                out[each, columns] = values[at][source, columns]
                return out

            return change

        with ExitStack() as stack:
            if kind in (MLP, ATTENTION):
                part, values = (
                    (anatomy.mlp, self.clean.mlp)
                    if kind == MLP
                    else (anatomy.attention, self.clean.attention)
                )
                chosen = span(layer, self.window, anatomy.layers)
                for at in chosen:
                    stack.enter_context(changed(part(model.model, at), put(values, at, owner)))
                # Below the window nothing differs from the run under noise.
                start = chosen[0] - 1
                stream = self.corrupted.stream[start][rows] if start >= 0 else None
            else:
                stream = put(self.clean.stream, layer, owner)(self.corrupted.stream[layer][rows])
                start = layer
                if kind != STATE:
                    part, values = (
                        (anatomy.mlp, self.corrupted.mlp)
                        if kind == NO_MLP
                        else (anatomy.attention, self.corrupted.attention)
                    )
                    for at in range(layer + 1, anatomy.layers):
                        stack.enter_context(changed(part(model.model, at), put(values, at, rows)))
            ids, mask = self.ids[owner], self.mask[owner]
            if stream is None:
                logits = self._whole(owner, self.noise[rows])
            else:
                logits = Suspended(model, start, ids, mask, stream, self.tupled).logits(stream, 1)
        return self._probability(logits, owner)

    def _record(self, owner: Tensor, noise: Tensor | None) -> _Run:
        """Run rows from the beginning, and keep what every layer put out."""
        model, anatomy = self.model, self.model.anatomy
        parts = ((STATE, anatomy.block), (MLP, anatomy.mlp), (ATTENTION, anatomy.attention))
        kept: dict[tuple[str, int], list[Tensor]] = {
            (kind, layer): [] for kind, _ in parts for layer in range(anatomy.layers)
        }
        chances = []
        size = max(1, token_budget(model) // self.ids.shape[1])
        for begin in range(0, len(owner), size):
            rows = owner[begin : begin + size]
            with ExitStack() as stack:
                for kind, part in parts:
                    for layer in range(anatomy.layers):
                        keep = _keeper(kept[kind, layer])
                        stack.enter_context(changed(part(model.model, layer), keep))
                logits = self._whole(rows, None if noise is None else noise[begin : begin + size])
            chances.append(self._probability(logits, rows))
        whole = {place: torch.cat(got) for place, got in kept.items()}
        stream, mlp, attention = (
            [whole[kind, layer] for layer in range(anatomy.layers)] for kind, _ in parts
        )
        return _Run(stream, mlp, attention, torch.cat(chances))

    def _whole(self, owner: Tensor, noise: Tensor | None) -> Tensor:
        """Logits after the last token of a whole pass, (rows, 1, V)."""
        mask = self.mask[owner]
        with ExitStack() as stack:
            if noise is not None:
                embedding = self.model.model.get_input_embeddings()
                stack.enter_context(changed(embedding, lambda out: out + noise))
            logits: Tensor = self.model.model(
                input_ids=self.ids[owner],
                attention_mask=mask,
                position_ids=position_ids(mask),
                use_cache=False,
                logits_to_keep=1,
            ).logits
        return logits

    def _probability(self, logits: Tensor, owner: Tensor) -> Tensor:
        chances = torch.softmax(logits[:, -1].float(), dim=-1)
        return chances.gather(1, self.targets[owner].unsqueeze(1)).squeeze(1)


def _keeper(store: list[Tensor]) -> Callable[[Tensor], Tensor]:
    def keep(out: Tensor) -> Tensor:
        store.append(out)
        return out

    return keep
