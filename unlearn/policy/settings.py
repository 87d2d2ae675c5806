"""Settings of the edit methods: every number is relative to the model in hand, so that one default fits all sizes.

The published settings are absolute (null-space threshold 0.02, L2 10, a learning rate per model) and do nothing, or
too much, on another model. Here the ridge is relative to the keys' own energy, the null space to the corpus's
energy, and the step and the clamp to the length of the stream. `absolute: true` takes the published numbers instead.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field

from unlearn.policy.settings_base import Auto, Count, Layer, Settings
from unlearn.policy.settings_baselines import Baseline

__all__ = [
    "CHOICES",
    "METHOD_NAMES",
    "SEQUENTIAL",
    "AlphaEdit",
    "AlphaEditPlus",
    "AnyEdit",
    "Automatic",
    "Editor",
    "Emmet",
    "Layered",
    "Memit",
    "MemitSequential",
    "Method",
    "Nse",
    "NullSpace",
    "NullSpaceTuning",
    "Rome",
    "Settings",
    "Values",
    "Whitened",
]


Layers = Annotated[tuple[Layer, ...], Field(min_length=1)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Chance = Annotated[float, Field(gt=0, lt=1)]


class Values(Settings):
    """How the values v* are optimised, for every method that writes values."""

    look_up: Literal["auto", "subject", "last", "both"] = "auto"
    """At the subject's last token, the last prompt token and the target's, or both; `auto`: `last` for a chat model;
    for a base model `both` where facts are asked in three ways or more, else `subject`."""
    steps: int = Field(default=60, ge=1)
    """Most Adam steps; a request that has converged stops earlier."""
    lr: float = Field(default=0.05, gt=0)
    """Adam step relative to the length of the stream at the look-up token."""
    clamp: float = Field(default=1.5, gt=0)
    """Longest value relative to the length of the stream at the look-up token."""
    keep: float = Field(default=1.0, ge=0)
    """Weight, in the loss of a value at the subject, of the KL divergence on kept prompts of the same subject. What is
    written at the last prompt token is added to nothing that those prompts read."""
    decay: float = Field(default=0.02, ge=0)
    """Weight of the value's relative length in its loss."""
    converged: float = Field(default=0.001, gt=0)
    """A request stops when its loss on every form is below this (nats per target token)."""
    prefixes: int = Field(default=0, ge=0)
    """After how many texts sampled from the model each plain form is written as well (published: 5)."""
    suppress: float = Field(default=0.0, ge=0)
    """Weight, in a value's loss, of what the model said before the edit still being likely as the reply's beginning."""
    silence: float = Field(default=8.0, ge=0)
    """How unlikely that must become, in nats; no more is asked for."""
    absolute: bool = False
    """For parity with the papers: take ridge, lr and decay as published, and not relative to the model."""


class Editor(Values):
    """What every closed-form editor has: batches, kept keys, and the null space as a switch."""

    batch: int | None = Field(default=None, ge=1)
    """Facts per batch, each on the model as edited so far; null writes all facts at once."""
    keys: Literal["forms", "mean"] = "forms"
    """A column per form of a request, or the mean over its forms (published, over texts before the prompt)."""
    kept: float = Field(default=0.0, ge=0)
    """Weight of a kept sibling's or neighbour's error relative to a request's; 0 protects no keys."""
    earlier: float = Field(default=0.0, ge=0)
    """Weight of the error at keys of earlier batches and earlier edits; 0 forgets about them."""
    witnesses: int = Field(default=0, ge=0)
    """Tokens of the corpus on which the update is tried: those that it would move most are kept as well."""
    witnessed: float = Field(default=20.0, gt=0)
    """Weight of the error at such a token relative to a request's."""
    hold: float | None = Field(default=None, gt=0, lt=1)
    """Write until every target token has this probability on the policy's own prompts, and no harder."""
    remnant: float | None = Field(default=None, gt=0, lt=1)
    """With `hold`: and until what the model began its reply with before is left with no more than this probability."""
    pace: float = Field(default=3.0, gt=1, le=3)
    """With `hold`: what a column's weight is multiplied by once its tokens are likely, yet not enough; before, 3."""
    rounds: int = Field(default=8, ge=1)
    """With `hold`: most rounds of writing."""
    null_space: float = Field(default=0.99, gt=0, le=1)
    """The directions that carry this share of the corpus's energy are left alone."""
    threshold: float | None = Field(default=None, gt=0)
    """For parity with the paper: leave eigenvalues of at least this alone (published: 0.02) instead."""
    project: Literal["null_space"] | None = None
    """`null_space` projects the finished update on the null space, whatever the method."""


class Layered(Editor):
    """Methods that write several layers."""

    layers: Auto | Layers = "auto"
    """Layers to write, ascending; `auto` takes a share of the depth that depends on where values are written."""


