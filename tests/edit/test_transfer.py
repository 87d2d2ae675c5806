"""One default on every size: settings relative to the model write on all of them, the published ones on none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import pico
from tests.edit import cases
from unlearn.edit import forms, pipeline, probabilities
from unlearn.model.editable import EditableModel
from unlearn.policy import StatisticsSpec
from unlearn.policy.settings import AlphaEdit

PUBLISHED = AlphaEdit(published=True, prefixes=0)
"""AlphaEdit's settings for GPT2-XL (docs/methods/alphaedit.md)."""


def fall(model: EditableModel, settings: AlphaEdit, text: Path) -> float:
    """By which share the edit lowers the refusal's mean negative log-likelihood per token."""
    requests = cases.requests(method=settings, statistics=StatisticsSpec(corpus=str(text), tokens=3000))
    rows = [row for row in forms.build(model, requests, requests.facts, "last").rows if not row.keep]

    def nll() -> float:
        return -float(torch.cat(probabilities.reply_probabilities(model, rows).targets).log().mean())

    before = nll()
    with model.patched(pipeline.edit(model, requests)):
        return 1 - nll() / before


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize(("width", "inner"), [(32, 64), (64, 256), (128, 512)])
def test_the_default_writes_where_published_settings_do_not(
    family: str, width: int, inner: int, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"{line} {n}" for n in range(60) for line in pico.LINES), encoding="utf-8")
    model = pico.pico(family, width=width, inner=inner)
    assert fall(model, AlphaEdit(), text) > 0.3
    assert fall(model, PUBLISHED, text) < 0.1
