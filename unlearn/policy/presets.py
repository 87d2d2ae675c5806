"""Numbers that go together: methods that differ by them alone, and those of the papers."""

from __future__ import annotations

from collections.abc import Mapping

Numbers = Mapping[str, float | int | str | None]

PRESETS: Mapping[str, Numbers] = {
    "memit": {"ridge": 0.1, "earlier": 0.0},
    "memit_seq": {"ridge": 0.1, "earlier": 1.0},
    "emmet": {"ridge": 1e-4, "earlier": 0.0},
}
"""By name, in what these methods differ (docs/equation.md)."""

_VALUES: Numbers = {"lr": 0.5, "decay": 0.5, "clamp": 0.75, "steps": 20, "converged": 0.05}
_MEMIT: Numbers = {**_VALUES, "ridge": 20_000.0, "look_up": "subject", "keys": "mean", "prefixes": 5}
PUBLISHED: Mapping[str, Numbers] = {
    "rome": {**_VALUES, "clamp": 4.0},
    "memit": _MEMIT,
    "memit_seq": {**_MEMIT, "batch": 100},
    "emmet": {**_VALUES, "ridge": 0.1, "look_up": "subject", "keys": "mean"},
    "alphaedit": {**_MEMIT, "ridge": 10.0, "batch": 100, "kept": 0.0, "hard_negatives": 0,
                  "target_probability": None, "old_answer_ceiling": None, "unlikelihood": 0.0},
    "alphaedit_plus": {"ridge": 10.0, "earlier": 100.0, "relax": 1.8e-4, "smoothing": 10, "far": 30.0, "kept": 0.0,
                       "target_probability": None},
    "anyedit": {"lr": 0.5, "decay": 0.001, "clamp": 4.0, "steps": 25, "converged": 0.01, "ridge": 10.0, "kept": 0.0,
                "target_probability": None, "window": 40},
    "nse": {"ridge": 15_000.0, "neurons": 1.0, "passes": 2, "reached": 2.5, "hopeless": 50.0, "look_up": "subject",
            "keys": "mean", "batch": 100},
}  # fmt: skip
"""What `published: true` stands for where a policy says nothing else; for GPT2-XL, AnyEdit and NSE for Llama-3-8B."""
THRESHOLDS: Mapping[str, float] = {"alphaedit": 0.02, "alphaedit_plus": 0.015, "anyedit": 0.02}
"""Eigenvalues of at least this were left alone, of whatever size the model's keys were."""


def with_presets(data: Mapping[str, object]) -> dict[str, object]:
    """A method's settings as they were written, with the numbers that its name and `published` stand for."""
    name = str(data.get("name"))
    published = PUBLISHED.get(name, {}) if data.get("published") is True else {}
    return {**PRESETS.get(name, {}), **published, **data}