class Rome(Editor):
    """ROME (Meng et al., 2022) in the form with one key everywhere: one fact at a time, one layer, equality."""

    name: Literal["rome"] = "rome"
    layer: Auto | Layer = "auto"
    """The layer to write; `auto` takes the middle of AlphaEdit's layers."""
    look_up: Literal["subject", "last", "both"] = "subject"
    """Where the value is written: published, the subject's last token."""
    batch: Literal[1] = 1
    """One fact at a time: with more it would be EMMET."""
    keys: Literal["forms", "mean"] = "mean"
    """The mean over a request's forms (published), or a column per form, all met exactly."""


class Whitened(Layered):
    """Methods in the metric of the corpus, ``C^-1``."""

    shift: float = Field(default=0.0, ge=0)
    """Added to every eigenvalue of C, relative to their mean: a penalty on the update's own length (ENCORE)."""


class Memit(Whitened):
    """MEMIT (Meng et al., 2023): a batch over several layers, in the metric of the corpus; earlier ones forgotten."""

    name: Literal["memit"] = "memit"
    ridge: float = Field(default=0.1, ge=0)
    """lambda, relative to the keys' mean energy k^T C^-1 k (published: 15000 or 20000, absolute)."""


class MemitSequential(Whitened):
    """MEMIT that keeps the keys of earlier batches: the baseline that every sequential editor has to beat."""

    name: Literal["memit_seq"] = "memit_seq"
    ridge: float = Field(default=0.1, ge=0)
    """lambda, relative to the keys' mean energy k^T C^-1 k (published: 15000 or 20000, absolute)."""
    earlier: float = Field(default=1.0, ge=0)
    """Weight of the error at keys of earlier batches and earlier edits (1: as published)."""


class Emmet(Whitened):
    """EMMET (Gupta et al., 2024): ROME's equality for a whole batch; the ridge only keeps the solve stable."""

    name: Literal["emmet"] = "emmet"
    ridge: float = Field(default=1e-4, ge=0)
    """Relative to the keys' mean energy k^T C^-1 k (published: 0.1, absolute); 0 asks for exact equality."""


class NullSpace(Layered):
    """Methods whose update is confined to the null space of the corpus's keys."""

    steps: Auto | Count = "auto"  # type: ignore[assignment]
    """Most Adam steps; a request that has converged stops earlier; `auto`: 60, 100, 60."""
    lr: Auto | Positive = "auto"  # type: ignore[assignment]
    """Adam step relative to the length of the stream at the look-up token; `auto`: 0.05, 0.1, 0.05."""
    decay: Auto | NotNegative = "auto"  # type: ignore[assignment]
    """Weight of the value's relative length in its loss; `auto`: 0.02, 0.002, 0.02."""
    converged: Auto | Positive = "auto"  # type: ignore[assignment]
    """A request stops when its loss on every form is below this (nats per target token); `auto`: 0.001,
    0.02, 0.001."""
    ridge: Auto | NotNegative = "auto"
    """L2, relative to the mean squared length of the projected keys (published: 10, absolute); `auto`: 0.7, 0.1,
    0.3."""
    null_space: Auto | Share = "auto"  # type: ignore[assignment]
    """The directions with this share of the corpus's energy are left alone; `auto`: 0.97, 0.8, 0.8."""
    kept: Auto | NotNegative = "auto"  # type: ignore[assignment]
    """Weight of a kept key's error relative to a request's (1: as published for earlier edits); `auto`: 30, 0.5,
    30."""
    earlier: float = Field(default=1.0, ge=0)
    """Weight of the error at keys of earlier batches and earlier edits (1: as published)."""
    hold: Auto | Chance | None = "auto"  # type: ignore[assignment]
    """Write until every target token has this probability on the policy's own prompts, no harder; `auto`: 0.7, 0.95,
    0.7; null with `keys: mean`, whose columns have no weights to raise."""
    pace: Auto | Annotated[float, Field(gt=1, le=3)] = "auto"  # type: ignore[assignment]
    """With `hold`: what a column's weight is multiplied by once its tokens are likely, but not enough; before that, 3;
    `auto`: 1.5, 3, 3."""
    rounds: Auto | Count = "auto"  # type: ignore[assignment]
    """With `hold`: most rounds of writing; `auto`: 14, 8, 14."""


class AlphaEdit(NullSpace):
    """AlphaEdit (Fang et al., ICLR 2025): the update is confined to the null space of the corpus's keys.

    Where a number is `auto`, the first is for values at the last prompt token of a chat model (many forms, which may be
    held firmly apart from what is kept), the second for values at the subject alone (one form, which has to reach
    others), the third for both in a base model.
    """

    name: Literal["alphaedit"] = "alphaedit"
    suppress: Auto | NotNegative = "auto"  # type: ignore[assignment]
    """Weight, in a value's loss, of what the model said before the edit still being likely as the reply's beginning;
    `auto`: 0.1, 0, 0."""
    witnesses: Auto | Annotated[int, Field(ge=0)] = "auto"  # type: ignore[assignment]
    """Tokens of the corpus on which the update is tried: those that it would move most are kept as well; `auto`: 30000,
    20000, 0."""
    remnant: Auto | Chance | None = "auto"  # type: ignore[assignment]
    """With `hold`: and until what the model began its reply with before is left with no more than this probability;
    `auto`: 0.0004, null, null."""


