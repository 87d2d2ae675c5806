"""Settings of the edit methods: every number is relative to the model in hand, so that one default fits all sizes.

The published settings are absolute (null-space threshold 0.02, L2 10, a learning rate per model) and do nothing, or
too much, on another model. Here the ridge is relative to the keys' own energy, the null space to the corpus's
energy, and the step and the clamp to the length of the stream.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Settings(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True
    )


class Values(_Settings):
    """How the values v* are optimised, for every method."""

    look_up: Literal["subject", "last", "both"] = "last"
    """Where values are written: the subject's last token, the last prompt token and the target's own, or both."""
    steps: int = Field(default=60, ge=1)
    """Most Adam steps; a request that has converged stops earlier."""
    lr: float = Field(default=0.05, gt=0)
    """Adam step relative to the length of the stream at the look-up token."""
    clamp: float = Field(default=1.5, gt=0)
    """Longest value relative to the length of the stream at the look-up token."""
    keep: float = Field(default=1.0, ge=0)
    """Weight of the KL divergence on the kept prompts of the same subject."""
    decay: float = Field(default=0.02, ge=0)
    """Weight of the value's relative length in its loss."""
    converged: float = Field(default=0.001, gt=0)
    """A request stops when its loss on every form is below this (nats per target token)."""


class AlphaEdit(Values):
    """AlphaEdit (Fang et al., ICLR 2025): the update is confined to the null space of the corpus's keys."""

    name: Literal["alphaedit"] = "alphaedit"
    layers: Literal["auto"] | tuple[int, ...] = "auto"
    """Layers to write, ascending; `auto` takes the family's share of the depth."""
    ridge: float = Field(default=0.7, ge=0)
    """L2, relative to the mean squared length of the projected keys (published: 10, absolute)."""
    null_space: float = Field(default=0.99, gt=0, le=1)
    """The directions that carry this share of the corpus's energy are left alone."""
    kept: float = Field(default=3.0, ge=0)
    """Weight of a kept key's error relative to a request's (1: as published for earlier edits)."""
    threshold: float | None = Field(default=None, gt=0)
    """For parity with the paper: leave eigenvalues of at least this alone (published: 0.02) instead."""


class Rome(Values):
    """ROME (Meng et al., 2022) in the form with one key everywhere: one fact at a time, one layer, equality."""

    name: Literal["rome"] = "rome"
    layer: Literal["auto"] | int = "auto"
    """The layer to write; `auto` takes the middle of AlphaEdit's layers."""
    look_up: Literal["subject", "last", "both"] = "subject"
    """Where the value is written: published, the subject's last token."""


Method = Annotated[AlphaEdit | Rome, Field(discriminator="name")]
