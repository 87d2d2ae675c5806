"""Settings of the methods that train, and of those that leave the weights alone; every number is relative.

Learning rates are relative to the size of the weights that are trained, lengths of activations to the stream, losses
are in nats per token. Each class says what was published.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unlearn.policy.settings_base import (
    Auto,
    Count,
    Layer,
    Layers,
    LookUp,
    NotNegative,
    Positive,
    Settings,
    Share,
)

Text = Annotated[str, Field(min_length=1, pattern=r"\S")]


class NullSpaceTuning(Settings):
    """Training of AlphaEdit's update in the same null space, where keys do not distinguish requests from neighbours."""

    name: Literal["null_space_tuning"] = "null_space_tuning"
    layers: Auto | Layers = "auto"
    """Layers to train, ascending; `auto` takes those of `alphaedit`; with `look_up: both` those of both tokens."""
    look_up: Auto | LookUp = "auto"
    """Tokens whose keys later edits keep, and by which `auto` takes its layers; `auto`: as for `alphaedit`."""
    null_space: Auto | Share = "auto"
    """The directions with this share of the corpus's energy are left alone; `auto`: 0.9 at the last token and in a
    chat model, else 0.8."""
    steps: Auto | Count = "auto"
    """Steps of training; `auto`: ten passes over the forms, or 150 turns for every fact, and 12 steps for every fact at
    least, but no fewer than 120 and no more than 225."""
    unlikelihood_margin: NotNegative = 8.0
    """How unlikely the old reply's first tokens must become, in nats; no more is asked for."""


class _Trained(Settings):
    """What every trained baseline has."""

    batch: Count = 16
    """Prompts to be forgotten per step."""
    lr: NotNegative = 0.03
    """First Adam step relative to the weights that it is added to; it falls linearly to zero over the steps."""


class _Adapted(_Trained):
    """What trains LoRA factors on the linear layers instead of the weights themselves."""

    lr: NotNegative = 0.02
    """First Adam step relative to the weights that it is added to; it falls linearly to zero over the steps."""
    rank: Count = 8
    """Rank of each factor pair."""
    targets: Literal["all", "attention", "mlp"] = "all"
    """Which linear layers inside the blocks get factors."""
    keep: NotNegative = 1.0
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
    steps: Count = 150
    """Most optimiser steps; training stops earlier when it has converged."""
    lr: NotNegative = 0.05
    """First Adam step relative to the weight (published: 5e-4, absolute)."""
    converged: Positive = 0.02
    """Stop when the targets' loss, averaged over an epoch, is below this (nats per token)."""


class Lora(_Adapted):
    """LoRA refusal tuning: the refusal becomes likely on forbidden prompts, kept replies stay."""

    name: Literal["lora"] = "lora"
    steps: Auto | Count = "auto"
    """Most optimiser steps; training stops earlier when it has converged; `auto`: every form comes up ten times and
    every fact 150 times, as in `null_space_tuning`, and 9,600 rows in all at least."""
    converged: Positive | None = None
    """Stop when both losses, averaged over an epoch, are below this (nats per token); null takes every step."""


class GradDiff(_Adapted):
    """Gradient difference (Liu et al., 2022): ascent on the model's own forbidden replies, descent on kept ones."""

    name: Literal["grad_diff"] = "grad_diff"
    keep_loss: Literal["kl", "nll"] = "nll"
    """How a kept reply is held; published: its likelihood."""
    steps: Count = 200
    """Most optimiser steps; training stops earlier when it has converged."""
    enough: Positive = 0.8
    """A forbidden reply counts until its loss reaches this share of log V, the loss of a model that knows nothing."""


class Npo(_Adapted):
    """Negative preference optimisation (Zhang et al., 2024) with a retain term."""

    name: Literal["npo"] = "npo"
    steps: Count = 100
    """Most optimiser steps; training stops earlier when it has converged."""
    beta: Positive = 0.1
    """Inverse temperature: the smaller, the nearer to gradient ascent."""
    keep_loss: Literal["kl", "nll"] = "nll"
    """How a kept reply is held; published: its likelihood (NPO-RT) or KL (NPO-KL)."""
    converged: Positive = 0.1
    """Stop when the preference loss, averaged over an epoch, has fallen to this share of its first value."""


