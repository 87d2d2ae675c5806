"""On a CUDA device: the same edit as on the CPU, and bf16 models are put back bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import pico
from tests.edit import cases
from unlearn.edit import pipeline
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import plain_prompt
from unlearn.policy import StatisticsSpec
from unlearn.policy.settings import AlphaEdit

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def edited(device: str, dtype: torch.dtype, corpus: Path) -> tuple[EditableModel, dict[str, torch.Tensor]]:
    network = pico.network("llama").to(device=device, dtype=dtype)
    model = EditableModel(network, pico.tokenizer(), "pico", dtype)
    method = AlphaEdit(layers=(1, 2), steps=4, null_space=0.7, ridge=0.3)
    requests = cases.requests(statistics=StatisticsSpec(corpus=str(corpus), tokens=2000), method=method)
    before = model.identity()
    patch = pipeline.edit(model, requests)
    assert model.identity() == before
    with model.patched(patch):
        assert model.identity() != before
    assert model.identity() == before
    return model, {name: delta.dense().cpu() for name, delta in patch.factors.items()}


def test_float32_equals_the_cpu_and_bfloat16_is_restored(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"{line} {n}" for n in range(12) for line in pico.LINES), encoding="utf-8")
    model, there = edited("cuda", torch.float32, path)
    here = edited("cpu", torch.float32, path)[1]
    for name, delta in here.items():
        assert float((there[name] - delta).norm() / delta.norm()) < 1e-2
    prompt = plain_prompt(model.tokenizer, "The colour of Velnar is")
    assert len(model.generate([prompt], 4, samples=3, temperature=1.0)[0]) == 3
    edited("cuda", torch.bfloat16, path)
