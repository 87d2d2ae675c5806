"""`benchmarks/speed.py`: its real command line, and that the procedure it is timed against does the same work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import published, speed
from tests import pico
from unlearn.algebra.moments import Projector
from unlearn.algebra.write import write
from unlearn.edit import forms
from unlearn.model.forward import read

FEW = ["--policy", "world:2", "--prompts", "1", "--tokens", "2000", "--dtype", "float32"]
PLAIN = [
    *("--set", "method.look_up=subject", "--set", "method.keys=mean", "--set", "method.kept=0"),
    *(
        "--set",
        "method.hard_negatives=0",
        "--set",
        "method.target_probability=null",
        "--set",
        "method.steps=2",
    ),
]


def test_the_steps_of_both_procedures_are_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.json"
    assert speed.main(["--shape", "small", *FEW, *PLAIN, "--published", "1", "--json", str(out)]) == 0
    first, again, whole = json.loads(out.read_text())
    assert (first["state"], again["state"], whole["state"]) == ("first", "again", "published")
    assert "key statistics" in first["steps"] and "key statistics" not in again["steps"]  # the cache was used
    for row in (first, again, whole):
        assert row["facts"] == 2 and row["shape"] == "small"
        assert 0 < row["seconds"] == pytest.approx(sum(row["steps"].values()), rel=1e-6)
    assert first["rounds"]["writing layers"] == 1
    assert set(whole["steps"]) == {"values", "keys", "solve"}
    assert capsys.readouterr().out.count("\n") == 4
    assert speed.main(["--shape", "small", *FEW, "--dtype", "int9"]) == 2


def test_the_published_procedure_reads_and_solves_the_same() -> None:
    torch.manual_seed(0)
    model = pico.pico("llama")
    rows = [forms.Row(tuple(range(5, 5 + n)), 2, 0, ((0, n - 3),), False) for n in (7, 9, 6)]
    keys = published.keys_of(model, rows, 1)
    again = read(model, [row.ids for row in rows], [[at for _, at in row.sites] for row in rows], [1]).keys[1]
    torch.testing.assert_close(keys, again, rtol=1e-4, atol=1e-6)
    basis = torch.linalg.qr(torch.randn(len(keys), 9, dtype=torch.float64))[0]
    projector = torch.eye(len(keys), dtype=torch.float64) - basis @ basis.T
    gains, earlier = torch.randn(5, 3, dtype=torch.float64), torch.randn(len(keys), 4, dtype=torch.float64)
    cache = earlier @ earlier.T
    dense = published.solved(keys.double(), gains, projector, cache).T
    ours = write(
        keys.double(), gains, Projector(basis, True), published.RIDGE, earlier, absolute=True
    ).dense()
    torch.testing.assert_close(ours, dense, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(cache, earlier @ earlier.T + keys.double() @ keys.double().T)


def test_a_published_value_lowers_the_loss() -> None:
    model = pico.pico("llama")
    rows = [forms.Row(tuple(range(5, 5 + n)), 2, 0, ((0, n - 3),), False) for n in (7, 9)]
    value = published.values_of(model, rows, [5, 6], 1, 8)

    def loss(added: torch.Tensor) -> float:
        def on_block(_module: object, _args: object, out: torch.Tensor) -> torch.Tensor:
            out[0, site] += added
            return out

        total = 0.0
        for row in rows:
            site = row.sites[0][1]
            handle = model.anatomy.block(model.model, 1).register_forward_hook(on_block)
            with torch.no_grad():
                logits = model.model(torch.tensor([row.ids])).logits[0, -3:-1].log_softmax(-1)
            handle.remove()
            total -= float(logits.gather(-1, torch.tensor(row.ids[-2:])[:, None]).sum())
        return total

    assert value.shape == (model.anatomy.d_model,)
    assert loss(value) < loss(torch.zeros_like(value)) < loss(-value)
    assert not any(m._forward_hooks for m in model.model.modules())
