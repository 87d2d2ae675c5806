"""Settings of the editors: every number is relative to the model in hand, so that one default fits all sizes.

The published settings are absolute (null-space threshold 0.02, L2 10, a learning rate per model) and do nothing, or
too much, on another model. Here the ridge is relative to the keys' own energy, the null space to the corpus's
energy, and the step and the clamp to the length of the stream. `published: true` takes the papers' numbers instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from unlearn.policy.presets import with_presets
from unlearn.policy.settings_base import (
    Auto,
    Chance,
    Count,
    Layer,
    Layers,
    LookUp,
    NotNegative,
    Positive,
    Settings,
    Share,
)


class Editor(Settings):
    """What every closed-form editor has."""

    look_up: Auto | LookUp = "auto"
    """At the subject's last token, the last prompt token and the target's, or both; `auto`: `last` for a chat model;
    for a base model `both` where facts are asked in three ways or more, else `subject`."""
    clamp: float = Field(default=1.5, gt=0)
    """Longest value relative to the length of the stream at the look-up token."""
    keep: float = Field(default=1.0, ge=0)
    """Weight, in the loss of a value at the subject, of the KL divergence on kept prompts of the same subject. What is
    written at the last prompt token is added to nothing that those prompts read."""
    prefixes: int = Field(default=0, ge=0)
    """After how many texts sampled from the model each plain form is written as well (published: 5)."""
    keys: Literal["forms", "mean"] = "forms"
    """A column per form of a request, or the mean over its forms (published, over texts before the prompt)."""
    batch: int | None = Field(default=None, ge=1)
    """Facts per batch, each on the model as edited so far; null writes all facts at once."""
    published: bool = False
    """For parity with the papers: take what is not set here as published, and ridge, lr, decay and null space as
    numbers, not relative to the model."""

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, data: object) -> object:
        return (
            with_presets({"name": cls.model_fields["name"].default, **data})
            if isinstance(data, Mapping)
            else data
        )


class Whitened(Editor):
    """Methods in the metric of the corpus, ``C^-1``."""

    steps: Count = 60
    """Most Adam steps; a request that has converged stops earlier."""
    lr: Positive = 0.05
    """Adam step relative to the length of the stream at the look-up token."""
    decay: NotNegative = 0.02
    """Weight of the value's relative length in its loss."""
    converged: Positive = 0.001
    """A request stops when its loss on every form is below this (nats per target token)."""
    project: Share | None = None
    """Project the finished update on the null space that leaves this share of the corpus's energy alone; null: not."""


class Rome(Whitened):
    """ROME (Meng et al., 2022) in the form with one key everywhere: one fact at a time, one layer, equality."""

    name: Literal["rome"] = "rome"
    layer: Auto | Layer = "auto"
    """The layer to write; `auto` takes the middle of AlphaEdit's layers."""
    look_up: LookUp = "subject"
    """Where the value is written: published, the subject's last token."""
    batch: Literal[1] = 1
    """One fact at a time: with more it would be EMMET."""
    keys: Literal["forms", "mean"] = "mean"
    """The mean over a request's forms (published), or a column per form, all met exactly."""


class Layered(Whitened):
    """Those that write several layers, and may keep keys."""

    layers: Auto | Layers = "auto"
    """Layers to write, ascending; `auto` takes a share of the depth that depends on where values are written."""
    kept: NotNegative = 0.0
    """Weight of a kept sibling's or neighbour's error relative to a request's; 0 protects no keys."""
    shift: NotNegative = 0.0
    """Added to every eigenvalue of C, relative to their mean: a penalty on the update's own length (ENCORE)."""
    ridge: NotNegative = 0.1
    """lambda, relative to the keys' mean energy k^T C^-1 k (published: 15000 or 20000, absolute)."""


class Memit(Layered):
    """MEMIT (Meng et al., 2023): a batch over several layers; by other numbers sequential MEMIT, or EMMET.

    `memit_seq` keeps the keys of earlier batches, as every sequential editor must (`earlier`: 1). `emmet` (Gupta et
    al., 2024) is ROME's equality for a whole batch: a `ridge` of 1e-4 only keeps the solve stable, 0 asks for exact
    equality (published: 0.1, absolute).
    """

    name: Literal["memit", "memit_seq", "emmet"] = "memit"
    earlier: NotNegative = 0.0
    """Weight of the error at keys of earlier batches and earlier edits (`memit_seq`: 1, as published)."""


class Nse(Layered):
    """NSE (Jiang et al., ACL 2025): values from the original weights, active neurons only, layers repeated."""

    name: Literal["nse"] = "nse"
    earlier: NotNegative = 1.0
    """Weight of the error at keys of earlier batches and earlier edits (1: as published)."""
    neurons: Share = 0.8
    """The neurons that carry this share of the keys' summed activation are written; 1 takes all of them."""
    passes: Count = 3
    """How often the layers are gone through at most."""
    reached: NotNegative = 0.1
    """A request whose residuals are shorter than this, relative to the stream, has got there and is only kept."""
    hopeless: Positive | None = None
    """A request with a residual longer than this, relative to the stream, is left out; null gives up on none."""