class Rmu(_Trained):
    """RMU (Li et al., 2024): activations of forbidden prompts are steered to a random vector, kept ones held."""

    name: Literal["rmu"] = "rmu"
    steps: Count = 150
    """Most optimiser steps; training stops earlier when it has converged."""
    layer: Auto | Layer = "auto"
    """The layer whose output is steered; it and the two before it are trained. `auto`: a quarter of the depth."""
    lr: NotNegative = 0.05
    """First Adam step relative to the weights (published: 5e-5, absolute); it falls linearly to zero."""
    steer: Positive = 3.0
    """Length of the control vector relative to the stream at that layer (published: absolute, 6.5 to 300)."""
    keep: NotNegative = 30.0
    """Weight of the kept activations' squared change (published: 1200, absolute)."""
    kept: int = Field(default=16, ge=0)
    """Kept prompts per step."""
    tokens: Literal["reply", "all"] = "reply"
    """Which tokens of a forbidden text are steered: from the last prompt token on, or all (published)."""
    converged: Positive = 0.02
    """Stop when the forbidden loss, averaged over an epoch, has fallen to this share of its first value."""


class Mend(_Trained):
    """MEND (Mitchell et al., 2022): a network, trained on other edits, maps the gradients of these to an update."""

    name: Literal["mend"] = "mend"
    layers: Auto | Layers = "auto"
    """The blocks of whose MLPs every matrix is written, ascending; `auto` takes the last three (published)."""
    aggregation: Literal["least_squares", "mean"] = "least_squares"
    """How many edits become one update: by least squares over their tokens (MALMEN), or as their mean (MEND)."""
    rank: Count = 64
    """Rank of the network's residual layers (published: 1920)."""
    steps: Count = 400
    """Most steps of the network's training; it stops earlier when the validation loss no longer falls."""
    patience: Count = 100
    """Stop after so many steps without a lower validation loss (published: 20,000)."""
    batch: Count = 24
    """Edits per step, made at once (published: 1)."""
    lr: NotNegative = 0.05
    """What the update of one edit adds to a weight before anything is learned, relative to it (published: a step of
    1e-4 along the gradient); a factor of it is learned for every weight."""
    network_lr: Positive = 1e-3
    """First Adam step of the network, absolute (published: 1e-6); it falls linearly to zero over the steps."""
    keep: NotNegative = 10.0
    """Weight of KL(before || now) on what must stay, relative to the edits' loss (published)."""
    kept: int = Field(default=36, ge=0)
    """Kept prompts and texts per step."""


class RepSelect(Settings):
    """RepSelect (Sondej, Yang and Mahdi, 2026): ascent along one gradient without what it shares with other text."""

    name: Literal["rep_select"] = "rep_select"
    batch: Count = 16
    """Prompts of a step of the adversary."""
    elicit: int = Field(default=1, ge=0)
    """Times that an adversary, LoRA factors, is trained on every forbidden reply before the gradient is taken
    (published: once)."""
    rank: Count = 8
    """Rank of the adversary's factor pairs (published: 8)."""
    lora_lr: Positive = 0.02
    """First Adam step of the adversary relative to the weights (published: SGD at 0.01, absolute)."""
    components: Share = 0.125
    """How many leading principal components are damped, as a share of a matrix's narrower side (published: 512)."""
    lr: NotNegative = 0.002
    """Length of a step relative to the weights (published: 0.05 to 0.2 times the gradient); one that costs more than
    the budget is halved."""
    steps: Count = 40
    """Most steps, those that were too long included."""
    kept: Count = 64
    """Kept prompts on which the budget is measured."""
    budget: Positive = 0.2
    """How far kept replies may diverge from the unedited model's, in nats per token (published: 0.01, on WikiText,
    which is further from what is forbidden)."""
    enough: Positive = 0.8
    """A forbidden reply counts until its loss reaches this share of log V, the loss of a model that knows nothing."""


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
