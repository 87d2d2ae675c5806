"""`benchmarks/speed.py`: its real command line, and that what it is timed against does the same work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import reference, speed
from benchmarks.phases import PHASES, Bench, solve
from benchmarks.reference import System
from benchmarks.timing import Phase, counted
from tests import pico
from tests.edit import cases
from unlearn.algebra.moments import Projector
from unlearn.algebra.write import write
from unlearn.edit import forms
from unlearn.edit.corpus import Corpus
from unlearn.edit.statistics import key_statistics
from unlearn.model.encoding import text_ids
from unlearn.model.forward import read
from unlearn.store import Store

FEW = ["--policy", "world:2", "--prompts", "1", "--tokens", "2000", "--dtype", "float32", "--steps", "2"]
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
SUITE = """
name: few
description: for a test
measurements: [leak.direct, drift.norm]
max_new_tokens: 2
"""
QUICK = [name for name in PHASES if not name.startswith("solve")]
"""Not those of real widths, which take a while on two cores."""
KNOWN = {"seconds", "busy", "share", "plain", "published", "memory_gib"}


def test_every_phase_is_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, suite = tmp_path / "speed.json", tmp_path / "suite.yaml"
    suite.write_text(SUITE)
    phases = ["--suite", str(suite), "--phases", ",".join(QUICK), "--json", str(out)]
    assert speed.main(["--shape", "small", *FEW, *PLAIN, *phases]) == 0
    found = json.loads(out.read_text())
    about = found.pop("about")
    assert about["facts"] == 2 and about["model"] == "small"
    assert list(found) == QUICK
    for name, phase in found.items():
        assert phase["seconds"] > 0 and set(phase) >= KNOWN, name
        assert all(phase[key] is None or phase[key] > 0 for key in KNOWN), name
    edit = found["edit"]
    assert sum(edit["steps"].values()) == pytest.approx(edit["seconds"])
    assert edit["rounds"]["writing layers"] == 1 and "key statistics" in edit["steps"]
    assert found["train"]["steps"] == 2 and found["statistics"]["tokens"] >= 2000
    assert found["growth_10_to_1000"]["ratio"] > 0
    assert (
        found["parity"]["keys"] < 1e-4 and found["parity"]["solve"] < 1e-4 and found["parity"]["replies"] == 1
    )
    table = capsys.readouterr().out.splitlines()
    assert [line.split("`")[1] for line in table if line.startswith("| `")] == QUICK


@pytest.mark.parametrize(
    ("given", "says"),
    [(["--dtype", "int9"], "--dtype int9"), (["--phases", "edit,nothing"], "--phases nothing")],
)
def test_what_cannot_be_timed_is_said(
    given: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert speed.main(["--shape", "small", *FEW, *given]) == 2
    assert says in capsys.readouterr().err


def test_the_dense_solve_gives_the_same_update(tmp_path: Path) -> None:
    system = System.random(48, torch.device("cpu"))
    ours, dense = system.fast(), system.plain()
    torch.testing.assert_close(ours.double(), dense, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(ours.double(), 1.01 * dense, rtol=1e-3, atol=1e-6)  # the control
    model = pico.pico("llama")
    phase = solve(48, Bench(model, cases.requests(), Store.at(tmp_path), 0, 1, 1))
    assert min(phase.seconds, phase.plain or 0, phase.published or 0, phase.share or 0) > 0


def test_the_plain_second_moment_is_the_one_that_is_timed(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"{line} {n}" for n in range(12) for line in pico.LINES), encoding="utf-8")
    model, corpus = pico.pico("llama"), Corpus(str(text))
    rows = [text_ids(model.tokenizer, document) for document in corpus.documents()]
    there = key_statistics(model, [1], corpus, 10_000)[1].second
    torch.testing.assert_close(reference.second_moment(model, rows, 1), there, rtol=1e-4, atol=1e-7)


def test_arithmetic_is_that_of_the_products() -> None:
    one, other = torch.rand(8, 16), torch.rand(16, 4)
    assert counted(lambda: one @ other) == 2 * 8 * 16 * 4
    assert counted(lambda: one + one) == 0
    phase = Phase(seconds=3.0, busy=2.0).beside(share=1.0, plain=8.0)
    assert (phase.share, phase.plain, phase.published) == (0.5, 4.0, None)
    assert phase.beside(4.0, published=2.0).published == 0.5


def test_the_published_procedure_reads_and_solves_the_same() -> None:
    torch.manual_seed(0)
    model = pico.pico("llama")
    rows = [forms.Row(tuple(range(5, 5 + n)), 2, 0, ((0, n - 3),), False) for n in (7, 9, 6)]
    keys = reference.keys_of(model, rows, 1)
    again = read(model, [row.ids for row in rows], [[at for _, at in row.sites] for row in rows], [1]).keys[1]
    torch.testing.assert_close(keys, again, rtol=1e-4, atol=1e-6)
    basis = torch.linalg.qr(torch.randn(len(keys), 9, dtype=torch.float64))[0]
    projector = torch.eye(len(keys), dtype=torch.float64) - basis @ basis.T
    gains, earlier = torch.randn(5, 3, dtype=torch.float64), torch.randn(len(keys), 4, dtype=torch.float64)
    cache = earlier @ earlier.T
    dense = reference.solved(keys.double(), gains, projector, cache).T
    ours = write(
        keys.double(), gains, Projector(basis, True), reference.RIDGE, earlier, absolute=True
    ).dense()
    torch.testing.assert_close(ours, dense, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(cache, earlier @ earlier.T + keys.double() @ keys.double().T)


def test_a_published_value_lowers_the_loss() -> None:
    model = pico.pico("llama")
    rows = [forms.Row(tuple(range(5, 5 + n)), 2, 0, ((0, n - 3),), False) for n in (7, 9)]
    value = reference.value_of(model, rows, [5, 6], 1, 8)

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