class NullSpace(Editor):
    """Methods whose update is confined to the null space of the corpus's keys.

    Where a number is `auto`, the first is for values at the last prompt token of a chat model (many forms, which may be
    held firmly apart from what is kept), the second for values at the subject alone (one form, which has to reach
    others), the third for both in a base model.
    """

    layers: Auto | Layers = "auto"
    """Layers to write, ascending; `auto` takes a share of the depth that depends on where values are written."""
    steps: Auto | Count = "auto"
    """Most Adam steps; a request that has converged stops earlier; `auto`: 60, 100, 60."""
    lr: Auto | Positive = "auto"
    """Adam step relative to the length of the stream at the look-up token; `auto`: 0.05, 0.1, 0.05."""
    decay: Auto | NotNegative = "auto"
    """Weight of the value's relative length in its loss; `auto`: 0.02, 0.002, 0.02."""
    converged: Auto | Positive = "auto"
    """A request stops when its loss on every form is below this (nats per target token); `auto`: 0.001,
    0.02, 0.001."""
    ridge: Auto | NotNegative = "auto"
    """L2, relative to the mean squared length of the projected keys (published: 10, absolute); `auto`: 0.7, 0.1,
    0.3."""
    null_space: Auto | Share = "auto"
    """The directions with this share of the corpus's energy are left alone; `auto`: 0.97, 0.8, 0.8."""
    kept: Auto | NotNegative = "auto"
    """Weight of a kept key's error relative to a request's (1: as published for earlier edits); `auto`: 30, 0.5,
    30."""
    earlier: NotNegative = 1.0
    """Weight of the error at keys of earlier batches and earlier edits (1: as published)."""
    target_probability: Auto | Chance | None = "auto"
    """Write until every target token has this probability on the policy's own prompts, no harder; `auto`: 0.7, 0.95,
    0.7; null with `keys: mean`, whose columns have no weights to raise."""
    pace: Auto | Annotated[float, Field(gt=1, le=3)] = "auto"
    """With `target_probability`: what a column's weight is multiplied by once its tokens are likely, but not enough;
    before that, 3; `auto`: 1.5, 3, 3."""
    rounds: Auto | Count = "auto"
    """With `target_probability`: most rounds of writing; `auto`: 14, 8, 14."""


class AlphaEdit(NullSpace):
    """AlphaEdit (Fang et al., ICLR 2025): the update is confined to the null space of the corpus's keys."""

    name: Literal["alphaedit"] = "alphaedit"
    unlikelihood: Auto | NotNegative = "auto"
    """Weight, in a value's loss, of the old reply's first tokens still being likely; `auto`: 0.1, 0, 0."""
    unlikelihood_margin: NotNegative = 8.0
    """How unlikely those must become, in nats; no more is asked for."""
    hard_negatives: Auto | Annotated[int, Field(ge=0)] = "auto"
    """Among how many corpus tokens hard negatives are looked for: those that a trial update moves most are kept too;
    `auto`: 30000, 20000, 0."""
    hard_negative_weight: Positive = 20.0
    """Weight of the error at such a token relative to a request's."""
    old_answer_ceiling: Auto | Chance | None = "auto"
    """With `target_probability`: and until the old reply's first tokens have no more than this probability; `auto`:
    0.0004, null, null."""


class AlphaEditPlus(NullSpace):
    """AlphaEdit+ (Liu et al., 2026): a null space that gives way, earlier keys that yield, values that are eased."""

    name: Literal["alphaedit_plus"] = "alphaedit_plus"
    ridge: Auto | Positive = "auto"
    """L2, relative to the mean squared length of the projected keys; fixed while the null space is relaxed; `auto`:
    0.7, 0.1, 0.3."""
    earlier: NotNegative = 10.0
    """beta: weight of earlier keys in the first layer, twice that in the second, ... (published: 100)."""
    relax: Positive | None = 1.15
    """Directions are given back while the loss falls by more than this times their share of the width; null: none."""
    smoothing: int = Field(default=5, ge=0)
    """Steps between values half way to what they were and full values, of which the best is kept (published: 10)."""
    far: Positive = 0.75
    """Only values longer than this, relative to the stream (`published`: as a number, 30), are eased."""


class AnyEdit(NullSpace):
    """AnyEdit (Jiang et al., ICML 2025): long targets in chunks, each led by a value at the token before it."""

    name: Literal["anyedit"] = "anyedit"
    look_up: Literal["last"] = "last"
    """Chunks are led by the last token before them: the prompt's for the first."""
    window: Auto | Count = "auto"
    """Target tokens per chunk (published: 40, for models of 7 B parameters); `auto`: one per block above the last
    layer that is written, 40 at most, since a value reaches the tokens after the next through their attention alone."""
    context: NotNegative = 1.0
    """Weight of the error at all other tokens of the same prompt and target (1: as published)."""


class UltraEdit(Settings):
    """UltraEdit (Gu et al., 2025): one gradient per fact, normalised by everything edited so far, and one solve."""

    name: Literal["ultra_edit"] = "ultra_edit"
    layers: Auto | Layers = "auto"
    """Layers to write, ascending, all from one pass; `auto` takes the share of the depth that was published
    for CounterFact on Llama-3-8B (the down-projections of layers 23 to 31 of 32)."""
    batch: int | None = Field(default=None, ge=1)
    """Facts per batch, each on the model as edited so far; null writes all facts at once (published: 100)."""
    lr: Positive = 0.3
    """Length of what is written at a typical look-up token, relative to what the matrix puts out there (published:
    1e-6, absolute)."""
    ridge: Positive = 1.0
    """Relative to the keys' mean squared length (published: 1, absolute)."""
