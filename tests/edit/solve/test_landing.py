"""The edit as a whole asks the family how its MLP enters the stream: the value it wants is the value that arrives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import families, pico
from tests.edit import cases
from unlearn.edit import pipeline
from unlearn.edit.sequence import Reached
from unlearn.edit.solve import values
from unlearn.edit.solve.values import Solved
from unlearn.model.anatomy import Anatomy
from unlearn.model.forward import read
from unlearn.model.prompts import ask
from unlearn.policy import FactSpec, Keep, RelationSpec, StatisticsSpec
from unlearn.policy.settings import Rome

LAYER = 1
PROMPT = "What is {subject} made from?"


def arrived(case: str, folder: Path, patch: pytest.MonkeyPatch) -> tuple[torch.Tensor, torch.Tensor]:
    """The wanted and the measured change of the stream at the look-up token of the one form of one request."""
    model = families.kept(case)
    text = folder / "text.txt"
    text.write_text("\n".join(f"{line} {n}" for n in range(12) for line in pico.LINES), encoding="utf-8")
    requests = cases.requests(
        method=Rome(layer=LAYER),
        statistics=StatisticsSpec(corpus=str(text), tokens=1000),
        relations={"recipe": RelationSpec(prompts=(PROMPT,))},
        facts=(FactSpec(id="zorvex", subject="Zorvex", relation="recipe", answer="bitter amber"),),
        keep=Keep(neighbours=()),
    )
    requests = type(requests)(requests.policy, requests.facts, (), (), ())
    prompt = ask(model.tokenizer, PROMPT, "Zorvex")
    at = [[prompt.subject_last]]
    before = read(model, [prompt.ids], at, stream_layers=[LAYER]).stream[LAYER]
    torch.manual_seed(1)
    wanted = torch.randn(1, families.WIDTH)
    wanted *= 0.5 * before.norm() / wanted.norm()
    patch.setattr(
        values, "optimise", lambda *_args, **_options: Solved(wanted, Reached((0.0,), (0.0,), (1,)))
    )
    with model.patched(pipeline.edit(model, requests)):
        return wanted[0], (read(model, [prompt.ids], at, stream_layers=[LAYER]).stream[LAYER] - before)[:, 0]


def off(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("case", ["gptj", "phi", "granite"])
def test_rome_moves_the_stream_as_its_value_wants(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, got = arrived(case, tmp_path, monkeypatch)
    assert off(got, wanted) < 1e-3


@pytest.mark.parametrize("case", ["granite", "gemma2", "olmo2"])
def test_without_asking_the_family_less_arrives(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control, and what a post-norm family gains from the projection."""
    wanted, got = arrived(case, tmp_path, monkeypatch)

    def unasked(_anatomy: Anatomy, _model: Any, _layer: int, _keys: Any, share: torch.Tensor) -> torch.Tensor:
        return share

    monkeypatch.setattr(Anatomy, "residual", unasked)
    _, naive = arrived(case, tmp_path, monkeypatch)
    assert off(got, wanted) < off(naive, wanted) - 0.02
