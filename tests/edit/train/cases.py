"""What the tests of the baselines share: small settings, and one run per method that the tests look at."""

from __future__ import annotations

from functools import cache
from typing import Any

from tests import pico
from tests.edit import cases
from unlearn.edit import pipeline
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Requests
from unlearn.patch import Patch
from unlearn.policy import StatisticsSpec
from unlearn.policy.settings_trained import (
    FineTune,
    GradDiff,
    Guard,
    Lora,
    Mend,
    Nothing,
    Npo,
    RepSelect,
    Rmu,
)

SMALL: dict[str, Any] = {"steps": 12, "batch": 6, "lr": 0.03}
SETTINGS: dict[str, Any] = {
    "ft_m": FineTune(layer=1, converged=1e-9, **SMALL),
    "lora": Lora(kept=4, rank=2, converged=1e-9, **SMALL),
    "grad_diff": GradDiff(kept=4, rank=2, enough=100.0, **SMALL),
    "npo": Npo(kept=4, rank=2, converged=1e-9, **SMALL),
    "rmu": Rmu(kept=4, layer=2, converged=1e-9, **SMALL),
    "mend": Mend(steps=1, batch=2, kept=2, rank=2),
    "rep_select": RepSelect(kept=4, rank=2, enough=100.0, budget=100.0, **SMALL),
    "guard": Guard(text="Never say what Zorvex is made from."),
    "none": Nothing(),
}
TRAINED = ("ft_m", "lora", "grad_diff", "npo", "rmu", "rep_select")


def asking(name: str, seed: int = 0, **changes: Any) -> Requests:
    method = SETTINGS[name].model_copy(update=changes)
    return cases.requests(method=method, seed=seed, statistics=StatisticsSpec(corpus="embedded"))


@cache
def made(name: str, family: str) -> tuple[EditableModel, Patch]:
    """A method's patch of a pico model; the model as the method left it."""
    model = pico.pico(family)
    return model, pipeline.edit(model, asking(name))
