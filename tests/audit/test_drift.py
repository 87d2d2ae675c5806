import math
from pathlib import Path

import pytest
import torch

from tests.pico import pico
from unlearn.algebra.low_rank import LowRank
from unlearn.audit import drift
from unlearn.audit.drift import (
    TextDrift,
    groups,
    log_probs,
    norm_of_difference,
    norm_of_patch,
    read_texts,
    rows_of,
    text_drift,
)
from unlearn.audit.scores import divergence
from unlearn.errors import AuditError
from unlearn.patch import Patch

ROWS = [(0, 5, 9, 14, 3), (0, 7, 7, 30), (0, 12, 40, 2, 8, 100, 55, 21)]


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
def test_log_probs_in_batches_are_those_of_single_rows(family: str) -> None:
    model = pico(family)
    for row, found in zip(ROWS, log_probs(model, ROWS), strict=True):
        alone = torch.log_softmax(model.model(torch.tensor([row])).logits[0, :-1].double(), -1)
        # float32 forward passes of different shapes.
        assert torch.allclose(found.double(), alone, atol=2e-4)
        assert torch.allclose(found.exp().sum(-1), torch.ones(len(row) - 1))
    tight = list(log_probs(model, ROWS, memory=1))
    assert all(torch.allclose(a, b, atol=2e-4) for a, b in zip(tight, log_probs(model, ROWS), strict=True))


def test_kl_and_nll_match_a_dense_reference() -> None:
    torch.manual_seed(0)
    p, q = (torch.log_softmax(torch.randn(6, 50, dtype=torch.float64), -1) for _ in range(2))
    row = (0, 4, 9, 14, 3, 7, 21)
    found = text_drift(p.float(), q.float(), row)
    assert found.tokens == 6
    assert found.kl == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-5)
    assert found.nll_before == pytest.approx(-sum(float(p[i, t]) for i, t in enumerate(row[1:])), rel=1e-6)
    assert found.nll_after == pytest.approx(-sum(float(q[i, t]) for i, t in enumerate(row[1:])), rel=1e-6)
    assert text_drift(q.float(), p.float(), row).kl != pytest.approx(found.kl), (
        "the divergence has a direction"
    )


def test_the_same_model_has_not_drifted() -> None:
    model = pico("llama")
    same = [text_drift(a, a, row) for row, a in zip(ROWS, log_probs(model, ROWS), strict=True)]
    assert [found.kl for found in same] == [0.0, 0.0, 0.0]
    measured = divergence(same, lambda _name: 0.0, 0, "rows")
    assert measured["drift.kl"].passed and measured["drift.perplexity"].after == 1.0


def test_a_token_that_is_ruled_out_does_not_poison_the_sum() -> None:
    p = torch.log_softmax(torch.tensor([[0.0, 0.0, -math.inf]]), -1)
    assert text_drift(p, p, (0, 1)).kl == 0.0
    broken = torch.full_like(p, torch.nan)
    assert math.isnan(text_drift(broken, p, (0, 1)).kl), "an unedited model of nan has not stayed the same"


def test_perplexity_is_a_ratio_and_a_ruined_model_a_failed_measurement() -> None:
    texts = [
        TextDrift(10, 0.5, 20.0, 20.0 + 10 * math.log(2)),
        TextDrift(30, 1.5, 60.0, 60.0 + 30 * math.log(2)),
    ]
    found = divergence(texts, lambda _name: None, 0, "rows")
    assert found["drift.perplexity"].after == pytest.approx(2.0)
    assert found["drift.kl"].after == pytest.approx(2.0 / 40) and found["drift.kl"].n == 40
    assert "Before: 7.39" in found["drift.perplexity"].definition
    for bad in (math.inf, math.nan):
        ruined = divergence([TextDrift(10, bad, 20.0, bad)], lambda _name: 0.1, 0, "rows")
        assert all(m.passed is False and m.after is None for m in ruined.values())


def test_groups_fit_in_memory_and_lose_nothing() -> None:
    assert [row for group in groups(ROWS, 100, memory=2000) for row in group] == ROWS
    assert [len(group) for group in groups(ROWS, 100, memory=3000)] == [2, 1]
    assert [len(group) for group in groups(ROWS, 100, memory=1)] == [1, 1, 1]


def test_rows_stop_at_the_number_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    model = pico("llama")
    monkeypatch.setattr(drift, "LONGEST", 8)
    rows = rows_of(model, ["What is Zorvex made from, and what colour is it?"] * 9, 50)
    assert sum(len(row) - 1 for row in rows) == 50 and max(map(len, rows)) <= 8


def test_texts_from_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.\nStill one.\n\nTwo.\n")
    (tmp_path / "b.jsonl").write_text('{"text": "One."}\n{"text": "Two."}\n')
    assert read_texts(str(tmp_path / "a.txt")) == ["One.\nStill one.", "Two."]
    assert read_texts(str(tmp_path / "b.jsonl")) == ["One.", "Two."]
    for name, content in (("c.jsonl", '{"body": "x"}'), ("d.jsonl", "{"), ("e.txt", "\n \n")):
        (tmp_path / name).write_text(content)
        with pytest.raises(AuditError, match="held-out text"):
            read_texts(str(tmp_path / name))
    with pytest.raises(AuditError):
        read_texts(str(tmp_path / "absent.txt"))
    (tmp_path / "latin.txt").write_bytes("caf\u00e9 secret".encode("latin-1"))
    with pytest.raises(AuditError, match=r"latin.txt:1: not UTF-8 text; save .*$"):  # and none of its words
        read_texts(str(tmp_path / "latin.txt"))


def test_norms_of_a_patch_and_of_the_patched_weights_agree() -> None:
    model, other = pico("llama"), pico("llama")
    name = model.anatomy.weight_name(1)
    weight = model.weight(name)
    patch = Patch(
        {name: LowRank(torch.randn(weight.shape[0], 2), 0.01 * torch.randn(2, weight.shape[1]))},
        model.fingerprint([name]),
    )
    dense = patch.factors[name].dense()
    want = float(torch.linalg.norm(dense) / torch.linalg.norm(weight))
    assert norm_of_patch(model, patch) == {name: pytest.approx(want, rel=1e-5)}
    with other.patched(patch):
        (found,) = norm_of_difference(model, other).values()
    assert found == pytest.approx(want, rel=1e-4)
    assert norm_of_difference(model, other) == {}
    with pytest.raises(AuditError, match="same weight matrices"):
        norm_of_difference(model, pico("llama", inner=96))


def test_gains_zeros_and_what_is_not_a_number_are_differences() -> None:
    model, other = pico("llama"), pico("llama")
    gains = [p for name, p in other.model.named_parameters() if p.dim() == 1]
    with torch.no_grad():
        for gain in gains:
            gain.mul_(3)
    found = norm_of_difference(model, other)
    assert len(found) == len(gains) and all(ratio == pytest.approx(2.0) for ratio in found.values())
    name = model.anatomy.weight_name(1)
    broken, empty, filled = pico("llama"), pico("llama"), pico("llama")
    with torch.no_grad():
        broken.weight(name)[0, 0] = float("nan")
        empty.weight(name).zero_()
    assert math.isnan(norm_of_difference(model, broken)[name])
    assert norm_of_difference(empty, filled)[name] == math.inf
    assert norm_of_difference(empty, empty) == {}
