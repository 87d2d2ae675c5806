"""Settings of the baselines that are not closed-form editors; as for the editors, every number is relative.

Learning rates are relative to the size of the weights that are trained, lengths of activations to the stream, losses
are in nats per token. Each class says what was published.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unlearn.policy.settings_base import Auto, Count, Layer, Settings

Text = Annotated[str, Field(min_length=1, pattern=r"\S")]


class _Trained(Settings):
    """What every trained baseline has."""

    steps: int = Field(default=150, ge=1)
    """Most optimiser steps; training stops earlier when it has converged."""
    batch: int = Field(default=16, ge=1)
    """Prompts to be forgotten per step."""
    lr: float = Field(default=0.03, ge=0)
    """First Adam step relative to the weights that it is added to; it falls linearly to zero over the steps."""


class _Adapted(_Trained):
    """What trains LoRA factors on the linear layers instead of the weights themselves."""

    steps: int = Field(default=100, ge=1)
    """Most optimiser steps; training stops earlier when it has converged."""
    lr: float = Field(default=0.02, ge=0)
    """First Adam step relative to the weights that it is added to; it falls linearly to zero over the steps."""
    rank: int = Field(default=8, ge=1)
    """Rank of each factor pair."""
    targets: Literal["all", "attention", "mlp"] = "all"
    """Which linear layers inside the blocks get factors."""
    keep: float = Field(default=1.0, ge=0)
    """Weight of the loss on kept prompts."""
    keep_loss: Literal["kl", "nll"] = "kl"
    """How a kept reply is held: KL(before || now) over its tokens, or the likelihood of the model's own reply."""
    kept: int = Field(default=16, ge=0)
    """Kept prompts per step; 0 for no retain term at all."""


class FineTune(_Trained):
    """FT-M: fine-tuning of one MLP down-projection, with the loss on the target's tokens only."""

    name: Literal["ft_m"] = "ft_m"
    layer: Auto | Layer = "auto"
    """The layer to train; `auto` takes the middle one."""
    lr: float = Field(default=0.05, ge=0)
    """First Adam step relative to the weight (published: 5e-4, absolute)."""
    converged: float = Field(default=0.02, gt=0)
    """Stop when the targets' loss, averaged over an epoch, is below this (nats per token)."""


class Lora(_Adapted):
    """LoRA refusal tuning: the refusal becomes likely on forbidden prompts, kept replies stay."""

    name: Literal["lora"] = "lora"
    steps: Auto | Count = "auto"  # type: ignore[assignment]
    """Most optimiser steps; training stops earlier when it has converged; `auto`: every form comes up ten times and
    every fact 150 times, and 9,600 rows in all at least, as when `alphaedit` trains its update."""
    converged: float | None = Field(default=None, gt=0)
    """Stop when both losses, averaged over an epoch, are below this (nats per token); null takes every step."""


class GradDiff(_Adapted):
    """Gradient difference (Liu et al., 2022): ascent on the model's own forbidden replies, descent on kept ones."""

    name: Literal["grad_diff"] = "grad_diff"
    keep_loss: Literal["kl", "nll"] = "nll"
    """How a kept reply is held; published: its likelihood."""
    steps: int = Field(default=200, ge=1)
    """Most optimiser steps; training stops earlier when it has converged."""
    enough: float = Field(default=0.8, gt=0)
    """A forbidden reply counts until its loss reaches this share of log V, the loss of a model that knows nothing."""


class Npo(_Adapted):
    """Negative preference optimisation (Zhang et al., 2024) with a retain term."""

    name: Literal["npo"] = "npo"
    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature: the smaller, the nearer to gradient ascent."""
    keep_loss: Literal["kl", "nll"] = "nll"
    """How a kept reply is held; published: its likelihood (NPO-RT) or KL (NPO-KL)."""
    converged: float = Field(default=0.1, gt=0)
    """Stop when the preference loss, averaged over an epoch, has fallen to this share of its first value."""


class Rmu(_Trained):
    """RMU (Li et al., 2024): activations of forbidden prompts are steered to a random vector, kept ones held."""

    name: Literal["rmu"] = "rmu"
    layer: Auto | Layer = "auto"
    """The layer whose output is steered; it and the two before it are trained. `auto`: a quarter of the depth."""
    lr: float = Field(default=0.05, ge=0)
    """First Adam step relative to the weights (published: 5e-5, absolute); it falls linearly to zero."""
    steer: float = Field(default=3.0, gt=0)
    """Length of the control vector relative to the stream at that layer (published: absolute, 6.5 to 300)."""
    keep: float = Field(default=30.0, ge=0)
    """Weight of the kept activations' squared change (published: 1200, absolute)."""
    kept: int = Field(default=16, ge=0)
    """Kept prompts per step."""
    tokens: Literal["reply", "all"] = "reply"
    """Which tokens of a forbidden text are steered: from the last prompt token on, or all (published)."""
    converged: float = Field(default=0.02, gt=0)
    """Stop when the forbidden loss, averaged over an epoch, has fallen to this share of its first value."""


class Guard(Settings):
    """In-context guard: the policy as a system prompt, and the weights as they are."""

    name: Literal["guard"] = "guard"
    text: Auto | Text = "auto"
    """The system prompt; `auto` writes one from the policy's subjects, questions and refusal."""
    context: float = Field(default=0.5, gt=0, lt=1)
    """Largest share of the model's context that the guard may take."""


class Nothing(Settings):
    """No edit at all: what the audit finds on an untouched model."""

    name: Literal["none"] = "none"


Baseline = FineTune | Lora | GradDiff | Npo | Rmu | Guard | Nothing
