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
from unlearn.model.budget import token_budget
from unlearn.model.editable import EditableModel
from unlearn.model.forward import changed, passed
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


@dataclass(frozen=True)
class _Run:
    """Everything a whole pass computed: per layer (rows, T, d_model); the probability of the target by row."""

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
    """Trace prompts; the model is not changed.

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
    if any(not 0 <= row.subject[0] <= row.subject[1] < len(row.ids) for row in prompts):
        raise ModelError("a prompt cannot be traced: its subject lies outside its tokens")
    deviation = noise * spread(model, prompts) if prompts else 0.0
    window = window or default_window(model.anatomy.layers)
    found = []
    with progress.step("Tracing", total=len(prompts)) as bar:
        for number, row in enumerate(prompts):
            draws = _draw(row, samples, deviation, model.anatomy.d_model, seed, number)
            found.append(_Tracing(model, row, draws, window).trace(kinds))
            bar.advance()
    return found


def _draw(row: Traceable, samples: int, deviation: float, width: int, seed: int, number: int) -> Tensor:
    """Noise for the subject's tokens, (samples, tokens, width)."""
    generator = torch.Generator().manual_seed((seed << 24) + number)
    tokens = row.subject[1] - row.subject[0] + 1
    return deviation * torch.randn((samples, tokens, width), generator=generator)


class _Tracing:
    """One prompt: run as it is, and once under each draw of noise."""

    def __init__(self, model: EditableModel, row: Traceable, draws: Tensor, window: int) -> None:
        self.model, self.row, self.window = model, row, window
        self.ids = torch.tensor([row.ids], device=model.device)
        self.noise = torch.zeros(len(draws), len(row.ids), draws.shape[2], device=model.device)
        self.noise[:, row.subject[0] : row.subject[1] + 1] = draws.to(model.device)
        self.noise = self.noise.to(model.dtype)
        self.tupled = Suspended.at(model, [row.ids], 0).tupled
        self.clean = self._record(torch.zeros_like(self.noise[:1]))
        self.corrupted = self._record(self.noise)
        if not torch.isfinite(self.corrupted.probability).all():
            raise ModelError("the model's probabilities are not finite under noise; lower --noise")

    def trace(self, kinds: Sequence[str]) -> Trace:
        """The effects of everything that can be restored, means over the draws."""
        samples, places = len(self.noise), range(self.row.first, len(self.row.ids))
        sites = [(sample, at) for at in places for sample in range(samples)]
        rows, columns = torch.tensor(sites, device=self.model.device).T
        low = self.corrupted.probability
        layers = range(self.model.anatomy.layers)
        return Trace(
            clean=float(self.clean.probability[0]),
            corrupted=float(low.mean()),
            effects={
                kind: torch.stack(
                    [
                        (self._restored(kind, at, rows, columns) - low[rows]).view(-1, samples).mean(1).cpu()
                        for at in layers
                    ]
                )
                for kind in kinds
            },
            roles=tuple(self.row.role(at) for at in places),
        )

    def _restored(self, kind: str, layer: int, rows: Tensor, columns: Tensor) -> Tensor:
        """Probability of the target when, under the draw of each row, the token in its column is restored, (sites,)."""
        size = max(1, token_budget(self.model) // len(self.row.ids))
        parts = zip(rows.split(size), columns.split(size), strict=True)
        return torch.cat([self._some(kind, layer, some, at) for some, at in parts])

    def _some(self, kind: str, layer: int, rows: Tensor, columns: Tensor) -> Tensor:
        model, anatomy = self.model, self.model.anatomy
        each, clean = torch.arange(len(rows), device=rows.device), torch.zeros_like(rows)

        def put(values: Tensor, source: Tensor) -> Callable[[Tensor], Tensor]:
            def change(out: Tensor) -> Tensor:
                out = out.clone()
                out[each, columns] = values[source, columns]
                return out

            return change

        with ExitStack() as stack:
            if kind in (MLP, ATTENTION):
                part, kept = (
                    (anatomy.mlp, self.clean.mlp)
                    if kind == MLP
                    else (anatomy.attention, self.clean.attention)
                )
                chosen = span(layer, self.window, anatomy.layers)
                for at in chosen:
                    stack.enter_context(changed(part(model.model, at), put(kept[at], clean)))
                # Below the window nothing differs from the run under noise.
                start = chosen[0] - 1
                if start < 0:
                    return self._probability(self._whole(self.noise[rows]))
                stream = self.corrupted.stream[start][rows]
            else:
                start, stream = (
                    layer,
                    put(self.clean.stream[layer], clean)(self.corrupted.stream[layer][rows]),
                )
                if kind != STATE:
                    part, kept = (
                        (anatomy.mlp, self.corrupted.mlp)
                        if kind == NO_MLP
                        else (anatomy.attention, self.corrupted.attention)
                    )
                    for at in range(layer + 1, anatomy.layers):
                        stack.enter_context(changed(part(model.model, at), put(kept[at], rows)))
            ids = self.ids.expand(len(rows), -1)
            paused = Suspended(model, start, ids, torch.ones_like(ids), stream, self.tupled)
            return self._probability(paused.logits(stream, 1))

    def _record(self, noise: Tensor) -> _Run:
        """Run the prompt under each draw from the beginning, and keep what every layer put out."""
        network, anatomy = self.model.model, self.model.anatomy
        parts = {STATE: anatomy.block, MLP: anatomy.mlp, ATTENTION: anatomy.attention}
        kept: dict[str, list[Tensor]] = {kind: [] for kind in parts}
        with ExitStack() as stack:
            for kind, part in parts.items():
                for layer in range(anatomy.layers):
                    stack.enter_context(changed(part(network, layer), _keeper(kept[kind])))
            chances = self._probability(self._whole(noise))
        return _Run(kept[STATE], kept[MLP], kept[ATTENTION], chances)

    def _whole(self, noise: Tensor) -> Tensor:
        """Logits after the last token of a whole pass under noise, (rows, 1, V)."""
        ids = self.ids.expand(len(noise), -1)
        with changed(self.model.model.get_input_embeddings(), lambda out: out + noise):
            return passed(self.model, ids, torch.ones_like(ids), 1)

    def _probability(self, logits: Tensor) -> Tensor:
        """Of the target, (rows,)."""
        return torch.softmax(logits[:, -1].float(), dim=-1)[:, self.row.target]


def _keeper(store: list[Tensor]) -> Callable[[Tensor], Tensor]:
    def keep(out: Tensor) -> Tensor:
        store.append(out)
        return out

    return keep