class AlphaEditPlus(NullSpace):
    """AlphaEdit+ (Liu et al., 2026): a null space that gives way, earlier keys that yield, values that are eased."""

    name: Literal["alphaedit_plus"] = "alphaedit_plus"
    ridge: Auto | Positive = "auto"
    """L2, relative to the mean squared length of the projected keys; fixed while the null space is relaxed; `auto`:
    0.7, 0.1, 0.3."""
    earlier: float = Field(default=10.0, ge=0)
    """beta: weight of earlier keys in the first layer, twice that in the second, ... (published: 100)."""
    relax: float | None = Field(default=1.15, gt=0)
    """Directions are given back while the loss falls by more than this times their share of the width; null: none."""
    smoothing: int = Field(default=5, ge=0)
    """Steps between values half way to what they were and full values, of which the best is kept (published: 10)."""
    far: float = Field(default=0.75, gt=0)
    """Only values longer than this, relative to the stream (with `absolute`: as a number, published 30), are eased."""


class Nse(Whitened):
    """NSE (Jiang et al., ACL 2025): values from the original weights, active neurons only, layers repeated."""

    name: Literal["nse"] = "nse"
    ridge: float = Field(default=0.1, ge=0)
    """lambda, relative to the keys' mean energy among the chosen neurons (published: 15000 or 20000, absolute)."""
    earlier: float = Field(default=1.0, ge=0)
    """Weight of the error at keys of earlier batches and earlier edits (1: as published)."""
    neurons: float = Field(default=0.8, gt=0, le=1)
    """The neurons that carry this share of the keys' summed activation are written; 1 takes all of them."""
    passes: int = Field(default=3, ge=1)
    """How often the layers are gone through at most."""
    reached: float = Field(default=0.1, ge=0)
    """A request whose residuals are shorter than this, relative to the stream, has got there and is only kept."""
    hopeless: float | None = Field(default=None, gt=0)
    """A request with a residual longer than this, relative to the stream, is left out; null gives up on none."""


class AnyEdit(NullSpace):
    """AnyEdit (Jiang et al., ICML 2025): long targets in chunks, each led by a value at the token before it."""

    name: Literal["anyedit"] = "anyedit"
    look_up: Literal["last"] = "last"
    """Chunks are led by the last token before them: the prompt's for the first."""
    window: Auto | Count = "auto"
    """Target tokens per chunk (published: 40, for models of 7 B parameters); `auto`: one per block above the last
    layer that is written, 40 at most, since a value reaches the tokens after the next through their attention alone."""
    context: float = Field(default=1.0, ge=0)
    """Weight of the error at all other tokens of the same prompt and target (1: as published)."""


class NullSpaceTuning(Settings):
    """Training of the same update in the same null space, where keys do not tell requests from neighbours."""

    name: Literal["null_space_tuning"] = "null_space_tuning"
    layers: Auto | Layers = "auto"
    """Layers to train, ascending; `auto` takes those of `alphaedit`; with `look_up: both` those of both tokens."""
    look_up: Literal["auto", "subject", "last", "both"] = "auto"
    """Tokens whose keys later edits keep, and by which `auto` takes its layers; `auto`: as for `alphaedit`."""
    null_space: Auto | Share = "auto"
    """The directions with this share of the corpus's energy are left alone; `auto`: 0.97, 0.8, 0.8."""
    steps: Auto | Count = "auto"
    """Steps of training; `auto`: ten passes over the forms, or 150 turns for every fact, and 400 at least."""
    silence: float = Field(default=8.0, ge=0)
    """How unlikely the beginning of the old reply must become, in nats; no more is asked for."""


class Automatic(Settings):
    """`alphaedit`, or `null_space_tuning` where the keys do not tell the requests from their neighbours."""

    name: Literal["auto"] = "auto"
    layers: Auto | Layers = "auto"
    """Layers to write, ascending; `auto` takes those of the method that is chosen."""
    look_up: Literal["auto", "subject", "last", "both"] = "auto"
    """At the subject's last token, the last prompt token and the target's, or both; `auto`: as for `alphaedit`."""


CHOICES = ("alphaedit", "null_space_tuning")
"""What `auto` chooses from."""


def _named(method: object) -> object:
    """A method by its name alone is one with its defaults."""
    return {"name": method} if isinstance(method, str) else method


Method = Annotated[
    Automatic
    | AlphaEdit
    | AlphaEditPlus
    | AnyEdit
    | Emmet
    | Memit
    | MemitSequential
    | Nse
    | NullSpaceTuning
    | Rome
    | Baseline,
    Field(discriminator="name"),
    BeforeValidator(_named),
]

METHOD_NAMES: tuple[str, ...] = tuple(
    str(kind.model_fields["name"].default) for kind in get_args(get_args(Method)[0])
)
"""Every name that `method.name` takes."""
SEQUENTIAL: tuple[str, ...] = tuple(
    str(kind.model_fields["name"].default)
    for kind in get_args(get_args(Method)[0])
    if issubclass(kind, Editor | Automatic)
)
"""Those that can build on an earlier edit."""
