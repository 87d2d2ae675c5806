"""From the states that enter the output embedding to what is said, and losses of it that never hold all of it.

One token's logits are as wide as the vocabulary, often fifty times as wide as its state. A loss that is a sum over
tokens is computed in blocks of these, each with its slope, and a block is let go before the next one. Slopes by the
logits are written out: automatic ones pass over as many numbers several times more often.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from unlearn.model.editable import EditableModel
from unlearn.model.library import Network
from unlearn.model.suspended import instead

BLOCK = 2**22
"""Logits of one block: 16 MB, which a processor's cache holds."""
Loss = Callable[[Tensor, slice], tuple[Tensor, Tensor]]
"""From the logits of some tokens, (n, V), float32, and which they are, to the loss of each, (n,), and its slope by
these logits, (n, V). The logits may be written over."""


def logits_of(model: EditableModel, states: Tensor) -> Tensor:
    """What the model makes of states, in its family's own scale.

    Args:
        states: (tokens, d_model), as they enter the output embedding; gradients flow to them.

    Returns:
        (tokens, V), float32.
    """
    network: Network = model.model

    def passed(*_args: object, **_more: object) -> _Passed:
        return _Passed(last_hidden_state=states[None])

    ids = torch.zeros(1, len(states), dtype=torch.long, device=states.device)
    with instead(network.base_model, passed):
        logits: Tensor = network(input_ids=ids).logits
    return logits[0].float()


def token_losses(model: EditableModel, states: Tensor, loss: Loss) -> Tensor:
    """A loss of every token's logits, (tokens,), float32; gradients flow to ``states``, (tokens, d_model)."""
    each: Tensor = _Blocked.apply(states, model, loss)  # type: ignore[no-untyped-call]
    return each


@dataclass
class _Passed(BaseModelOutputWithPastAndCrossAttentions):
    """What any family's head looks for in what its blocks give."""

    image_hidden_states: Tensor | None = None
    router_logits: tuple[Tensor, ...] | None = None


class _Blocked(torch.autograd.Function):
    """The slope of every block is computed with its loss, so that backward only scales it."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, states: Tensor, model: EditableModel, loss: Loss
    ) -> Tensor:
        wide = model.model.get_output_embeddings().weight.shape[0]
        size, slope = max(1, BLOCK // wide), ctx.needs_input_grad[0]  # type: ignore[attr-defined]
        losses = [torch.zeros(0, device=states.device)]
        slopes = [torch.zeros_like(states[:0])]
        for begin in range(0, len(states), size):
            block = states[begin : begin + size].detach().requires_grad_(slope)
            with torch.set_grad_enabled(slope):
                logits = logits_of(model, block)
            each, by_logits = loss(logits.detach(), slice(begin, begin + len(block)))
            if slope:
                slopes += torch.autograd.grad(logits, block, by_logits)
            losses.append(each)
        ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *up: Tensor) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return slopes * up[0][:, None].to(slopes.dtype), None, None
